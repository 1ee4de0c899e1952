"""Files that are on the disk whole or not at all, and the errors of a disk in the user's words."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from preprocess.errors import DataError, NoSpaceError


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashedFile:
    """A file being written that knows its size and digest, so that nothing need be read again.

    Attributes:
        num_bytes: Bytes written so far.
        closed: Whether it takes no more; Arrow asks.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.num_bytes = 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes."""
        self._file.write(data)
        self._digest.update(data)
        self.num_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing to do: the file is flushed and synced once, at the end."""

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far."""
        return self._digest.hexdigest()


@contextmanager
def write_whole(path: Path) -> Iterator[HashedFile]:
    """A file that takes its place when the block ends well, synced with its folder; else nothing is left of it.

    Raises:
        NoSpaceError: The disk is full.
        DataError: It cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield HashedFile(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise no_space(path, error) from error
    except BaseException:
        _remove(temporary)
        raise


def write_text_durably(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it.

    Raises:
        NoSpaceError: The disk is full.
        DataError: It cannot be written.
    """
    with write_whole(path) as file:
        file.write(text.encode("utf-8"))


def copy_durably(source: Path, path: Path) -> None:
    """Copy a file so that a reader sees the whole copy or none.

    Raises:
        NoSpaceError: The disk is full.
        DataError: It cannot be read or written.
    """
    with write_whole(path) as file, source.open("rb") as content:
        shutil.copyfileobj(content, file)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut; file systems that cannot are left alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove what a failed write left; the failure itself is what the user hears of."""
    with suppress(OSError):
        path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, if they are missing.

    Raises:
        DataError: It cannot be made.
        NoSpaceError: The disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_space(folder, error) from error


def no_space(path: Path, error: OSError) -> DataError | NoSpaceError:
    """The user's error for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"no space left while writing {path}; free some and run the same command again")
    return DataError(f"could not write {path}: {error.strerror or error}")
