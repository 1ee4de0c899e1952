"""What variable-length kernels need of a layout, and the two tensors that hold it all.

::

    indices   cu_seqlens | cu_q cu_k of each level | query_slots key_slots of each level
    header    length of cu_seqlens, max_seqlen | lengths of cu_q, query_slots, key_slots, and max_q, max_k of each level

An operator that is given a list of tensors, or numbers that steer Python, is compiled anew for each length and number.
Two tensors are of one form for all layouts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


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


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A layout as sequences of slots.

    Attributes:
        cu_seqlens: int32[B + 1], where each of the B blocks starts, and the number of slots.
        max_seqlen: Slots of the longest block.
        levels: What blocks see outside themselves; none where no segment has two children.
    """

    cu_seqlens: torch.Tensor
    max_seqlen: int
    levels: tuple[Level, ...]


def join_parts(parts: Parts) -> tuple[torch.Tensor, torch.Tensor]:
    """`ForestLayout.indices` and `.header` from parts on the CPU."""
    starts, slots = [parts.cu_seqlens], []
    header = [len(parts.cu_seqlens), parts.max_seqlen]
    for level in parts.levels:
        starts += [level.cu_q, level.cu_k]
        slots += [level.query_slots, level.key_slots]
        header += [len(level.cu_q), len(level.query_slots), len(level.key_slots), level.max_q, level.max_k]
    return torch.cat([torch.cat(starts).to(torch.int64), *slots]), torch.tensor(header, dtype=torch.int64)


def read_parts(indices: torch.Tensor, header: torch.Tensor) -> Parts:
    """Parts from `ForestLayout.indices`, on its device, and `.header`."""
    num_starts, max_seqlen, *numbers = header.tolist()
    of_levels = [numbers[i : i + 5] for i in range(0, len(numbers), 5)]
    starts = [num_starts, *(count for level in of_levels for count in (level[0], level[0]))]
    slots = [count for level in of_levels for count in level[1:3]]
    joined, *slot_parts = torch.split(indices, [sum(starts), *slots])
    joined = joined.to(torch.int32)  # all at once: a kernel launch each would add up
    cu_seqlens, *cu_parts = torch.split(joined, starts)
    tensors = zip(slot_parts[0::2], slot_parts[1::2], cu_parts[0::2], cu_parts[1::2], strict=True)
    levels = (
        Level(*own, max_q=level[3], max_k=level[4]) for own, level in zip(tensors, of_levels, strict=True)
    )
    return Parts(cu_seqlens, max_seqlen, tuple(levels))
