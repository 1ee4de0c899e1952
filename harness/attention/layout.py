"""Where the queries and keys of a micro-batch of forests lie, as index ranges for kernels that take no mask.

The slots of all rows are numbered one after another. A segment sees itself causally and each of its ancestors whole::

    slot      0  1  2  3 | 4  5  6 | 7  8 | 9 10 11        segments  A  a  b  C,  A is the parent of a and b
              A  A  A  A   a  a  a   b  b   C  C  C

    blocks    [0 .. 7)             [7..9) [9 .. 12)        each attends causally to itself
    parts     queries [7..9) see keys [0..4)               not causally: b sees the whole of A

The child that directly follows its parent (a) forms one causal block with it: it would see the parent whole and itself
causally, which is what a causal block gives. So a row without branches has blocks alone. All other descendants of a
segment see the block up to the segment's end, as one part. A query slot that is in a block and in parts gets the
partial results merged by their log-sum-exps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from preprocess.forest import PackedRow
from preprocess.schema import ROOT

Span = tuple[int, int]
"""First slot, and the slot after the last."""


@dataclass(frozen=True, slots=True)
class Part:
    """Queries that all see the same keys whole. All slots count from the start of the micro-batch.

    Attributes:
        keys: Slots that are seen.
        queries: Slots that see them, in ascending order, no two spans adjacent.
    """

    keys: Span
    queries: tuple[Span, ...]

    @property
    def num_queries(self) -> int:
        """Slots that see the keys."""
        return sum(stop - start for start, stop in self.queries)

    @property
    def num_keys(self) -> int:
        """Slots that are seen."""
        return self.keys[1] - self.keys[0]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Parts for one variable-length kernel call: no query and no key is in two of its P parts.

    Attributes:
        query_slots: int64[Q], the parts' queries, part after part.
        key_slots: int64[K], the parts' keys, part after part.
        cu_q: int32[P + 1], where each part starts in `query_slots`, and Q.
        cu_k: int32[P + 1], where each part starts in `key_slots`, and K.
        max_q: Most queries of a part.
        max_k: Most keys of a part.
    """

    query_slots: torch.Tensor
    key_slots: torch.Tensor
    cu_q: torch.Tensor
    cu_k: torch.Tensor
    max_q: int
    max_k: int

    def to(self, device: torch.device) -> Level:
        """The same level on a device."""
        names = ("query_slots", "key_slots", "cu_q", "cu_k")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True, slots=True, eq=False)
class ForestLayout:
    """All (query, key) pairs of a micro-batch of R rows of T slots, each pair once.

    Attributes:
        num_slots: R * T.
        pairs: Visible (query, key) pairs.
        cu_seqlens: int32[B + 1], where each block starts, and `num_slots`.
        max_seqlen: Slots of the longest block.
        levels: What queries see outside their block, for kernels that take a batch of sequences.
        spans: int64 on the CPU: B, the B + 1 bounds of the blocks, and then for each part its keys' start and stop, the
            number of its query spans, and their starts and stops. For kernels that run span by span (see `read_spans`);
            it never leaves the CPU, so reading it waits for no device.
        no_mask: bool[1, 1, 1, 1]: as `attention_mask` of a transformers model it is handed through (anything with four
            dimensions is), so that no dense mask is built.
    """

    num_slots: int
    pairs: int
    cu_seqlens: torch.Tensor
    max_seqlen: int
    levels: tuple[Level, ...]
    spans: torch.Tensor
    no_mask: torch.Tensor

    def to(self, device: torch.device) -> ForestLayout:
        """The same layout on a device; `spans` stays on the CPU."""
        return replace(
            self,
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
            levels=tuple(level.to(device) for level in self.levels),
            no_mask=self.no_mask.to(device, non_blocking=True),
        )


def build_layout(rows: Sequence[PackedRow], row_slots: int | None = None) -> ForestLayout:
    """Find blocks and parts of a micro-batch, on the host.

    Args:
        rows: Rows whose segments have parents before children, in any order otherwise.
        row_slots: None where the rows lie one after another without padding; else each row is padded at its end to this
            number of slots, and its padding is a root of its own. No rows at all are one row of padding (of one slot).

    Raises:
        ValueError: A row is longer than `row_slots`.
    """
    lengths, parents = _join_rows(rows, row_slots)
    stops = np.cumsum(lengths)
    segments = [(int(stop - length), int(stop)) for length, stop in zip(lengths, stops, strict=True)]
    block_starts = _find_blocks(segments, parents)
    bounds = [*sorted(set(block_starts)), segments[-1][1]]
    parts_by_depth = _find_parts(segments, parents, block_starts)
    return assemble_layout(bounds, parts_by_depth)


def assemble_layout(bounds: Sequence[int], parts_by_level: Sequence[Sequence[Part]]) -> ForestLayout:
    """The layout of given blocks and parts.

    Args:
        bounds: Starts of the blocks in ascending order, the first 0, and the number of slots.
        parts_by_level: Parts; within a level no query and no key may be in two.
    """
    parts = [part for level in parts_by_level for part in level]
    sizes = [stop - start for start, stop in pairwise(bounds)]
    spans = [len(sizes), *bounds]
    for part in parts:
        spans += [*part.keys, len(part.queries), *(slot for span in part.queries for slot in span)]
    return ForestLayout(
        num_slots=bounds[-1],
        pairs=sum(size * (size + 1) // 2 for size in sizes) + sum(p.num_queries * p.num_keys for p in parts),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32),
        max_seqlen=max(sizes),
        levels=tuple(_build_level(level) for level in parts_by_level if level),
        spans=torch.tensor(spans, dtype=torch.int64),
        no_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),
    )


def read_spans(spans: torch.Tensor) -> tuple[list[Span], list[Part]]:
    """Blocks and parts from `ForestLayout.spans`."""
    numbers: list[int] = spans.tolist()
    count = numbers[0]
    blocks = list(pairwise(numbers[1 : count + 2]))
    parts, at = [], count + 2
    while at < len(numbers):
        stop = at + 3 + 2 * numbers[at + 2]
        queries = tuple(zip(numbers[at + 3 : stop : 2], numbers[at + 4 : stop : 2], strict=True))
        parts.append(Part(keys=(numbers[at], numbers[at + 1]), queries=queries))
        at = stop
    return blocks, parts


def _join_rows(rows: Sequence[PackedRow], row_slots: int | None) -> tuple[list[int], list[int]]:
    """Lengths and parents of all segments, with the padding of each row as a root."""
    lengths: list[int] = []
    parents: list[int] = []
    for row in rows:
        first = len(lengths)
        own = [int(length) for length in row.seq_lens]
        lengths += own
        parents += [ROOT if parent == ROOT else int(parent) + first for parent in row.parents]
        padding = 0 if row_slots is None else row_slots - sum(own)
        if padding < 0:
            raise ValueError(f"a row of {sum(own)} slots does not fit into {row_slots}")
        if padding:
            lengths.append(padding)
            parents.append(ROOT)
    return (lengths, parents) if lengths else ([row_slots or 1], [ROOT])


def _find_blocks(segments: Sequence[Span], parents: Sequence[int]) -> list[int]:
    """For each segment the first slot of its block: its parent's if it directly follows the parent, else its own."""
    starts: list[int] = []
    for (start, _), parent in zip(segments, parents, strict=True):
        follows = parent != ROOT and segments[parent][1] == start
        starts.append(starts[parent] if follows else start)
    return starts


def _find_parts(
    segments: Sequence[Span], parents: Sequence[int], block_starts: Sequence[int]
) -> list[list[Part]]:
    """Parts by the depth of the segment that their keys end with: a query has one ancestor at most at a depth."""
    queries: dict[int, list[Span]] = {}
    depths: list[int] = []
    for segment, parent in enumerate(parents):
        depths.append(0 if parent == ROOT else depths[parent] + 1)
        below = segment
        while (above := parents[below]) != ROOT:
            if block_starts[below] != block_starts[above]:
                _extend(queries.setdefault(above, []), segments[segment])
            below = above
    levels: list[list[Part]] = [[] for _ in range(max(depths) + 1)]
    for segment in sorted(queries):
        keys = (block_starts[segment], segments[segment][1])
        levels[depths[segment]].append(Part(keys, tuple(queries[segment])))
    return levels


def _extend(spans: list[Span], span: Span) -> None:
    """Append a span, joined to the last one where it directly follows it."""
    if spans and spans[-1][1] == span[0]:
        spans[-1] = (spans[-1][0], span[1])
    else:
        spans.append(span)


def _build_level(parts: Sequence[Part]) -> Level:
    num_queries = [part.num_queries for part in parts]
    num_keys = [part.num_keys for part in parts]
    return Level(
        query_slots=_slots_of([span for part in parts for span in part.queries]),
        key_slots=_slots_of([part.keys for part in parts]),
        cu_q=torch.tensor(np.cumsum([0, *num_queries]), dtype=torch.int32),
        cu_k=torch.tensor(np.cumsum([0, *num_keys]), dtype=torch.int32),
        max_q=max(num_queries),
        max_k=max(num_keys),
    )


def _slots_of(spans: Sequence[Span]) -> torch.Tensor:
    return torch.cat([torch.arange(start, stop, dtype=torch.int64) for start, stop in spans])
