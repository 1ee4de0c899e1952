"""One launch at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preprocess.errors import NoSpaceError, PreflightError

LOCK_FILE = "run.lock"
_NO_LOCKS_HERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def hold_run(run_dir: Path) -> Iterator[None]:
    """Hold the run folder meanwhile, so that no second launch or by-hand start writes into it.

    The kernel gives the lock back when its holder ends in any way, so a lock cannot be stale; the file tells who
    holds it. Where the file system has no locks, a holder on this host is looked up by its process number, and
    one on another host is believed.

    Args:
        run_dir: The run's folder; made if it is not there.

    Raises:
        PreflightError: Another process holds it; says on which host and which. Or the folder cannot be written to.
        NoSpaceError: The disk is full.
    """
    path = run_dir / LOCK_FILE
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = False
        except BlockingIOError:
            is_held = True
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
            is_held = _is_alive(_read_holder(path))
        if is_held:
            holder = _read_holder(path)
            raise PreflightError(
                f"{run_dir} is in use by another launch, process {holder.get('pid', '?')} on "
                f"{holder.get('host', '?')}. Wait for its end or stop it; or choose another output_dir"
            )
        _write_holder(descriptor)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"{path}: no space left; free some") from None
        raise PreflightError(f"output_dir {path.parent} cannot be written to: {error.strerror}") from None


def _write_holder(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_time(os.getpid())}
    os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _read_holder(path: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        holder = json.loads(path.read_text())
        if isinstance(holder, dict):
            return holder
    return {}


def _is_alive(holder: dict[str, object]) -> bool:
    """Whether the holder still runs; one on another host cannot be looked up and is taken to."""
    if not holder:
        return False
    if holder.get("host") != socket.gethostname():
        return True
    return _start_time(holder.get("pid")) == holder.get("started")


def _start_time(pid: object) -> str | None:
    """When a process started, in clock ticks after boot: with its number it is unique; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
