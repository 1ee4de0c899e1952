"""Counting what a split holds, batch by batch, in memory that grows by eight bytes a song."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from preprocess.manifest import ShardInfo, SplitInfo
from preprocess.row_batch import RowBatch

UInt64Array = npt.NDArray[np.uint64]

NUM_HASHES_KEPT_APART = 1 << 18


class SongSet:
    """Distinct songs, by 64-bit hashes of their ids: of five million, two share one with a chance below 1e-6."""

    def __init__(self) -> None:
        self._sorted: UInt64Array = np.zeros(0, dtype=np.uint64)
        self._new: set[int] = set()

    def add(self, song_ids: Iterable[str]) -> None:
        """Add songs, new ones or known ones."""
        self._new.update(map(hash_song, song_ids))
        if len(self._new) > NUM_HASHES_KEPT_APART:
            self._merge()

    def _merge(self) -> None:
        new = np.fromiter(self._new, dtype=np.uint64, count=len(self._new))
        self._sorted = np.union1d(self._sorted, new)
        self._new.clear()

    def hashes(self) -> UInt64Array:
        """uint64[N]: ascending."""
        self._merge()
        return self._sorted

    def __len__(self) -> int:
        return len(self.hashes())


def hash_song(song_id: str) -> int:
    """A 64-bit hash that is the same on any machine."""
    return int.from_bytes(blake2b(song_id.encode(), digest_size=8).digest(), "little")


class SplitCounter:
    """Counts of the rows so far.

    Args:
        tasks: Names of the tasks that segments point to.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tasks
        self._songs = SongSet()
        self._examples = np.zeros(len(tasks), dtype=np.int64)
        self._supervised = np.zeros(len(tasks), dtype=np.int64)
        self._num_rows = self._num_tokens = self._num_supervised = self._unshared = 0
        self._least: int | None = None
        self._most = 0

    def add(self, batch: RowBatch) -> None:
        """Count the rows of a batch."""
        supervised = batch.supervised_by_segment()
        by_row = np.add.reduceat(supervised, batch.segment_offsets[:-1])
        asked = batch.tasks >= 0
        tasks = batch.tasks[asked]
        np.add.at(self._examples, tasks, 1)
        np.add.at(self._supervised, tasks, supervised[asked])
        self._unshared += int(batch.path_lengths()[asked].sum())
        self._num_rows += len(batch)
        self._num_tokens += len(batch.input_ids)
        self._num_supervised += int(supervised.sum())
        least = int(by_row.min())
        self._least = least if self._least is None else min(least, self._least)
        self._most = max(self._most, int(by_row.max()))
        self._songs.add(pc.unique(batch.song_ids).to_pylist())

    def info(self, shards: Sequence[ShardInfo]) -> SplitInfo:
        """The counts, as the manifest keeps them."""
        counts = zip(self._tasks, self._examples.tolist(), self._supervised.tolist(), strict=True)
        return SplitInfo(
            num_rows=self._num_rows,
            num_songs=len(self._songs),
            num_examples=int(self._examples.sum()),
            num_tokens=self._num_tokens,
            num_supervised=self._num_supervised,
            min_row_supervised=self._least or 0,
            max_row_supervised=self._most,
            unshared_tokens=self._unshared,
            by_task={task: {"examples": n, "supervised_tokens": tokens} for task, n, tokens in counts},
            shards=tuple(shards),
        )
