"""Ranks of the harness as processes, forked from servers (`bench.faults.forks`): here, or one server a host."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 180.0


class ForkServer:
    """One server and the ranks that it forked.

    Args:
        prefix: What the server is started through, as ("ip", "netns", "exec", NAME).
        environment: Variables on top of the caller's, as LD_PRELOAD.
    """

    def __init__(self, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "bench.faults.forks"],
            cwd=ROOT,
            env={**os.environ, **rank_environment(), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started: queue.Queue[int] = queue.Queue()
        self._codes: dict[int, int] = {}
        self._ended = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            answer = json.loads(line)
            if "code" in answer:
                with self._ended:
                    self._codes[answer["pid"]] = answer["code"]
                    self._ended.notify_all()
            else:
                pid = answer.get("pid", 0)
                self._codes.pop(pid, None)  # numbers come again after some thousand processes
                self._started.put(pid)

    def wait_until_ready(self) -> None:
        """Wait for the server's imports.

        Raises:
            queue.Empty: They took too long, or the server died.
        """
        self._started.get(timeout=START_TIMEOUT_S)

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Fork a process that runs `module.main(arguments)`; returns its process id, also its group's."""
        request = {
            "module": module,
            "arguments": list(arguments),
            "environment": dict(environment),
            "log": str(log),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._started.get(timeout=START_TIMEOUT_S)

    def wait(self, pid: int, timeout_s: float) -> int | None:
        """The exit code of a process (minus the number of the signal that killed it), or None after the time."""
        with self._ended:
            self._ended.wait_for(lambda: pid in self._codes, timeout_s)
            return self._codes.get(pid)

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # what a dead server did not take
                    stream.close()


@dataclass(slots=True)
class Ranks:
    """The processes of one run.

    Attributes:
        pids: By rank.
        logs: What each rank printed, by rank.
        started_s: Monotonic time of the start.
        launch_dir: What LYRICS_LAUNCH_DIR names.
    """

    servers: list[ForkServer]
    pids: list[int]
    logs: list[Path]
    launch_dir: Path
    started_s: float = field(default_factory=time.monotonic)

    def wait(self, timeout_s: float) -> list[int | None]:
        """Exit codes by rank; None for a rank that still runs after the time."""
        deadline_s = time.monotonic() + timeout_s
        return [
            server.wait(pid, max(0.0, deadline_s - time.monotonic()))
            for server, pid in zip(self.servers, self.pids, strict=True)
        ]

    def read(self, rank: int | None = None) -> str:
        """What a rank printed, or all of them."""
        logs = self.logs if rank is None else [self.logs[rank]]
        return "\n".join(log.read_text(errors="replace") for log in logs if log.exists())

    def kill(self) -> None:
        """End what still runs of them, also what is stopped."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def rank_environment() -> dict[str, str]:
    """What every rank needs here: the CPU, one thread, this source tree."""
    return {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "DS_BUILD_OPS": "0", "PYTHONPATH": str(ROOT)}


@contextmanager
def fork_server(
    prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[ForkServer]:
    """A server that is ready."""
    server = ForkServer(prefix, environment)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close()


def start_ranks(
    servers: Sequence[ForkServer],
    arguments: Sequence[str],
    folder: Path,
    *,
    module: str = "harness.train",
    address: str = "127.0.0.1",
    environment: Mapping[str, str] | None = None,
    by_rank: Mapping[int, Mapping[str, str]] | None = None,
) -> Ranks:
    """Start one rank a server (a server may be named more than once), with the variables that a launcher sets.

    Args:
        servers: Where each rank starts. Equal servers are one host.
        arguments: Command line of each rank.
        folder: For logs and the launch folder; made anew for each call.
        module: What to run.
        address: Of rank 0, for the others.
        environment: Further variables of all ranks.
        by_rank: Further variables of some.
    """
    launch_dir = folder / "launch" / f"{len(list(folder.glob('launch/*')))}-by-hand"
    launch_dir.mkdir(parents=True)
    common = {
        "WORLD_SIZE": str(len(servers)),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(free_port()),
        "LYRICS_LAUNCH_DIR": str(launch_dir),
        "LYRICS_LAUNCH_ID": launch_dir.name,
        **(environment or {}),
    }
    ranks = Ranks(list(servers), [], [], launch_dir)
    for rank, server in enumerate(servers):
        local = {"RANK": str(rank), "LOCAL_RANK": str(servers[:rank].count(server))}
        log = launch_dir / f"printed-{rank}.txt"
        own = {**common, **local, "LOCAL_WORLD_SIZE": str(servers.count(server))}
        ranks.pids.append(server.start(module, arguments, {**own, **(by_rank or {}).get(rank, {})}, log))
        ranks.logs.append(log)
    return ranks


def free_port() -> int:
    """A port that nobody listens on at the moment, below those that outgoing connections take.

    At random, for a rank takes it seconds later, and another campaign beside this one must not choose it meanwhile.
    """
    for port in random.SystemRandom().sample(range(21000, 30000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
    raise OSError("none of 100 ports between 21000 and 30000 is free")
