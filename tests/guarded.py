"""Start ranks of `guard_program` here or on the hosts of a cluster, do something to them, and see how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.guard.observe import read_state
from tests.cluster import Cluster, start_on

REPOSITORY = Path(__file__).parent.parent
PROGRAM = Path(__file__).parent / "guard_program.py"
QUICK = {"min_timeout_s": 3.0, "startup_timeout_s": 60.0}


@dataclass(slots=True)
class Ranks:
    """Ranks that run.

    Attributes:
        run_dir: Their run folder.
        launch_dir: Their launch folder.
        processes: In order of rank.
        pids: Of the ranks themselves.
    """

    run_dir: Path
    launch_dir: Path
    processes: list[subprocess.Popen[str]]

    @property
    def pids(self) -> list[int]:
        return [int((self.run_dir / f"here-{rank}").read_text()) for rank in range(len(self.processes))]

    def wait_until_here(self) -> None:
        """Wait until every rank is in the phase that it stays in."""
        num_ranks = len(self.processes)
        wait_for(lambda: all((self.run_dir / f"here-{rank}").exists() for rank in range(num_ranks)))
        wait_for(lambda: all((self.run_dir / f"here-{rank}").read_text() for rank in range(num_ranks)))

    def end(self, timeout_s: float = 60.0) -> list[int]:
        """Wait for every rank's end; returns the exit codes, negative for a signal."""
        deadline_s = time.monotonic() + timeout_s
        return [one.wait(max(0.1, deadline_s - time.monotonic())) for one in self.processes]

    def verdict(self) -> dict[str, Any]:
        """What was written into the launch folder, which is what the run folder holds."""
        wait_for((self.launch_dir / "verdict.json").exists)
        found: dict[str, Any] = json.loads((self.launch_dir / "verdict.json").read_text())
        return found

    def outputs(self) -> list[str]:
        """Everything that was printed, in order of rank; after the end."""
        return [one.communicate(timeout=30)[0] for one in self.processes]

    def left(self) -> list[int]:
        """Processes of these ranks and guardians that still live."""
        record = f"LYRICS_LAUNCH_ID={self.launch_dir.name}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if record in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return [pid for pid in found if read_state(pid) not in ("", "Z")]

    def are_gone(self, timeout_s: float = 15.0) -> bool:
        """Whether no process is left within the time that is promised."""
        with suppress(AssertionError):
            wait_for(lambda: not self.left(), timeout_s)
        return not self.left()


@contextmanager
def start_ranks(
    folder: Path,
    cluster: Cluster | None = None,
    num_ranks: int = 3,
    *,
    under_launchers: bool = False,
    **config: Any,
) -> Iterator[Ranks]:
    """Start ranks, one a host where there is a cluster; kill what is left at the end.

    Under launchers each rank is the child of a shell that stands for DeepSpeed's launcher of its host.
    """
    run_dir = folder / "run"
    launch_dir = run_dir / "launch" / f"l{os.urandom(4).hex()}"
    launch_dir.mkdir(parents=True)
    text = json.dumps({"limits": QUICK, "run_dir": str(run_dir), **config})
    address = "127.0.0.1" if cluster is None else cluster.hosts[0].address
    common = {
        "WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(free_port()),
        "LYRICS_LAUNCH_DIR": str(launch_dir),
        "LYRICS_LAUNCH_ID": launch_dir.name,
        "PYTHONPATH": str(REPOSITORY),
    }
    if cluster is not None:
        cluster.write_hostfile(launch_dir / "hostfile")
    processes = []
    for rank in range(num_ranks):
        own = {**common, "RANK": str(rank), "LOCAL_RANK": "0" if cluster is not None else str(rank)}
        command = [sys.executable, str(PROGRAM), text]
        if under_launchers:
            command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
            own["CROSS_RANK"] = str(rank)
        processes.append(
            start_here(command, own) if cluster is None else start_on(cluster.hosts[rank], command, own)
        )
    ranks = Ranks(run_dir, launch_dir, processes)
    try:
        yield ranks
    finally:
        for process in processes:
            process.kill()
        for pid in ranks.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def start_here(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"it did not happen within {timeout_s:.0f} s")
        time.sleep(0.02)
