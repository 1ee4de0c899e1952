"""Bring every rank's trace to rank 0's folder, where hosts do not share the run folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.checkpoints.storage import send_file
from harness.dist import World, gather_objects, host_group
from harness.profiling.recorder import trace_file
from harness.profiling.summary import RankProfile
from preprocess.durable import write_whole
from preprocess.errors import UserError

MAX_SENT_BYTES = 256 * 2**20
"""A larger trace stays on its host: it would take the link for too long while the run stands still."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A rank whose steps could not be profiled or written.

    Attributes:
        rank: Which.
        reason: What went wrong.
    """

    rank: int
    reason: str


def collect_traces(folder: Path, own: RankProfile | Failed, world: World) -> list[RankProfile | Failed]:
    """What every rank has found, their traces beside rank 0's where they can be; every rank must call this.

    Args:
        folder: Of the profile, as this rank sees it.
        own: What this rank has found; its trace is in its own folder.
        world: This rank's place.
    """
    found = gather_objects(own)
    if world.size == 1:
        return found
    missing = gather_objects([rank for rank in range(world.size) if not _has(folder, found[rank])])[0]
    return [_bring(folder, one, world) if rank in missing else one for rank, one in enumerate(found)]


def _has(folder: Path, one: RankProfile | Failed) -> bool:
    """Whether a rank's trace is in the folder, this profile's and whole; or there is none."""
    if isinstance(one, Failed) or one.trace is None:
        return True
    path = folder / one.trace
    return path.is_file() and path.stat().st_size == one.trace_bytes


def _bring(folder: Path, one: RankProfile | Failed, world: World) -> RankProfile | Failed:
    """Send one rank's trace to rank 0; the others only hear of it."""
    assert isinstance(one, RankProfile)
    if one.trace_bytes > MAX_SENT_BYTES:
        size, limit = one.trace_bytes / 2**20, MAX_SENT_BYTES / 2**20
        why = f"stays on {one.host} in {folder}: {size:.0f} MiB, and at most {limit:.0f} MiB are sent"
        return replace(one, trace=None, trace_note=why)
    error = gather_objects(_transfer(folder, one, world))
    reason = error[0] or error[one.rank]
    if reason is None:
        return one
    return replace(one, trace=None, trace_note=f"stays on {one.host} in {folder}: {reason}")


def _transfer(folder: Path, one: RankProfile, world: World) -> str | None:
    """This rank's part in sending a file. Returns what went wrong here, or None."""
    path, group = folder / trace_file(one.rank), host_group("profile")
    try:
        if world.rank == one.rank:
            with path.open("rb") as source:
                send_file(group, one.trace_bytes, one.rank, source.read, None)
        elif world.is_main:
            with write_whole(path) as target:
                send_file(group, one.trace_bytes, one.rank, None, target.write)
        else:
            send_file(group, one.trace_bytes, one.rank, None, None)
    except (OSError, UserError) as error:
        return str(error)
    return None
