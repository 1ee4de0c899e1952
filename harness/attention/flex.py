"""Attention of forests by FlexAttention: a kernel compiled for a rule of who sees whom, that skips whole blocks.

For GPUs on which the flash kernels do not run, or not in the precision at hand. On a CPU torch has no gradient of it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128
"""Slots of a side of a block of the mask."""


def build_block_mask(entry: torch.Tensor, exit_: torch.Tensor) -> BlockMask:
    """The block mask of a micro-batch of forests, built once for all layers.

    Works through the queries 128 at a time, so that no [T, T] mask ever exists.

    Args:
        entry: int32[R, T], Euler entry time of each slot's segment.
        exit_: int32[R, T], Euler exit time. Slot q sees slot k when entry[k] <= entry[q] < exit[k] and k <= q.
    """
    slots = entry.shape[1]

    def is_visible(row: torch.Tensor, _: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (entry[row, k] <= entry[row, q]) & (entry[row, q] < exit_[row, k]) & (k <= q)

    visible = torch.stack([_count_visible(entry, exit_, start) for start in range(0, slots, BLOCK)], dim=1)
    full = visible == BLOCK * BLOCK
    return BlockMask.from_kv_blocks(
        *_list_blocks((visible > 0) & ~full),
        *_list_blocks(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=is_visible,
        seq_lengths=(slots, slots),
    )


def attend_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: BlockMask, scale: float
) -> torch.Tensor:
    """Attention under a block mask.

    Args:
        query: [R, Hq, T, D].
        key: [R, Hkv, T, D]; query head h uses key head h // (Hq / Hkv).
        value: [R, Hkv, T, D].
        mask: See `build_block_mask`.
        scale: Factor of the scores.

    Returns:
        [R, T, Hq, D].
    """
    attend = (
        flex_attention if query.device.type == "cpu" or torch.compiler.is_compiling() else _compile_flex()
    )
    out: torch.Tensor = attend(query, key, value, block_mask=mask, scale=scale, enable_gqa=True)
    return out.transpose(1, 2).contiguous()


@lru_cache(maxsize=1)
def _compile_flex() -> Any:  # noqa: ANN401 - a compiled function
    return torch.compile(flex_attention)


def _count_visible(entry: torch.Tensor, exit_: torch.Tensor, start: int) -> torch.Tensor:
    """int64[R, T / 128]: visible pairs of 128 queries and each block of 128 keys."""
    slots = entry.shape[1]
    queries = entry[:, start : start + BLOCK, None]
    order = torch.arange(slots, device=entry.device)
    seen = (entry[:, None] <= queries) & (queries < exit_[:, None])
    seen &= order <= order[start : start + BLOCK, None]
    by_key = torch.nn.functional.pad(seen.sum(dim=1), (0, -slots % BLOCK))
    return by_key.view(len(entry), -1, BLOCK).sum(dim=2)


def _list_blocks(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each block of queries the number of chosen blocks of keys, and their indices first, as int32."""
    counts = chosen.sum(dim=-1, dtype=torch.int32)
    indices = torch.argsort(chosen, dim=-1, descending=True, stable=True).to(torch.int32)
    return counts[:, None], indices[:, None]
