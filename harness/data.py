"""How rows become a micro-batch of tensors: flat, one after another without padding, or padded beside each other.

::

    rows       A A a a b | C c c            flat       A A a a b C c c        padded     A A a a b
    segments   A: a, b     C: c                                                          C c c . .
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from harness.attention.layout import ForestLayout, build_layout
from harness.throughput import StepCounts
from preprocess.forest import (
    PackedRow,
    concatenate,
    euler_intervals,
    position_ids,
    segment_of_slot,
    segment_starts,
)
from preprocess.schema import ROOT, Int32Array, Int64Array

UInt64Array = npt.NDArray[np.uint64]
Values = TypeVar("Values", Int32Array, Int64Array)


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """R rows of T slots of one forward pass, N supervised tokens. Flat: all rows one after another as one (R = 1).

    Attributes:
        input_ids: int64[R, T].
        position_ids: int64[R, T], restarting at each root and going on from a parent's end.
        entry: int32[R, T], Euler entry time of each slot's segment.
        exit: int32[R, T], Euler exit time. Slot q sees slot k when entry[k] <= entry[q] < exit[k] and k <= q.
        sources: int64[N], flat slot (row * T + slot) whose hidden state predicts a supervised token: the slot
            before it, which lies in the same segment.
        targets: int64[N], the supervised token ids.
        target_tasks: int64[N], the task that each supervised token belongs to.
        counts: Rows, examples, tokens, supervised tokens, slots, attention pairs.
        layout: The same pairs as `entry` and `exit` tell, as index ranges for kernels without a mask.
        token_keys: int64[R, T], which token this is, the same wherever it is packed; see `token_keys`. Padding: 0.
        example_tasks: int64[E], the task of each example; stays on the host.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    entry: torch.Tensor
    exit: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    target_tasks: torch.Tensor
    counts: StepCounts
    layout: ForestLayout
    token_keys: torch.Tensor
    example_tasks: Int64Array

    def examples_by_task(self, num_tasks: int) -> Int64Array:
        """int64[num_tasks]: questions with their answers of each task."""
        return np.bincount(self.example_tasks, minlength=num_tasks)

    def to(self, device: torch.device) -> MicroBatch:
        """The same batch on a device; from pinned memory the copy runs beside what the device computes."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in TENSORS}
        return replace(self, **moved, layout=self.layout.to(device))

    def pin(self) -> MicroBatch:
        """The same batch in page-locked memory, from which a GPU copies without making the host wait."""
        return pin(self)


TENSORS = (
    "input_ids",
    "position_ids",
    "entry",
    "exit",
    "sources",
    "targets",
    "target_tasks",
    "token_keys",
)
"""Fields of `MicroBatch` that are tensors themselves."""


Pinned = TypeVar("Pinned")


def pin(value: Pinned) -> Pinned:
    """A tensor, or everything with tensors in its fields, in page-locked memory; other values as they are."""
    if isinstance(value, torch.Tensor):
        return cast("Pinned", value.pin_memory())
    if isinstance(value, tuple):
        return cast("Pinned", tuple(pin(item) for item in value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: pin(getattr(value, field.name)) for field in fields(value)})
    return value


def collate(rows: Sequence[PackedRow], *, flat: bool = True) -> MicroBatch:
    """Lay rows out as one micro-batch.

    No rows at all give a batch of one padding slot without a supervised token: a rank that has nothing left in
    the last step still takes part in every collective, and adds nothing to loss or gradient.

    Args:
        rows: Any number.
        flat: Lay them one after another as one row without padding: a forest of forests is a forest. With False each
            is padded to the longest of them, as suits a dense mask, which costs the square of a row's slots.
    """
    if not rows:
        return _collate_nothing()
    forest = concatenate(rows)
    positions, segment = position_ids(forest), segment_of_slot(forest)
    entry, exit_ = euler_intervals(forest)
    place = _place(rows, flat=flat)
    # A padding slot is a tree of its own, so that its softmax has something to attend to.
    padding = np.arange(place.size, dtype=np.int32) + len(entry)
    supervised = np.flatnonzero(forest.label_mask)
    tasks = forest.tasks[segment[supervised]].astype(np.int64)
    return MicroBatch(
        input_ids=place.put(forest.input_ids.astype(np.int64)),
        position_ids=place.put(positions.astype(np.int64)),
        entry=place.put(entry[segment], padding),
        exit=place.put(exit_[segment], padding + 1),
        sources=torch.from_numpy(place.slots[supervised] - 1),
        targets=torch.from_numpy(forest.input_ids[supervised].astype(np.int64)),
        target_tasks=torch.from_numpy(tasks),
        counts=StepCounts(
            rows=len(rows),
            examples=forest.num_examples,
            tokens=len(positions),
            supervised_tokens=len(supervised),
            slots=place.size,
            # A token at position p sees the p tokens before it on its path, and itself.
            attention_pairs=int(positions.sum(dtype=np.int64)) + len(positions),
        ),
        layout=build_layout(rows, None if flat else place.shape[1]),
        token_keys=place.put(token_keys(forest, positions)),
        example_tasks=forest.tasks[forest.tasks >= 0].astype(np.int64),
    )


def _collate_nothing() -> MicroBatch:
    one, none = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    entry = torch.zeros(1, 1, dtype=torch.int32)
    return MicroBatch(
        input_ids=one,
        position_ids=one.clone(),
        entry=entry,
        exit=entry + 1,
        sources=none,
        targets=none.clone(),
        target_tasks=none.clone(),
        counts=StepCounts(slots=1),
        layout=build_layout([]),
        token_keys=one.clone(),
        example_tasks=np.zeros(0, dtype=np.int64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where the T tokens of a micro-batch go.

    Attributes:
        slots: int64[T], flat slots, ascending.
        shape: Rows and slots a row.
    """

    slots: Int64Array
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def put(self, values: Values, padding: Values | None = None) -> torch.Tensor:
        """[R, T]: a value of each token in its slot, and the padding's own, or 0, in the others."""
        if len(values) == self.size:
            return torch.from_numpy(values.reshape(self.shape))
        whole = np.zeros(self.size, values.dtype) if padding is None else padding.copy()
        whole[self.slots] = values
        return torch.from_numpy(whole.reshape(self.shape))


def _place(rows: Sequence[PackedRow], *, flat: bool) -> _Place:
    lengths = np.array([len(row.input_ids) for row in rows], dtype=np.int64)
    slots = np.arange(lengths.sum(), dtype=np.int64)
    if flat:
        return _Place(slots, (1, len(slots)))
    longest = int(lengths.max())
    padding_before = np.arange(len(rows)) * longest - (np.cumsum(lengths) - lengths)
    return _Place(slots + np.repeat(padding_before, lengths), (len(rows), longest))


def token_keys(forest: PackedRow, positions: Int32Array) -> Int64Array:
    """Keys that name tokens by their song and all tokens before them on their path, wherever they are packed.

    A token's key is a hash of its song and of the set of pairs (position, id) from its root to itself. So a token of
    the lyrics has one key in a row that shares it and in each example that repeats it, without any mark of where the
    lyrics end; questions get keys of their own from the first token that tells them apart; and songs never share keys.

    Args:
        forest: T tokens in S segments.
        positions: int32[T], `position_ids` of the forest.

    Returns:
        int64[T], 0 to 2^63 - 1.
    """
    pairs = _mix((positions.astype(np.uint64) << np.uint64(32)) | forest.input_ids.astype(np.uint64))
    sums = np.cumsum(pairs, dtype=np.uint64)  # wraps around, as all sums here do
    starts = segment_starts(forest)
    before = sums[starts] - pairs[starts]
    carried = _carry(sums[starts + forest.seq_lens - 1] - before, forest.parents)
    songs = np.array([hash_song(song_id) for song_id in forest.song_ids], dtype=np.uint64)
    history = sums + np.repeat(carried - before + songs, forest.seq_lens)
    return (_mix(history) >> np.uint64(1)).astype(np.int64)


def _carry(own: UInt64Array, parents: Int32Array) -> UInt64Array:
    """uint64[S]: for each segment the sum over its ancestors of `own` (uint64[S])."""
    carried = np.zeros_like(own)
    while True:  # a turn for each level of the deepest tree
        deeper = np.where(parents == ROOT, np.uint64(0), (carried + own)[parents])
        if np.array_equal(deeper, carried):
            return carried
        carried = deeper


def _mix(values: UInt64Array) -> UInt64Array:
    """Spread each number over 64 bits: SplitMix64's output function (Steele, Lea and Flood 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@lru_cache(maxsize=1 << 14)
def hash_song(song_id: str) -> int:
    """A 64-bit hash that is the same in every process."""
    return int.from_bytes(blake2b(song_id.encode(), digest_size=8).digest(), "little")
