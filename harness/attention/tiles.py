"""Attention of forests on the CPU: torch's flash kernel over tiles of queries, each with all the keys that it sees.

A tile is a run of a block's queries. Its keys are what the block sees and the block itself up to the tile's end, of
which a mask hides the triangle above the diagonal. So each query's softmax is computed whole, and no partial results
need merging. The kernel's own causal mode would compute most of the hidden half: it skips keys 512 at a time.

Half precision is computed in float32: without matrix units the kernel is as fast in it, and it is more exact. Query
heads that share a key head are one run of queries, so that keys are never repeated and their gradients come summed. The
price: the kernel's backward pass, which divides its work by heads, keeps Hkv threads busy at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from harness.attention.layout import Block, Span, length, read_blocks

TILE = 96
"""Most queries of a tile. Fewer cost more calls, more cost work on hidden pairs (half of tile x tile)."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Tile:
    """A run of a block's queries, and the keys that they see.

    Attributes:
        span: Slots of the queries.
        keys: Spans of the keys' slots, each query's own among the last ones.
    """

    span: Span
    keys: tuple[Span, ...]

    @property
    def num_keys(self) -> int:
        """Slots that the last query sees."""
        return sum(length(span) for span in self.keys)


def attend_tiles(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of a forest on the CPU.

    Args:
        query: [R, Hq, T, D], of any floating dtype.
        key: [R, Hkv, T, D]; query head h uses key head h // (Hq / Hkv).
        value: [R, Hkv, T, D].
        spans: `ForestLayout.spans`.
        scale: Factor of the scores.

    Returns:
        out: [R, T, Hq, D], contiguous, in the query's dtype.
        lse: [Hq, R * T], log of the sum of a query's exp(score); float64 from float64, else float32.
    """
    rows, heads, slots, width = query.shape
    key_heads, group = key.shape[1], heads // key.shape[1]
    q, k, v = (_fold(tensor, key_heads) for tensor in (query, key, value))
    out = query.new_empty(rows, slots, heads, width)
    lse = q.new_empty(heads, rows * slots)
    out_runs = out.view(rows * slots, key_heads, group, width).transpose(0, 1)
    lse_runs = lse.view(key_heads, group, rows * slots).transpose(1, 2)
    for tile in _cut(spans):
        start, stop = tile.span
        run = q[:, :, start * group : stop * group]
        mask = _mask(tile, group, q.dtype)
        o, log_sums = _forward(run, _gather(k, tile.keys), _gather(v, tile.keys), attn_mask=mask, scale=scale)
        out_runs[:, start:stop].copy_(o[0].unflatten(1, (-1, group)))
        lse_runs[:, start:stop].copy_(log_sums[0].unflatten(1, (-1, group)))
    return out, lse


def attend_tiles_backward(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    spans: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of `attend_tiles`; arguments as there, and `grad_out` shaped like `out`.

    Returns:
        Gradients of query, key and value, shaped like them; transposed views of contiguous [R, T, H, D].
    """
    key_heads, group = key.shape[1], query.shape[1] // key.shape[1]
    q, k, v, o, grad = (
        _fold(tensor, key_heads)
        for tensor in (query, key, value, out.transpose(1, 2), grad_out.transpose(1, 2))
    )
    log_sums = lse.view(key_heads, group, -1).transpose(1, 2).reshape(1, key_heads, -1)
    grad_q = q.new_empty(q.shape[2] // group, key_heads, group, q.shape[3])
    grad_k, grad_v = (x.new_zeros(x.shape[2], key_heads, x.shape[3]) for x in (k, v))
    for tile in _cut(spans):
        start, stop = tile.span
        run = slice(start * group, stop * group)
        tile_q, tile_k, tile_v = _backward(
            *(grad[:, :, run], q[:, :, run], _gather(k, tile.keys), _gather(v, tile.keys)),
            *(o[:, :, run], log_sums[:, :, run]),
            dropout_p=0.0,
            is_causal=False,
            attn_mask=_mask(tile, group, q.dtype),
            scale=scale,
        )
        grad_q[start:stop].copy_(tile_q[0].unflatten(1, (-1, group)).transpose(0, 1))
        _scatter_add(grad_k, tile.keys, tile_k[0].transpose(0, 1))
        _scatter_add(grad_v, tile.keys, tile_v[0].transpose(0, 1))
    return _unfold(grad_q, query), _unfold(grad_k, key), _unfold(grad_v, value)


def _cut(spans: torch.Tensor) -> Iterator[Tile]:
    """The tiles of all blocks, a block's of nearly equal length."""
    for block in read_blocks(spans):
        yield from _cut_block(block)


def _cut_block(block: Block) -> Iterator[Tile]:
    first, size = block.span[0], length(block.span)
    count = -(-size // TILE)
    for index in range(count):
        start, stop = first + index * size // count, first + (index + 1) * size // count
        yield Tile((start, stop), (*block.seen, (first, stop)))


def _fold(tensor: torch.Tensor, key_heads: int) -> torch.Tensor:
    """[R, H, T, D] as [1, Hkv, R * T * G, D], contiguous, in the precision of the computation; G = H / Hkv."""
    rows, heads, slots, width = tensor.shape
    precise = torch.float32 if tensor.dtype.itemsize < 4 else tensor.dtype
    by_slot = tensor.transpose(1, 2).reshape(rows * slots, key_heads, heads // key_heads, width)
    folded = torch.empty(key_heads, *(rows * slots, heads // key_heads, width), dtype=precise)
    return folded.copy_(by_slot.transpose(0, 1)).view(1, key_heads, -1, width)


def _unfold(by_slot: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[R * T, ..., D] with H heads between as [R, H, T, D], in the dtype of `like`."""
    rows, heads, slots, width = like.shape
    return by_slot.to(like.dtype).view(rows, slots, heads, width).transpose(1, 2)


def _gather(tensor: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    """The slots of some spans of [1, Hkv, R * T, D]; a view where there is one span."""
    parts = [tensor[:, :, start:stop] for start, stop in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _scatter_add(total: torch.Tensor, spans: Sequence[Span], part: torch.Tensor) -> None:
    """Add [K, Hkv, D] to the slots of some spans of [R * T, Hkv, D]."""
    at = 0
    for start, stop in spans:
        total[start:stop] += part[at : (at := at + stop - start)]


def _mask(tile: Tile, group: int, dtype: torch.dtype) -> torch.Tensor:
    """[1, 1, G * queries, keys]: 0 where seen, -inf above the diagonal of the tile's own slots. A view."""
    queries, keys = length(tile.span), tile.num_keys
    needed = keys + TILE
    table = _triangle(group, 1 << (needed - 1).bit_length(), dtype)
    first = table.shape[1] - TILE - (keys - queries)
    return table[None, None, : queries * group, first : first + keys]


@lru_cache(maxsize=16)
def _triangle(group: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """[TILE * G, columns]: the mask of a full tile, of which every other tile's is a part."""
    last_seen = torch.arange(columns - TILE, columns).repeat_interleave(group)[:, None]
    hidden = torch.arange(columns)[None] > last_seen
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
