"""What all ranks do together in a save: each does its part, and where one fails, all fail with the same error."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness.dist import HostGroup, gather_objects
from preprocess.errors import CheckpointError, NoSpaceError, UserError

T = TypeVar("T")


def agree(group: HostGroup, folder: Path, action: Callable[[], T]) -> list[T]:
    """Run something on every rank and wait for all, whatever happens on any of them.

    A rank that fails still takes part, so the ranks' collectives stay in step.

    Args:
        group: Through which the ranks hear of each other.
        folder: What is being written, for messages.
        action: This rank's part.

    Returns:
        What it gave on each rank.

    Raises:
        UserError: Of the first rank that failed; raised on all.
    """
    failure, cause, value = None, None, None
    try:
        value = action()
    except Exception as error:  # noqa: BLE001 - the other ranks must hear of any failure
        cause = error
        known = explain_failure(folder, error)
        failure = (type(known), str(known))
    answers = gather_objects((failure, value), group)
    for rank, (found, _) in enumerate(answers):
        if found is not None:
            kind, message = found
            where = "" if len(answers) == 1 else f"on rank {rank}: "
            raise kind(where + message) from cause
    return [value for _, value in answers]


def explain_failure(folder: Path, error: Exception) -> UserError:
    """The user's error for what went wrong in writing or reading a checkpoint."""
    if isinstance(error, UserError):
        return error
    what = getattr(error, "filename", None) or folder
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left on device" in str(error):
        return NoSpaceError(f"no space left while writing {what}; free some, then go on with --resume")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else None
    return CheckpointError(
        f"{what}: {reason or f'{type(error).__name__}: {error}'}. The checkpoints before it are as they were; "
        "--resume goes on from the newest"
    )
