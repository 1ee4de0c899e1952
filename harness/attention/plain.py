"""Attention of forests, slow and obvious: what the kernels are held against."""

from __future__ import annotations

import torch

from harness.attention.layout import Block, ForestLayout, length, read_blocks


def plain_forest_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: ForestLayout, scale: float
) -> torch.Tensor:
    """Attention by matrix products and softmax in the input's dtype, block by block.

    Args:
        query: [R, Hq, T, D].
        key: [R, Hkv, T, D]; query head h uses key head h // (Hq / Hkv).
        value: [R, Hkv, T, D].
        layout: Which slot sees which.
        scale: Factor of the scores.

    Returns:
        [R, T, Hq, D], as transformers' attention functions do.
    """
    rows, heads, slots, width = query.shape
    q, k, v = (tensor.transpose(0, 1).flatten(1, 2) for tensor in (query, key, value))
    k, v = (tensor.repeat_interleave(heads // key.shape[1], dim=0) for tensor in (k, v))
    outs = [_attend_block(q, k, v, block, scale) for block in read_blocks(layout.spans)]
    return torch.cat(outs, dim=1).transpose(0, 1).view(rows, slots, heads, width)


def _attend_block(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block: Block, scale: float
) -> torch.Tensor:
    """[H, size, D]: the output of a block's slots, from [H, R * T, D]."""
    slots = torch.cat([torch.arange(*span) for span in (*block.seen, block.span)])
    hidden = slots[None, :] > torch.arange(*block.span)[:, None]
    scores = query[:, slice(*block.span)] @ key[:, slots].transpose(1, 2) * scale
    scores = scores.masked_fill(hidden.to(scores.device), float("-inf"))
    return scores.softmax(dim=-1) @ value[:, slots]


def count_plain_pairs(layout: ForestLayout) -> int:
    """(Query, key) pairs that `plain_forest_attention` computes: the visible ones, and those above the diagonals."""
    blocks = read_blocks(layout.spans)
    return sum(
        length(block.span) * sum(length(span) for span in (*block.seen, block.span)) for block in blocks
    )
