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

from harness.attention.parts import Level, Parts, join_parts, read_parts
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
class ForestLayout:
    """All visible (query, key) pairs of a micro-batch of R rows of T slots, each pair once.

    What variable-length kernels need (see `Parts`) is two tensors, however many levels there are: so a compiled
    layer, to which they are inputs, is the same for every layout.

    Attributes:
        num_slots: R * T.
        pairs: Visible (query, key) pairs.
        indices: int64, the starts and slots of all sequences, joined (see `read_parts`).
        header: int64, how long the parts of `indices` are, and the sequences' longest. It never leaves the CPU, so
            reading it waits for no device.
        spans: int64, the blocks as numbers, for kernels that run block by block (see `read_blocks`). It stays on the
            CPU too.
        no_mask: bool[1, 1, 1, 1]. As `attention_mask` of a transformers model it is handed through (anything with four
            dimensions is), so that the model builds no dense mask.
    """

    num_slots: int
    pairs: int
    indices: torch.Tensor
    header: torch.Tensor
    spans: torch.Tensor
    no_mask: torch.Tensor

    @property
    def parts(self) -> Parts:
        """What variable-length kernels need."""
        return read_parts(self.indices, self.header)

    @property
    def cu_seqlens(self) -> torch.Tensor:
        """int32[B + 1], where each of the B blocks starts, and `num_slots`."""
        return self.parts.cu_seqlens

    @property
    def max_seqlen(self) -> int:
        """Slots of the longest block."""
        return self.parts.max_seqlen

    @property
    def levels(self) -> tuple[Level, ...]:
        """What blocks see outside themselves; none where no segment has two children."""
        return self.parts.levels

    def to(self, device: torch.device) -> ForestLayout:
        """The same layout on a device; `header` and `spans` stay on the CPU."""
        return replace(
            self,
            indices=self.indices.to(device, non_blocking=True),
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
    indices, header = join_parts(
        Parts(
            cu_seqlens=torch.tensor([0, *(block.span[1] for block in blocks)], dtype=torch.int32),
            max_seqlen=max(length(block.span) for block in blocks),
            levels=tuple(_build_level(level) for level in _group_by_level(blocks)),
        )
    )
    return ForestLayout(
        num_slots=blocks[-1].span[1],
        pairs=sum(block.pairs for block in blocks),
        indices=indices,
        header=header,
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


Sharing = dict[Span, list[Span]]
"""Keys, and the blocks that see them."""


def _group_by_level(blocks: Sequence[Block]) -> list[Sharing]:
    """Distribute what blocks see over as few levels as their order allows, so that no slot is twice in one."""
    queries: Sharing = {}
    for block in blocks:
        for keys in block.seen:
            queries.setdefault(keys, []).append(block.span)
    levels: list[Sharing] = []
    for keys in sorted(queries):
        level = next((level for level in levels if _is_free(level, keys, queries[keys])), None)
        if level is None:
            level = {}
            levels.append(level)
        level[keys] = queries[keys]
    return levels


def _is_free(level: Sharing, keys: Span, queries: Sequence[Span]) -> bool:
    """Whether a level holds none of these keys and queries yet."""
    taken = {span for spans in level.values() for span in spans}
    overlaps = any(start < keys[1] and keys[0] < stop for start, stop in level)
    return not overlaps and taken.isdisjoint(queries)


def _build_level(sharing: Sharing) -> Level:
    num_queries = [sum(length(span) for span in spans) for spans in sharing.values()]
    num_keys = [length(keys) for keys in sharing]
    return Level(
        query_slots=_slots_of([span for spans in sharing.values() for span in spans]),
        key_slots=_slots_of(list(sharing)),
        cu_q=torch.tensor(np.cumsum([0, *num_queries]), dtype=torch.int32),
        cu_k=torch.tensor(np.cumsum([0, *num_keys]), dtype=torch.int32),
        max_q=max(num_queries),
        max_k=max(num_keys),
    )


def _slots_of(spans: Sequence[Span]) -> torch.Tensor:
    return torch.cat([torch.arange(start, stop, dtype=torch.int64) for start, stop in spans])
