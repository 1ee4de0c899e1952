"""Folders that change places whole: a crash at any moment leaves the old one or the new one, never half of one."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from pathlib import Path

from harness.checkpoints.agreement import explain_failure
from preprocess.durable import sync_folder

PREFIX = "checkpoint-"
LEFTOVERS = (".tmp", ".trash")
OLD = ".old"
_STEP = re.compile(rf"{PREFIX}(0|[1-9][0-9]*)")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def list_steps(run_dir: Path) -> list[int]:
    """Steps of the checkpoints in a run folder, ascending."""
    matches = (_STEP.fullmatch(path.name) for path in run_dir.glob(f"{PREFIX}*") if path.is_dir())
    return sorted(int(match.group(1)) for match in matches if match)


def with_ending(folder: Path, ending: str) -> Path:
    """A folder's name with an ending that says that it is not to be loaded."""
    return folder.with_name(folder.name + ending)


def sync_tree(folder: Path) -> None:
    """Make a folder's names, and those of the folders in it, last through a power cut."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    """Make a file's bytes last through a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def put_in_place(new: Path, final: Path) -> None:
    """Rename a complete folder to its name, in the place of one that may be there.

    Where both are there they change names in one operation. A file system that cannot do that has for a moment only
    `final`.old and `new`, of which `finish_replacing` makes `final` again.
    """
    if not final.exists():
        new.rename(final)
        sync_folder(final.parent)
        return
    if not _exchange(new, final):
        old = with_ending(final, OLD)
        remove(old)
        final.rename(old)
        new.rename(final)
        new = old
    sync_folder(final.parent)
    remove(new)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names at once (Linux's renameat2); False where that cannot be had."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))


def finish_replacing(final: Path) -> None:
    """Put the old folder back where a crash came between the two renames of `put_in_place`."""
    old = with_ending(final, OLD)
    if old.is_dir() and not final.exists():
        old.rename(final)


def remove(folder: Path) -> None:
    """Delete a folder; what is half deleted never has a name under which it would be loaded.

    Raises:
        OSError: It cannot be deleted.
    """
    if not folder.exists():
        return
    if _STEP.fullmatch(folder.name):
        trash = with_ending(folder, ".trash")
        shutil.rmtree(trash, ignore_errors=True)
        folder.rename(trash)
        folder = trash
    shutil.rmtree(folder)


def clean_up(run_dir: Path) -> None:
    """Finish what a crash has left half done, and delete what was never completed.

    Raises:
        OSError: Something cannot be renamed or deleted.
    """
    for old in sorted(run_dir.glob(f"{PREFIX}*{OLD}")):
        finish_replacing(old.with_name(old.name.removesuffix(OLD)))
        remove(old)
    for ending in LEFTOVERS:
        for path in run_dir.glob(f"{PREFIX}*{ending}"):
            remove(path)


def publish_adapter(run_dir: Path, source: Path) -> Path:
    """Copy a checkpoint's adapter to `run_dir`/adapter: the one before, or this one, is there at any moment.

    Raises:
        NoSpaceError: The disk is full.
        CheckpointError: It cannot be written.
    """
    target = run_dir / "adapter"
    temporary = with_ending(target, ".tmp")
    try:
        finish_replacing(target)
        for leftover in (temporary, with_ending(target, OLD)):
            remove(leftover)
        shutil.copytree(source, temporary)
        for path in temporary.rglob("*"):
            if path.is_file():
                sync_file(path)
        sync_tree(temporary)
        put_in_place(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise explain_failure(target, error) from error
    return target
