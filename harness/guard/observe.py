"""Look at a process from outside: whether it lives, is stopped, passes marks; where its threads are."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from harness.guard.board import Board

_COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/")
# linux/pidfd.h: struct pidfd_info and the request that fills it; its exit code is there from Linux 6.15 on.
_PIDFD_INFO = struct.Struct("=QQ11Ii")
_PIDFD_GET_INFO = 0xC000FF0B | (_PIDFD_INFO.size << 16)
_PIDFD_INFO_EXIT = 8
_STACK_WAIT_S = 2.0
_STACK_POLL_S = 0.05


def read_state(pid: int) -> str:
    """The kernel's letter for a process's state: T is stopped, Z ended; empty where there is no such process."""
    return (_read_stat(pid) or [""])[0]


def read_parent(pid: int) -> int | None:
    """A process's parent; None where there is no such process."""
    fields = _read_stat(pid)
    return int(fields[1]) if fields else None


def _read_stat(pid: int) -> list[str]:
    """What follows the name in /proc/<pid>/stat: state, parent and so on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def read_exit_status(pid: int, process: int) -> int | None:
    """The wait status of a process that has ended; None where its parent took it first, on a kernel before 6.15.

    Args:
        pid: Its number.
        process: Its pidfd.
    """
    info = bytearray(_PIDFD_INFO.size)
    _PIDFD_INFO.pack_into(info, 0, _PIDFD_INFO_EXIT, 0, *[0] * 11, 0)
    try:
        fcntl.ioctl(process, _PIDFD_GET_INFO, info)
        mask, *_, status = _PIDFD_INFO.unpack(info)
    except OSError:
        mask, status = 0, 0
    if mask & _PIDFD_INFO_EXIT:
        return int(status)
    fields = _read_stat(pid)  # proc_pid_stat(5), field 52: there until its parent has waited for it
    return int(fields[-1]) if fields else None


def describe_death(status: int | None) -> str:
    """How a process ended, in words; `status` is as `read_exit_status` gives it."""
    if status is None:
        return "died"
    if not os.WIFSIGNALED(status):
        return f"ended with code {os.WEXITSTATUS(status)} without a word"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hint = (
        ", most often sent by the kernel when memory runs out: see dmesg there" if name == "SIGKILL" else ""
    )
    return f"was killed by {name}{hint}"


@dataclass(slots=True)
class Watched:
    """What was seen of a process over time.

    Ages grow only while the observer itself runs: a machine that slept does not make them jump.

    Attributes:
        max_gap_s: The longest time between two looks that counts.
        idle_s: Seconds without a mark.
        stopped_s: Seconds in state T.
        board: What it showed last.
    """

    max_gap_s: float
    idle_s: float = 0.0
    stopped_s: float = 0.0
    board: Board | None = None
    _looked_s: float | None = None

    def look(self, now_s: float, board: Board, state: str) -> None:
        """Take note of a board and a state, on any monotonic clock."""
        passed_s = 0.0 if self._looked_s is None else min(now_s - self._looked_s, self.max_gap_s)
        moved = self.board is None or self.board.beats != board.beats
        self.idle_s = 0.0 if moved else self.idle_s + passed_s
        self.stopped_s = self.stopped_s + passed_s if state == "T" else 0.0
        self.board, self._looked_s = board, now_s


def ask_for_stacks(pid: int, stacks: int) -> str:
    """Let a process write the stacks of its threads, and wait for them.

    Args:
        pid: It has registered `faulthandler` for SIGUSR1.
        stacks: Descriptor of the file that it writes to.

    Returns:
        The text; empty where the process could not be made to write.
    """
    before = os.fstat(stacks).st_size
    try:
        os.kill(pid, signal.SIGUSR1)
        if read_state(pid) == "T":
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return ""
    deadline_s, size = time.monotonic() + _STACK_WAIT_S, before
    while time.monotonic() < deadline_s:
        time.sleep(_STACK_POLL_S)
        last, size = size, os.fstat(stacks).st_size
        if size == last > before:
            break
    return os.pread(stacks, size - before, before).decode(errors="replace")


def read_main_thread(stacks: str) -> tuple[str, bool]:
    """Where the main thread is: its innermost place in the source, and whether it is in a collective.

    Args:
        stacks: From `faulthandler`, which tells the main thread last.
    """
    blocks = [block for block in stacks.split("\n\n") if "  File " in block]
    frames = (
        [line.strip() for line in blocks[-1].splitlines() if line.startswith("  File ")] if blocks else []
    )
    in_collective = any(part in frame for frame in frames for part in _COLLECTIVES)
    return (frames[0].removeprefix("File ") if frames else "", in_collective)
