"""`lyrics::forest_attention`: attention of packed forests without a mask, as a torch operator with a gradient.

As a custom operator it is opaque to tracing, and so works under torch.compile, fake tensors, activation checkpoints,
and torch's FLOP counter, which is told the exact number of visible pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from harness.attention.layout import ForestLayout
from harness.attention.parts import Level, read_parts
from harness.attention.tiles import attend_tiles, attend_tiles_backward
from harness.attention.varlen import FlashKernels, Kernels, Sequences, attend_varlen, attend_varlen_backward


def attend_forest(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: ForestLayout, scale: float
) -> torch.Tensor:
    """Attention in which each slot sees its own segment causally and its segment's ancestors whole.

    On the CPU in any floating dtype, on CUDA in bfloat16 or float16.

    Args:
        query: [R, Hq, T, D].
        key: [R, Hkv, T, D]; query head h uses key head h // (Hq / Hkv).
        value: [R, Hkv, T, D].
        layout: The micro-batch's layout, on the query's device; R * T slots.
        scale: Factor of the scores.

    Returns:
        [R, T, Hq, D], contiguous, in the query's dtype.

    Raises:
        ValueError: The layout is of another number of slots.
    """
    slots = query.shape[0] * query.shape[2]
    if layout.num_slots != slots:
        raise ValueError(f"the layout describes {layout.num_slots} slots, but the queries have {slots}")
    indices, header = choose_tensors(layout, query.device)
    out: torch.Tensor = forest_attention(query, key, value, indices, header, layout.pairs, scale)[0]
    return out


def choose_tensors(layout: ForestLayout, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """What a device's kernels need of a layout: a tensor on the device, and one on the CPU."""
    return layout.indices, layout.spans if device.type == "cpu" else layout.header


@torch.library.custom_op("lyrics::forest_attention", mutates_args=())
def forest_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    indices: torch.Tensor,
    header: torch.Tensor,
    pairs: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator behind `attend_forest`. Its arguments are of one form for all layouts, so compiled layers are too.

    Args:
        query: [R, Hq, T, D].
        key: [R, Hkv, T, D].
        value: [R, Hkv, T, D].
        indices: `ForestLayout.indices`, on the query's device.
        header: On the CPU, `ForestLayout.header` for a GPU, `ForestLayout.spans` for the CPU.
        pairs: Visible pairs, for counting FLOPs.
        scale: Factor of the scores.

    Returns:
        out: [R, T, Hq, D], contiguous.
        lse: [Hq, R * T], log-sum-exp of each query's scores; float64 for float64, else float32.
    """
    if query.device.type == "cpu":
        return attend_tiles(query, key, value, header, scale)
    return attend_on_gpu(query, key, value, indices, header, scale, FlashKernels())


@torch.library.custom_op("lyrics::forest_attention_backward", mutates_args=())
def forest_attention_backward(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    indices: torch.Tensor,
    header: torch.Tensor,
    pairs: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value; `grad_out` is shaped like `out`."""
    if query.device.type == "cpu":
        return attend_tiles_backward(grad_out, query, key, value, out, lse, header, scale)
    return attend_on_gpu_backward(
        grad_out, query, key, value, out, lse, indices, header, scale, FlashKernels()
    )


def attend_on_gpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    indices: torch.Tensor,
    header: torch.Tensor,
    scale: float,
    kernels: Kernels,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`forest_attention` by variable-length kernels."""
    rows, heads, slots, width = query.shape
    q, k, v = (_by_slot(tensor) for tensor in (query, key, value))
    out, lse = attend_varlen(q, k, v, *_read_calls(indices, header), scale, kernels)
    return out.contiguous().view(rows, slots, heads, width), lse


def attend_on_gpu_backward(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    indices: torch.Tensor,
    header: torch.Tensor,
    scale: float,
    kernels: Kernels,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`forest_attention_backward` by variable-length kernels."""
    q, k, v = (_by_slot(tensor) for tensor in (query, key, value))
    grad, o = grad_out.flatten(0, 1), out.flatten(0, 1)
    grads = attend_varlen_backward(grad, q, k, v, o, lse, *_read_calls(indices, header), scale, kernels)
    grad_q, grad_k, grad_v = (
        found.contiguous().view(given.transpose(1, 2).shape).transpose(1, 2)
        for found, given in zip(grads, (query, key, value), strict=True)
    )
    return grad_q, grad_k, grad_v


def _read_calls(indices: torch.Tensor, header: torch.Tensor) -> tuple[Sequences, tuple[Level, ...]]:
    """The causal call over the blocks, and what the others are made of."""
    parts = read_parts(indices, header)
    cu, longest = parts.cu_seqlens, parts.max_seqlen
    return Sequences(cu, cu, longest, longest, causal=True), parts.levels


def _by_slot(tensor: torch.Tensor) -> torch.Tensor:
    """[R, H, T, D] as [R * T, H, D]: a view of what transformers' layers give."""
    return tensor.transpose(1, 2).flatten(0, 1)


@forest_attention.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    indices: torch.Tensor,
    header: torch.Tensor,
    pairs: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, heads, slots, width = query.shape
    precise = torch.promote_types(query.dtype, torch.float32)
    out = query.new_empty(rows, slots, heads, width)
    return out, query.new_empty(heads, rows * slots, dtype=precise)


@forest_attention_backward.register_fake
def _(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: Any,  # noqa: ANN401 - what decides no shape
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = (x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (query, key, value))
    return q, k, v


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:  # noqa: ANN401 - autograd's context
    query, key, value, indices, header, ctx.pairs, ctx.scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, *output, indices, header)


def _differentiate(ctx: Any, *grads: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401 - autograd's context
    grad_out, _ = grads
    if grad_out is None:
        return (None,) * 7
    found = torch.ops.lyrics.forest_attention_backward(grad_out, *ctx.saved_tensors, ctx.pairs, ctx.scale)
    return *found, None, None, None, None


forest_attention.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.lyrics.forest_attention)
def _count_forward(query: torch.Size, *others: Any, **_: object) -> int:  # noqa: ANN401 - shapes and numbers
    """Two matrix products: a multiplication and an addition for each pair, head and channel."""
    pairs, _scale = others[-2:]
    return 4 * int(pairs) * query[1] * query[3]


@register_flop_formula(torch.ops.lyrics.forest_attention_backward)
def _count_backward(_grad: torch.Size, query: torch.Size, *others: Any, **_: object) -> int:  # noqa: ANN401 - shapes and numbers
    """Five matrix products: the scores again, and gradients of value, probabilities, query and key."""
    pairs, _scale = others[-2:]
    return 10 * int(pairs) * query[1] * query[3]
