"""Packed rows in flat arrays, many at a time: what shards are written from without a Python object for each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from preprocess.forest import PackedRow
from preprocess.schema import ROOT, BoolArray, Int32Array, Int64Array

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("label_mask", pa.list_(pa.bool_())),
        ("seq_lens", pa.list_(pa.int32())),
        ("parents", pa.list_(pa.int32())),
        ("tasks", pa.list_(pa.int32())),
        ("song_ids", pa.list_(pa.string())),
    ]
)
"""Columns of a shard: the fields of `PackedRow`."""


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """R rows of T slots and S segments altogether; see `PackedRow` for the fields.

    Attributes:
        input_ids: int32[T].
        label_mask: bool[T].
        seq_lens: int32[S].
        parents: int32[S], each counted from the first segment of its row.
        tasks: int32[S].
        song_ids: Arrow string array of S ids.
        slot_offsets: int64[R + 1], where the rows' slots begin, and T.
        segment_offsets: int64[R + 1], where the rows' segments begin, and S.
    """

    input_ids: Int32Array
    label_mask: BoolArray
    seq_lens: Int32Array
    parents: Int32Array
    tasks: Int32Array
    song_ids: pa.StringArray
    slot_offsets: Int64Array
    segment_offsets: Int64Array

    @classmethod
    def of(cls, rows: Sequence[PackedRow]) -> RowBatch:
        """Some rows (at least one) as a batch."""
        return cls(
            input_ids=np.concatenate([row.input_ids for row in rows]),
            label_mask=np.concatenate([row.label_mask for row in rows]),
            seq_lens=np.concatenate([row.seq_lens for row in rows]),
            parents=np.concatenate([row.parents for row in rows]),
            tasks=np.concatenate([row.tasks for row in rows]),
            song_ids=pa.array([song_id for row in rows for song_id in row.song_ids], pa.string()),
            slot_offsets=np.cumsum([0, *(len(row.input_ids) for row in rows)]),
            segment_offsets=np.cumsum([0, *(len(row.seq_lens) for row in rows)]),
        )

    def __len__(self) -> int:
        return len(self.slot_offsets) - 1

    def __iter__(self) -> Iterator[PackedRow]:
        songs = self.song_ids.to_pylist()
        for i in range(len(self)):
            slots = slice(self.slot_offsets[i], self.slot_offsets[i + 1])
            segments = slice(self.segment_offsets[i], self.segment_offsets[i + 1])
            yield PackedRow(
                self.input_ids[slots],
                self.label_mask[slots],
                self.seq_lens[segments],
                self.parents[segments],
                self.tasks[segments],
                tuple(songs[segments]),
            )

    def part(self, start: int, end: int) -> RowBatch:
        """Rows start … end - 1, without copying the arrays."""
        first_slot, last_slot = self.slot_offsets[[start, end]].tolist()
        first_segment, last_segment = self.segment_offsets[[start, end]].tolist()
        slots, segments = slice(first_slot, last_slot), slice(first_segment, last_segment)
        return RowBatch(
            input_ids=self.input_ids[slots],
            label_mask=self.label_mask[slots],
            seq_lens=self.seq_lens[segments],
            parents=self.parents[segments],
            tasks=self.tasks[segments],
            song_ids=self.song_ids[segments],
            slot_offsets=self.slot_offsets[start : end + 1] - first_slot,
            segment_offsets=self.segment_offsets[start : end + 1] - first_segment,
        )

    def to_arrow(self) -> pa.RecordBatch:
        """The rows as a record batch of `SCHEMA`."""
        slots, segments = (
            pa.array(offsets.astype(np.int32)) for offsets in (self.slot_offsets, self.segment_offsets)
        )
        columns = [
            pa.ListArray.from_arrays(slots, pa.array(self.input_ids, pa.int32())),
            pa.ListArray.from_arrays(slots, pa.array(self.label_mask, pa.bool_())),
            pa.ListArray.from_arrays(segments, pa.array(self.seq_lens, pa.int32())),
            pa.ListArray.from_arrays(segments, pa.array(self.parents, pa.int32())),
            pa.ListArray.from_arrays(segments, pa.array(self.tasks, pa.int32())),
            pa.ListArray.from_arrays(segments, _compact(self.song_ids)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)

    def supervised_by_segment(self) -> Int64Array:
        """int64[S]: supervised tokens of each segment."""
        starts = np.cumsum(self.seq_lens, dtype=np.int64) - self.seq_lens
        return np.add.reduceat(self.label_mask, starts, dtype=np.int64)

    def path_lengths(self) -> Int64Array:
        """int64[S]: tokens from the root of each segment to its own end."""
        first = np.repeat(self.segment_offsets[:-1], np.diff(self.segment_offsets))
        above = np.where(self.parents == ROOT, ROOT, self.parents + first)
        lengths = self.seq_lens.astype(np.int64)
        segments = np.flatnonzero(above != ROOT)
        ancestors = above[segments]
        while len(segments):  # one level of the trees each time
            lengths[segments] += self.seq_lens[ancestors]
            ancestors = above[ancestors]
            segments, ancestors = segments[ancestors != ROOT], ancestors[ancestors != ROOT]
        return lengths


def _compact(strings: pa.StringArray) -> pa.StringArray:
    """The same strings in buffers of their own: a part of an array would carry the whole of it along."""
    return pa.concat_arrays([strings])


def join(batches: Sequence[RowBatch]) -> RowBatch:
    """Several batches (at least one) as one."""
    if len(batches) == 1:
        return batches[0]
    return RowBatch(
        input_ids=np.concatenate([batch.input_ids for batch in batches]),
        label_mask=np.concatenate([batch.label_mask for batch in batches]),
        seq_lens=np.concatenate([batch.seq_lens for batch in batches]),
        parents=np.concatenate([batch.parents for batch in batches]),
        tasks=np.concatenate([batch.tasks for batch in batches]),
        song_ids=pa.concat_arrays([batch.song_ids for batch in batches]),
        slot_offsets=_join_offsets([batch.slot_offsets for batch in batches]),
        segment_offsets=_join_offsets([batch.segment_offsets for batch in batches]),
    )


def _join_offsets(offsets: Sequence[Int64Array]) -> Int64Array:
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part) for part in offsets]))])
