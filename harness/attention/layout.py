"""Where the queries and keys of a micro-batch of forests lie, as index ranges for kernels that take no dense mask.

The slots of all rows are numbered one after another. A segment sees itself causally and each of its ancestors whole::

    slot      0  1  2  3 | 4  5  6 | 7  8 | 9 10 11        segments A a b C; A is the parent of a and b
              A  A  A  A   a  a  a   b  b   C  C  C

    blocks    [0 .. 7)             [7..9) [9 .. 12)        each sees itself causally
    seen      -                    [0..4) -                b sees the whole of A besides
    level 0   queries 7 8, keys 0 1 2 3                    the same as sequences for one variable-length call

The child that directly follows its parent (a) forms one block with it: it sees the parent whole and itself causally,
which is what a causal block gives. So a row without branches has blocks alone. Another child (b) starts a block of its
own, which sees its parent's block up to the parent's end, and what that block sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from preprocess.forest import PackedRow
from preprocess.schema import ROOT

Span = tuple[int, int]
"""First slot, and the slot after the last, counted from the start of the micro-batch."""


@dataclass(frozen=True, slots=True)
class Block:
    """Slots that see themselves causally, and all of them the same other slots whole.

    Attributes:
        span: The slots.
        seen: Other slots that they see, all before the block, one span for each branching above it, the root's first.
    """

    span: Span
    seen: tuple[Span, ...] = ()

    @property
    def pairs(self) -> int:
        """Visible (query, key) pairs."""
        size = length(self.span)
        return size * (size + 1) // 2 + size * sum(length(span) for span in self.seen)


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Queries that see keys whole, as P pairs of sequences: no query and no key is in two of them.

    Attributes:
        query_slots: int64[Q], the queries, sequence after sequence.
        key_slots: int64[K], the keys, sequence after sequence.
        cu_q: int32[P + 1], where each sequence starts in `query_slots`, and Q.
        cu_k: int32[P + 1], where each sequence starts in `key_slots`, and K.
        max_q: Most queries of a sequence.
        max_k: Most keys of a sequence.
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
    """All visible (query, key) pairs of a micro-batch of R rows of T slots, each pair once.

    Attributes:
        num_slots: R * T.
        pairs: Visible (query, key) pairs.
        cu_seqlens: int32[B + 1], where each of the B blocks starts, and `num_slots`.
        max_seqlen: Slots of the longest block.
        levels: What blocks see outside themselves; none where no segment has two children.
        spans: int64, the blocks as numbers, for kernels that run block by block (see `read_blocks`). It never leaves
            the CPU, so reading it waits for no device.
        no_mask: bool[1, 1, 1, 1]. As `attention_mask` of a transformers model it is handed through (anything with four
            dimensions is), so that the model builds no dense mask.
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
    """Find the blocks of a micro-batch, on the host.

    Args:
        rows: Rows whose segments have parents before children, in any order otherwise.
        row_slots: None where the rows lie one after another without padding; else each row is padded at its end to this
            number of slots, and its padding is a root of its own. No rows at all are one row of padding (of one slot).

    Raises:
        ValueError: A row is longer than `row_slots`.
    """
    return assemble_layout(find_blocks(*_join_rows(rows, row_slots)))


def find_blocks(lengths: Sequence[int], parents: Sequence[int]) -> list[Block]:
    """The blocks of segments that lie one after another, in the order of their slots.

    Args:
        lengths: Slots of each segment.
        parents: Index of each segment's parent, which comes before it; `ROOT` for none.
    """
    blocks: list[Block] = []
    block_of: list[Block] = []
    stops = np.cumsum(lengths).tolist()
    for stop, size, parent in zip(stops, lengths, parents, strict=True):
        above = None if parent == ROOT else block_of[parent]
        if above is not None and stops[parent] == stop - size:
            block = Block((above.span[0], stop), above.seen)  # the parent's block grows
            blocks.pop()
        elif above is not None:
            block = Block((stop - size, stop), (*above.seen, (above.span[0], stops[parent])))
        else:
            block = Block((stop - size, stop))
        blocks.append(block)
        block_of.append(block)
    return blocks


def assemble_layout(blocks: Sequence[Block]) -> ForestLayout:
    """The layout of blocks that follow one another from slot 0 on."""
    spans = [number for block in blocks for number in _encode(block)]
    return ForestLayout(
        num_slots=blocks[-1].span[1],
        pairs=sum(block.pairs for block in blocks),
        cu_seqlens=torch.tensor([0, *(block.span[1] for block in blocks)], dtype=torch.int32),
        max_seqlen=max(length(block.span) for block in blocks),
        levels=tuple(_build_level(level) for level in _group_by_level(blocks)),
        spans=torch.tensor(spans, dtype=torch.int64),
        no_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),
    )


def read_blocks(spans: torch.Tensor) -> list[Block]:
    """Blocks from `ForestLayout.spans`."""
    numbers: list[int] = spans.tolist()
    blocks, at = [], 0
    while at < len(numbers):
        stop = at + 3 + 2 * numbers[at + 2]
        seen = tuple(zip(numbers[at + 3 : stop : 2], numbers[at + 4 : stop : 2], strict=True))
        blocks.append(Block((numbers[at], numbers[at + 1]), seen))
        at = stop
    return blocks


def length(span: Span) -> int:
    """Slots of a span."""
    return span[1] - span[0]


def _encode(block: Block) -> list[int]:
    """Start, stop, number of seen spans, start and stop of each."""
    return [*block.span, len(block.seen), *(slot for span in block.seen for slot in span)]


def _join_rows(rows: Sequence[PackedRow], row_slots: int | None) -> tuple[list[int], list[int]]:
    """Lengths and parents of all segments, with the padding of each row as a root."""
    lengths: list[int] = []
    parents: list[int] = []
    for row in rows:
        first, own = len(lengths), row.seq_lens.tolist()
        lengths += own
        parents += [ROOT if parent == ROOT else parent + first for parent in row.parents.tolist()]
        padding = 0 if row_slots is None else row_slots - sum(own)
        if padding < 0:
            raise ValueError(f"a row of {sum(own)} slots does not fit into {row_slots}")
        if padding:
            lengths.append(padding)
            parents.append(ROOT)
    return (lengths, parents) if lengths else ([row_slots or 1], [ROOT])


Sequences = dict[Span, list[Span]]
"""Keys, and the blocks that see them."""


def _group_by_level(blocks: Sequence[Block]) -> list[Sequences]:
    """Distribute what blocks see over as few levels as their order allows, so that no slot is twice in one."""
    queries: Sequences = {}
    for block in blocks:
        for keys in block.seen:
            queries.setdefault(keys, []).append(block.span)
    levels: list[Sequences] = []
    for keys in sorted(queries):
        level = next((level for level in levels if _is_free(level, keys, queries[keys])), None)
        if level is None:
            level = {}
            levels.append(level)
        level[keys] = queries[keys]
    return levels


def _is_free(level: Sequences, keys: Span, queries: Sequence[Span]) -> bool:
    """Whether a level holds none of these keys and queries yet."""
    taken = {span for spans in level.values() for span in spans}
    overlaps = any(start < keys[1] and keys[0] < stop for start, stop in level)
    return not overlaps and taken.isdisjoint(queries)


def _build_level(sequences: Sequences) -> Level:
    num_queries = [sum(length(span) for span in spans) for spans in sequences.values()]
    num_keys = [length(keys) for keys in sequences]
    return Level(
        query_slots=_slots_of([span for spans in sequences.values() for span in spans]),
        key_slots=_slots_of(list(sequences)),
        cu_q=torch.tensor(np.cumsum([0, *num_queries]), dtype=torch.int32),
        cu_k=torch.tensor(np.cumsum([0, *num_keys]), dtype=torch.int32),
        max_q=max(num_queries),
        max_k=max(num_keys),
    )


def _slots_of(spans: Sequence[Span]) -> torch.Tensor:
    return torch.cat([torch.arange(start, stop, dtype=torch.int64) for start, stop in spans])
