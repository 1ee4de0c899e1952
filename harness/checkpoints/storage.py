"""Which ranks see the same run folder, and files on their way between folders that are not the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.dist import HostGroup, World, barrier, broadcast_bytes, gather_objects
from preprocess.errors import PreflightError

CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Storage:
    """The file systems that hold a run folder.

    Attributes:
        run_dir: The run folder, as this rank sees it.
        rank: This rank.
        homes: For each rank the rank that renames and deletes in the run folder that it sees.
    """

    run_dir: Path
    rank: int
    homes: tuple[int, ...]

    @property
    def is_shared(self) -> bool:
        """Whether all ranks see the same folder."""
        return len(set(self.homes)) == 1

    @property
    def commits(self) -> bool:
        """Whether this rank renames and deletes: one rank for each separate file system."""
        return self.homes[self.rank] == self.rank


def find_storage(run_dir: Path, world: World) -> Storage:
    """Find out whether every host sees what every other writes, or each its own files alone.

    Raises:
        PreflightError: Some hosts share the folder and some do not.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    run_id = gather_objects(os.getpid())[0]
    own = run_dir / f".seen-{run_id}-{world.rank}"
    if world.local_rank == 0:
        own.touch()
    barrier()
    seen = frozenset(int(path.name.split("-")[-1]) for path in run_dir.glob(f".seen-{run_id}-*"))
    views = gather_objects(seen)
    barrier()
    if world.local_rank == 0:
        own.unlink()
    different = {view for view in views if view}
    if len(different) > 1 and any(len(view) > 1 for view in different):
        raise PreflightError(f"{run_dir}: some hosts share this folder and some do not; let all or none")
    if len(different) > 1 and not all(views):
        raise PreflightError(
            f"{run_dir}: rank {views.index(frozenset())} does not see what the first rank of its host has written there"
        )
    # Where all share one, a file system that is slow to show a new file does not matter.
    return Storage(run_dir, world.rank, tuple(min(view or next(iter(different))) for view in views))


def send_file(
    group: HostGroup,
    size: int,
    source: int,
    read: Callable[[int], bytes] | None,
    write: Callable[[memoryview], object] | None,
) -> None:
    """Send a file from one rank to all, piece by piece; every rank must call this.

    A rank whose disk fails goes on sending or receiving to the end, so that no other waits for it.

    Args:
        group: Through which it travels.
        size: Bytes.
        source: The rank that has it.
        read: Gives up to so many of its next bytes; on the source.
        write: Takes the next bytes; on the ranks that want it.

    Raises:
        OSError: This rank could not read or write.
    """
    failure: OSError | None = None
    buffer = torch.zeros(min(size, CHUNK_BYTES), dtype=torch.uint8)
    for start in range(0, size, CHUNK_BYTES):
        piece = buffer[: min(CHUNK_BYTES, size - start)]
        bytes_of_piece = piece.numpy().data
        try:
            if read is not None and failure is None:
                data = read(len(bytes_of_piece))
                bytes_of_piece[: len(data)] = data
        except OSError as error:
            failure = error
        broadcast_bytes(piece, source, group)
        try:
            if write is not None and failure is None:
                write(bytes_of_piece)
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure
