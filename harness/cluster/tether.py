"""The tether: it ends a rank when what started it is gone, also where nobody watches from the outside.

A rank that DeepSpeed's launcher started on this host, by hand or by `harness launch`, is ended when

- the node's launcher, its parent, is gone (`kill -9` leaves the rank behind otherwise);
- the ssh connection that it was started through is gone, which shows on its output pipes: sshd no longer reads them;
- the `deepspeed` runner or the pdsh that the user started on this host is gone (it is looked for once, at the start;
  one that was killed before shows when ssh next has a line to pass on).

The ranks on the other hosts end because these are lost: their own tether, their guardians, or `harness launch` see
to that. A rank that waits in a collective does not run Python, and a stopped one runs nothing: so the tether is a
process of its own, which sends SIGTERM, and SIGKILL after GRACE_S. It is this file, run with the standard library
alone; it takes 10 ms of a core and 8 MB.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 8.0
"""Seconds between SIGTERM and SIGKILL."""

NODE_LAUNCHER = "deepspeed.launcher.launch"
RUNNER = "deepspeed.launcher.runner"
_OUTPUTS = (1, 2)
_started: list[subprocess.Popen[bytes]] = []  # kept, for Python warns of a child that is forgotten


def read_command(pid: int) -> list[str]:
    """The command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def is_runner(command: Sequence[str]) -> bool:
    """Whether a command line is that of DeepSpeed's runner: the module, or its script `deepspeed`."""
    names = [Path(word).name for word in command[:3]]
    return RUNNER in command[:5] or "deepspeed" in names or "ds" in names


def find_world_info(command: Sequence[str]) -> str | None:
    """The hosts and slots, as DeepSpeed encodes them, in the command line of a node's launcher or of pdsh."""
    words = [word for word in command if word.startswith("--world_info=")]
    return words[0].removeprefix("--world_info=") if words else None


def find_runner(node_launcher: int) -> tuple[int, int] | None:
    """The runner that a node's launcher belongs to, and the process below it, if they run on this host.

    Over ssh the runner is no ancestor: it is the parent of the pdsh that was given the same world and port.
    """
    command = read_command(node_launcher)
    above = parent_of(node_launcher)
    if is_runner(read_command(above)):
        return above, node_launcher
    marks = {word for word in command if word.startswith(("--world_info=", "--master_port="))}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and marks and _is_here(int(entry)):
            other = read_command(int(entry))
            if other and Path(other[0]).name == "pdsh" and marks <= set(other):
                above = parent_of(int(entry))
                return (above, int(entry)) if is_runner(read_command(above)) else None
    return None


def _is_here(pid: int) -> bool:
    """Hosts that are containers of one machine may share process numbers, but not their network."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def start_tether() -> None:
    """Start the tether of this rank, if DeepSpeed's launcher started it; it ends with the rank."""
    if NODE_LAUNCHER not in read_command(os.getppid()):
        return
    command = [sys.executable, "-S", "-E", os.path.abspath(__file__), str(os.getpid()), str(os.getppid())]
    _started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True))


def watch(rank: int, node_launcher: int) -> str | None:
    """Wait until the rank ends (None), or until something that it hangs on is gone (which)."""
    poll = select.poll()
    names: dict[int, str | None] = {}

    def add(pid: int, name: str | None) -> None:
        descriptor = os.pidfd_open(pid)
        names[descriptor] = name
        poll.register(descriptor, select.POLLIN)

    try:
        add(rank, None)
        name = f"the launcher of this host ({NODE_LAUNCHER})"
        add(node_launcher, name)
        if parent_of(rank) != node_launcher:
            return name
        runner = find_runner(node_launcher)
        if runner is not None:
            name = "the deepspeed launcher"
            add(runner[0], name)
            if runner[1] != node_launcher:
                name = "pdsh"
                add(runner[1], name)
    except ProcessLookupError:
        return name if parent_of(rank) else None
    if runner is None or runner[1] != node_launcher:
        for output in _OUTPUTS:  # no event asked for: a pipe without a reader tells by itself
            poll.register(output, 0)
            names[output] = "the ssh connection"
    ready = [descriptor for descriptor, _ in poll.poll()]
    return None if any(names[descriptor] is None for descriptor in ready) else names[ready[0]]


def end_rank(rank: int, grace_s: float = GRACE_S) -> None:
    """SIGTERM, and SIGKILL when the rank is still there after the grace."""
    try:
        descriptor = os.pidfd_open(rank)
        for number in (
            signal.SIGTERM,
            signal.SIGCONT,
        ):  # a stopped process heeds SIGTERM only when it goes on
            signal.pidfd_send_signal(descriptor, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(grace_s * 1000):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> None:
    """Entry point of the file: `tether.py RANK_PID NODE_LAUNCHER_PID`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # DeepSpeed's launcher sends SIGTERM to all below it
    rank, node_launcher = int(sys.argv[1]), int(sys.argv[2])
    gone = watch(rank, node_launcher)
    if gone is None:
        return
    time.sleep(0.5)  # where the rank is being ended as well, its own end is what counts
    if parent_of(rank):
        with suppress(OSError):
            print(f"error: {gone} is gone; ending the rank {rank}", file=sys.stderr, flush=True)
    end_rank(rank)


if __name__ == "__main__":
    main()
