"""Rows gathered from the groups of many files: each row's groups lie anywhere, the memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from preprocess.build.bins import Bins
from preprocess.build.group_file import NUMBERS, GroupFile, mask_of
from preprocess.row_batch import RowBatch
from preprocess.schema import ROOT, Int32Array, Int64Array
from preprocess.shards import ROWS_PER_BATCH

WINDOW_TOKENS = 1 << 25
"""Tokens that are gathered at a time: each file is opened once for so many."""


class GroupFiles:
    """The groups of several files, counted through. N groups.

    Args:
        files: In the order that groups are counted in.

    Attributes:
        lengths: int32[N], tokens of each group.
        num_supervised: int32[N], its supervised tokens.
    """

    def __init__(self, files: Sequence[GroupFile]) -> None:
        self._files = files
        self._starts = np.cumsum([0, *(len(file) for file in files)], dtype=np.int64)
        self.lengths = _join([file.lengths for file in files])
        self.num_supervised = _join([file.num_supervised for file in files])
        self._num_segments = _join([file.num_segments for file in files])

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, bins: Bins) -> Iterator[RowBatch]:
        """The rows that bins of groups stand for, batch by batch.

        Memory is that of `WINDOW_TOKENS` tokens, however many there are.

        Raises:
            DataError: A file is gone.
        """
        num_tokens = np.cumsum(bins.sums(self.lengths))
        first = 0
        while first < len(bins):
            before = num_tokens[first - 1] if first else 0
            last = int(np.searchsorted(num_tokens, before + WINDOW_TOKENS, side="right"))
            last = min(max(first + ROWS_PER_BATCH, last // ROWS_PER_BATCH * ROWS_PER_BATCH), len(bins))
            window = self._gather_window(*_part(bins, first, last))
            for start in range(0, len(window), ROWS_PER_BATCH):
                yield window.part(start, min(start + ROWS_PER_BATCH, len(window)))
            first = last
            del window  # before the next one is made

    def _gather_window(self, items: Int64Array, num_items: Int64Array) -> RowBatch:
        """The rows that groups make: the first `num_items[0]` of them one row, and so on."""
        slot_ends = np.cumsum(self.lengths[items], dtype=np.int64)
        segment_ends = np.cumsum(self._num_segments[items], dtype=np.int64)
        places = np.stack([slot_ends - self.lengths[items], segment_ends - self._num_segments[items]])
        ids = np.empty(slot_ends[-1], dtype=np.int32)
        segments = np.empty((segment_ends[-1], len(NUMBERS)), dtype=np.int32)
        songs = self._copy(items, ids, segments, places)
        seq_lens, parents, tasks, supervised = np.ascontiguousarray(segments.T)
        rows = np.cumsum(num_items) - 1  # the last group of each row
        slot_offsets, segment_offsets = (
            np.concatenate([[0], ends[rows]]) for ends in (slot_ends, segment_ends)
        )
        # A group counts its parents from its own first segment, a row from the row's.
        shift = places[1] - np.repeat(segment_offsets[:-1], num_items)
        shift = np.repeat(shift, self._num_segments[items]).astype(np.int32)
        song_of_segment = np.repeat(np.arange(len(items)), self._num_segments[items])
        return RowBatch(
            input_ids=ids,
            label_mask=mask_of(seq_lens, supervised),
            seq_lens=seq_lens,
            parents=np.where(parents == ROOT, ROOT, parents + shift).astype(np.int32),
            tasks=tasks,
            song_ids=pa.array(songs, pa.string()).take(pa.array(song_of_segment)),
            slot_offsets=slot_offsets,
            segment_offsets=segment_offsets,
        )

    def _copy(
        self, items: Int64Array, ids: Int32Array, segments: Int32Array, places: Int64Array
    ) -> list[str]:
        """Copy groups to their places, file by file; returns their songs in the order of `items`."""
        order = np.argsort(items, kind="stable")
        cuts = np.searchsorted(items[order], self._starts)
        songs = [""] * len(items)
        for number in np.flatnonzero(np.diff(cuts)).tolist():
            own = order[cuts[number] : cuts[number + 1]]
            indices = items[own] - self._starts[number]
            found = self._files[number].copy_to(indices, ids, segments, places[:, own])
            for place, song in zip(own.tolist(), found, strict=True):
                songs[place] = song
        return songs


def _join(arrays: Sequence[Int32Array]) -> Int32Array:
    return np.concatenate([np.zeros(0, dtype=np.int32), *arrays])


def _part(bins: Bins, first: int, last: int) -> tuple[Int64Array, Int64Array]:
    """The items of bins first … last - 1, and how many each has."""
    start = int(bins.ends[first - 1]) if first else 0
    ends = bins.ends[first:last]
    return bins.order[start : ends[-1]], np.diff(ends, prepend=start)
