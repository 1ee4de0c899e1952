"""The keeper: a small process on every host of a launch that leaves nothing running when the launch is gone.

It is started over ssh with this file's path (the standard library alone, no package), holds one end of the
connection, and takes lines from its standard input:

    port N      say whether port N is free here; 0 asks for a free one
    addresses   say this host's addresses, as `hostname -I` lists them
    report      send what the ranks left in the launch folder, and how far the run came
    aside       move the metrics of the attempt before, if it saved nothing, out of this one's way
    stop S      SIGTERM for the ranks, and after S seconds SIGKILL for all of the launch
    sweep       SIGKILL for all of the launch

    beat        nothing: the launcher is there

The end of the input means that `harness launch`, its ssh or the connection is gone, which is `stop` with ABANDONED_S:
a launch that was killed with SIGKILL leaves no rank behind. A launcher whose host vanished sends no end: where nothing
of the launch is left and nothing was heard for SILENCE_S, the keeper goes too. Answers are JSON lines on standard
output; a beat every few seconds makes TCP notice a peer that went away in silence. Processes are found by
LYRICS_LAUNCH_ID in their environment, so nobody else's are touched.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ABANDONED_S = 8.0
"""Seconds between SIGTERM and SIGKILL when the launcher is gone."""

BEAT_S = 5.0
"""Seconds between two signs of life, in both directions."""

SILENCE_S = 3 * BEAT_S
"""Seconds without a word from the launcher, after which a keeper that has nothing left to keep goes."""

PORTS = range(20000, 30000)
"""Below Linux' ephemeral ports, so no outgoing connection takes one meanwhile."""

_POLL_S = 0.25
_TAIL_BYTES = 65536
_LEFT_BEHIND = re.compile(r"rank-[0-9]+\.exit|finished\.json|verdict\.json")


@dataclass(frozen=True, slots=True)
class Found:
    """A process of the launch: its number, and whether it is a rank itself and not a child of one."""

    pid: int
    is_rank: bool


def find_processes(launch_id: str) -> list[Found]:
    """The launch's processes on this host, found by their environment; a zombie has none and does not count."""
    record = f"LYRICS_LAUNCH_ID={launch_id}".encode()
    environments = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            variables = _environment_of(int(entry))
            if record in variables and _is_on_this_host(int(entry)):
                environments[int(entry)] = variables
    return [
        Found(pid, _has_rank(variables) and not _has_rank(environments.get(_parent_of(pid), [])))
        for pid, variables in environments.items()
    ]


def _environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or belongs to someone else
        return []


def _is_on_this_host(pid: int) -> bool:
    """Hosts that are containers of one machine may share process numbers, but not their network."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def _has_rank(variables: list[bytes]) -> bool:
    return any(variable.startswith(b"RANK=") for variable in variables)


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def send_signal(pids: list[int], number: int) -> None:
    """Send a signal to each process that still is there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def find_port(port: int) -> int:
    """The port itself if it is free on this host, any free one for 0; else 0."""
    candidates = [port] if port else random.sample(PORTS, 100)
    return next((candidate for candidate in candidates if _can_bind(candidate)), 0)


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def list_addresses() -> list[str]:
    """This host's addresses but the loopback's; empty where there is no `hostname`."""
    try:
        said = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False, timeout=4)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.split()


def read_report(launch_dir: Path, run_dir: Path) -> dict[str, Any]:
    """What a launch left on this host: its small files, the newest checkpoint's step, the last step taken."""
    paths = sorted(launch_dir.iterdir()) if launch_dir.is_dir() else []
    files = {path.name: path.read_text() for path in paths if _LEFT_BEHIND.fullmatch(path.name)}
    return {"files": files, "checkpoint": newest_checkpoint(run_dir), "step": last_step(run_dir)}


def newest_checkpoint(run_dir: Path) -> int | None:
    """The step of the newest folder `checkpoint-<step>`; whether it is whole is looked at when it is loaded."""
    names = [path.name.removeprefix("checkpoint-") for path in run_dir.glob("checkpoint-*") if path.is_dir()]
    return max((int(name) for name in names if name.isdigit()), default=None)


def last_step(run_dir: Path) -> int | None:
    """The last step in the run's metrics.jsonl, or None when no step was taken."""
    try:
        with (run_dir / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            steps = re.findall(rb'"step": ?([0-9]+)', file.read())
    except OSError:
        return None
    return max(map(int, steps), default=None)


def set_aside(launch_dir: Path, run_dir: Path) -> None:
    """Move the metrics of an attempt that saved nothing into the launch folder of the next one."""
    metrics = run_dir / "metrics.jsonl"
    if newest_checkpoint(run_dir) is None and metrics.is_file():
        launch_dir.mkdir(parents=True, exist_ok=True)
        metrics.rename(launch_dir / "metrics-before.jsonl")


@dataclass(slots=True)
class Keeper:
    """The state of a keeper.

    Attributes:
        launch_id: The launch.
        launch_dir: Its folder on this host.
        run_dir: The run's folder on this host.
        kill_at_s: When all of the launch gets SIGKILL, by the monotonic clock; None while nobody is to be stopped.
        abandoned: Whether the input has ended.
        told_verdict: Whether the guardians' verdict was passed on.
        terminated: The ranks that got SIGTERM.
        buffer: The beginning of a line that has not arrived whole.
        heard_s: When the launcher last sent something, by the monotonic clock.
    """

    launch_id: str
    launch_dir: Path
    run_dir: Path
    kill_at_s: float | None = None
    abandoned: bool = False
    told_verdict: bool = False
    terminated: set[int] = field(default_factory=set)
    buffer: bytes = field(default=b"")
    heard_s: float = field(default_factory=time.monotonic)

    def keep(self) -> None:
        """Serve until the launch is over: the input has ended, or is silent, and nothing is left."""
        self.tell(ready=os.getpid())
        next_beat_s = time.monotonic() + BEAT_S
        while not (self.abandoned and self.kill_at_s is None):
            self.read_commands()
            self.go_on_stopping()
            self.pass_verdict_on()
            if time.monotonic() > next_beat_s:
                self.tell(beat=True)
                next_beat_s = time.monotonic() + BEAT_S
                if self.is_forgotten():
                    return

    def is_forgotten(self) -> bool:
        """Whether the launcher is silent and nothing of the launch is left; one that is only stopped has its ranks."""
        silence_s = time.monotonic() - self.heard_s
        return silence_s > SILENCE_S and not find_processes(self.launch_id)

    def read_commands(self) -> None:
        """Obey what has arrived; waits a moment for it."""
        if self.abandoned:
            time.sleep(_POLL_S)
            return
        timeout_s = _POLL_S if self.kill_at_s is not None else 1.0
        if not select.select([0], [], [], timeout_s)[0]:
            return
        data = os.read(0, 65536)
        self.heard_s = time.monotonic()
        if not data:
            self.abandoned = True
            self.stop(ABANDONED_S)
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self.obey(*line.decode().split())

    def obey(self, command: str, argument: str = "0") -> None:
        """Carry one command out."""
        if command == "port":
            self.tell(port=find_port(int(argument)))
        elif command == "addresses":
            self.tell(addresses=list_addresses())
        elif command == "report":
            self.tell(report=read_report(self.launch_dir, self.run_dir))
        elif command == "aside":
            set_aside(self.launch_dir, self.run_dir)
            self.tell(aside=True)
        elif command == "stop":
            self.stop(float(argument))
        elif command == "sweep":
            self.kill()
            self.tell(swept=True)

    def stop(self, grace_s: float) -> None:
        """SIGTERM for the ranks; the SIGKILL for everything follows later, a second call may bring it forward."""
        kill_at_s = time.monotonic() + grace_s
        self.kill_at_s = kill_at_s if self.kill_at_s is None else min(kill_at_s, self.kill_at_s)

    def go_on_stopping(self) -> None:
        """Send SIGTERM to ranks that have not had it; kill what is left when the time is over.

        When the launcher is gone, the node's launchers that outlive their ranks need not be waited for.
        """
        if self.kill_at_s is None:
            return
        left = find_processes(self.launch_id)
        ranks = {found.pid for found in left if found.is_rank}
        new = sorted(ranks - self.terminated)
        self.terminated |= ranks
        send_signal(new, signal.SIGTERM)
        send_signal(new, signal.SIGCONT)  # a stopped process heeds SIGTERM only when it goes on
        if time.monotonic() > self.kill_at_s or not left or (self.abandoned and not ranks):
            self.kill()
            self.kill_at_s = None
            self.tell(stopped=True)

    def kill(self) -> None:
        """SIGKILL until nothing is left; what was being started meanwhile is found in the next round."""
        for _ in range(20):
            pids = [found.pid for found in find_processes(self.launch_id)]
            if not pids:
                return
            send_signal(pids, signal.SIGKILL)
            time.sleep(0.05)

    def pass_verdict_on(self) -> None:
        """Send the guardians' verdict as soon as there is one on this host's disk."""
        path = self.launch_dir / "verdict.json"
        if not self.told_verdict and path.is_file():
            self.told_verdict = True
            self.tell(verdict=path.read_text())

    def tell(self, **answer: object) -> None:
        """Send one line; a reader that is gone shows as the end of the input."""
        with suppress(OSError):
            os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Entry point: `keeper.py LAUNCH_ID LAUNCH_DIR RUN_DIR`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # only the end of the input ends it
    Keeper(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])).keep()


if __name__ == "__main__":
    main()
