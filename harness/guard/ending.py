"""The end of a rank as its guardian brings it about: stacks kept, verdict written, process ended."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from harness.cluster.outcome import record_exit
from harness.guard.verdict import Verdict

VERDICT_FILE = "verdict.json"

END_WAIT_S = 4.0
"""Seconds that a rank gets to end by itself before it is killed."""

WRITE_WAIT_S = 4.0
"""Seconds for files; a disk that hangs must not keep a host's processes."""


def stacks_path(run_dir: Path, rank: int) -> Path:
    """Where a rank's stacks are kept."""
    return run_dir / "logs" / f"stacks-rank-{rank}.txt"


def write_verdict(folder: Path, verdict: Verdict, *, is_final: bool) -> None:
    """Write a verdict that is whole or not there; one that is not final does not replace another."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{VERDICT_FILE}.{os.getpid()}"
    new.write_text(json.dumps(verdict.to_json(), indent=2) + "\n", encoding="utf-8")
    if is_final:
        new.replace(folder / VERDICT_FILE)
        return
    with suppress(FileExistsError):
        os.link(new, folder / VERDICT_FILE)
    new.unlink()


def write_all(
    verdict: Verdict, stacks: str, run_dir: Path, launch_dir: Path | None, rank: int, *, is_final: bool
) -> None:
    """Write stacks and verdict, each where it can be written, within a bounded time."""

    def write() -> None:
        with suppress(OSError):
            if stacks:
                stacks_path(run_dir, rank).parent.mkdir(parents=True, exist_ok=True)
                stacks_path(run_dir, rank).write_text(f"{verdict.message}\n\n{stacks}", encoding="utf-8")
        with suppress(OSError):
            write_verdict(run_dir / "logs", verdict, is_final=is_final)
        with suppress(OSError):
            if launch_dir is not None:
                write_verdict(launch_dir, verdict, is_final=is_final)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(WRITE_WAIT_S)


def end_process(pid: int, process: int) -> bool:
    """Wait for a process to end by itself, then kill it. Returns whether it had to be killed.

    Args:
        pid: Its number.
        process: Its pidfd, readable once it has ended.
    """
    if select.select([process], [], [], END_WAIT_S)[0]:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    select.select([process], [], [], END_WAIT_S)
    return True


def record_end(launch_dir: Path | None, rank: int, code: int) -> None:
    """Write down the code of a rank that could not do so itself, within a bounded time."""
    writer = threading.Thread(target=record_exit, args=(launch_dir, rank, code), daemon=True)
    writer.start()
    writer.join(WRITE_WAIT_S)


def print_line(text: str) -> None:
    """One line for the user; a closed terminal is no reason to fail."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
