"""A packed row as a forest of segments, and everything that is derived from it.

A row holds a few songs. Each song's lyrics are a root segment (the shared prefix); each question about it, with its
answer, is a child that continues the lyrics and does not see its siblings::

    slot        0  1  2  3  4  5  6  7  8  9 10        seq_lens  4  3  2  2
    segment     A  A  A  A  a  a  a  b  b  C  C        parents  -1  0  0 -1
    position    0  1  2  3  4  5  6  4  5  0  1
    label_mask  .  .  .  .  .  x  x  .  x  .  x        x = supervised

    sees        A: A        a: A a        b: A b        C: C        (each causally)

Only four arrays are stored: `input_ids`, `label_mask`, `seq_lens`, `parents`. Positions, labels, the attention
mask are computed here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.schema import IGNORE_INDEX, ROOT, BoolArray, Int32Array


@dataclass(frozen=True, slots=True, eq=False)
class PackedRow:
    """One row of a shard. T slots (no padding), S segments in storage order, parents before their children.

    Attributes:
        input_ids: int32[T], token ids.
        label_mask: bool[T], true where the token is supervised.
        seq_lens: int32[S], lengths of the segments; their sum is T.
        parents: int32[S], index of the segment that each one continues, `ROOT` for none.
        tasks: int32[S], index into the manifest's tasks, -1 for a segment that only holds lyrics.
        song_ids: S ids of the songs that the segments belong to.
    """

    input_ids: Int32Array
    label_mask: BoolArray
    seq_lens: Int32Array
    parents: Int32Array
    tasks: Int32Array
    song_ids: tuple[str, ...]

    @property
    def num_examples(self) -> int:
        """Number of question-answer pairs."""
        return int(np.count_nonzero(self.tasks >= 0))


def concatenate(rows: Sequence[PackedRow]) -> PackedRow:
    """Lay rows one after another in one row; no segment sees another row's."""
    offsets = np.cumsum([0] + [len(row.seq_lens) for row in rows[:-1]])
    parents = [
        np.where(row.parents == ROOT, ROOT, row.parents + offset)
        for row, offset in zip(rows, offsets, strict=True)
    ]
    return PackedRow(
        input_ids=np.concatenate([row.input_ids for row in rows]),
        label_mask=np.concatenate([row.label_mask for row in rows]),
        seq_lens=np.concatenate([row.seq_lens for row in rows]),
        parents=np.concatenate(parents).astype(np.int32),
        tasks=np.concatenate([row.tasks for row in rows]),
        song_ids=tuple(song_id for row in rows for song_id in row.song_ids),
    )


def check_row(row: PackedRow, vocab_size: int | None = None) -> None:
    """Check that a row is a well-formed forest.

    Raises:
        ValueError: Lengths do not add up, a parent does not come before its child, a segment's first token is
            supervised (it could not be predicted inside its segment), or an id lies outside the vocabulary.
    """
    num_slots, num_segments = len(row.input_ids), len(row.seq_lens)
    if len(row.label_mask) != num_slots or int(row.seq_lens.sum()) != num_slots:
        raise ValueError(
            f"{num_slots} ids, {len(row.label_mask)} mask values, segments of {int(row.seq_lens.sum())}"
        )
    if not len(row.parents) == len(row.tasks) == len(row.song_ids) == num_segments:
        raise ValueError(f"{num_segments} segments, but {len(row.parents)} parents, {len(row.tasks)} tasks")
    if num_segments == 0 or int(row.seq_lens.min()) < 1:
        raise ValueError("a row needs a segment, and each segment a token")
    if bool(np.any(row.parents < ROOT)) or bool(np.any(row.parents >= np.arange(num_segments))):
        raise ValueError(f"each parent must come before its child: {row.parents.tolist()}")
    if bool(np.any(row.label_mask[segment_starts(row)])):
        raise ValueError("the first token of a segment is supervised")
    if vocab_size is not None and not 0 <= int(row.input_ids.min()) <= int(row.input_ids.max()) < vocab_size:
        raise ValueError(f"a token id lies outside the vocabulary of {vocab_size}")


def segment_starts(row: PackedRow) -> Int32Array:
    """int32[S]: slot of each segment's first token."""
    return (np.cumsum(row.seq_lens) - row.seq_lens).astype(np.int32)


def segment_of_slot(row: PackedRow) -> Int32Array:
    """int32[T]: index of the segment that each slot belongs to."""
    return np.repeat(np.arange(len(row.seq_lens), dtype=np.int32), row.seq_lens)


def position_ids(row: PackedRow) -> Int32Array:
    """int32[T]: positions, counted from the root; a child goes on where its parent ends."""
    first = np.zeros(len(row.seq_lens), dtype=np.int32)
    for segment, parent in enumerate(row.parents):
        if parent != ROOT:
            first[segment] = first[parent] + row.seq_lens[parent]
    within = np.arange(len(row.input_ids), dtype=np.int32) - np.repeat(segment_starts(row), row.seq_lens)
    return (within + np.repeat(first, row.seq_lens)).astype(np.int32)


def labels(row: PackedRow) -> Int32Array:
    """int32[T]: unshifted labels, `IGNORE_INDEX` where the token is not supervised."""
    return np.where(row.label_mask, row.input_ids, IGNORE_INDEX).astype(np.int32)


def euler_intervals(row: PackedRow) -> tuple[Int32Array, Int32Array]:
    """Entry and exit times of each segment in a depth-first walk (an Euler tour of the forest).

    Segment k is segment q or an ancestor of it exactly when ``entry[k] <= entry[q] < exit[k]``, so slot q may see
    slot k when that holds and ``k <= q``: one comparison a pair instead of a walk up the tree.

    Returns:
        entry: int32[S].
        exit: int32[S].
    """
    num_segments = len(row.parents)
    subtree = np.ones(num_segments, dtype=np.int32)
    for segment in range(num_segments - 1, -1, -1):
        if row.parents[segment] != ROOT:
            subtree[row.parents[segment]] += subtree[segment]
    entry = np.zeros(num_segments, dtype=np.int32)
    next_free = np.zeros(num_segments + 1, dtype=np.int32)  # the last entry serves the roots
    for segment, parent in enumerate(row.parents):
        entry[segment] = next_free[parent]
        next_free[parent] += subtree[segment]
        next_free[segment] = entry[segment] + 1
    return entry, entry + subtree


def example_paths(row: PackedRow) -> list[list[int]]:
    """For each segment that holds an example: the segments from its root down to it."""
    paths = []
    for segment in np.flatnonzero(row.tasks >= 0).tolist():
        path = [segment]
        while row.parents[path[0]] != ROOT:
            path.insert(0, int(row.parents[path[0]]))
        paths.append(path)
    return paths


def unpack_examples(row: PackedRow) -> list[PackedRow]:
    """Each example alone, its prefix repeated: what the row would be without sharing. One segment each."""
    starts = segment_starts(row)
    examples = []
    for path in example_paths(row):
        slots = np.concatenate([np.arange(starts[s], starts[s] + row.seq_lens[s]) for s in path])
        is_own = np.repeat(np.arange(len(path)) == len(path) - 1, row.seq_lens[path])
        examples.append(
            PackedRow(
                input_ids=row.input_ids[slots],
                label_mask=row.label_mask[slots] & is_own,
                seq_lens=np.array([len(slots)], dtype=np.int32),
                parents=np.array([ROOT], dtype=np.int32),
                tasks=row.tasks[path[-1:]],
                song_ids=(row.song_ids[path[-1]],),
            )
        )
    return examples
