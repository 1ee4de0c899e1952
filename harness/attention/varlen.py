"""Attention of forests on a GPU: variable-length flash kernels, one call for all blocks and one for each level.

The calls' results are merged by their log-sum-exps: with l = log(exp(l1) + exp(l2)),
out = out1 * exp(l1 - l) + out2 * exp(l2 - l). In the backward pass each call is given the merged out and l, since the
probability of a pair is exp(score - l) whichever call computes it, and the gradients of the calls add up
(the algebra of Dao et al., FlashAttention, 2022, over parts of the keys).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from harness.attention.parts import Level

Tensors3 = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """B pairs of sequences of one kernel call.

    Attributes:
        cu_q: int32[B + 1], where each sequence of queries starts, and their number.
        cu_k: int32[B + 1], the same of the keys.
        max_q: Longest sequence of queries.
        max_k: Longest sequence of keys.
        causal: Whether query i of a sequence sees key k only where k <= i.
    """

    cu_q: torch.Tensor
    cu_k: torch.Tensor
    max_q: int
    max_k: int
    causal: bool


class Kernels(Protocol):
    """The two kernels that all is computed with. N queries and K keys, of Hq and Hkv heads."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sequences: Sequences, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From [N, Hq, D] and [K, Hkv, D] twice: the output [N, Hq, D], and its log-sum-exp, float32[Hq, N]."""

    def backward(
        self,
        grad_out: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        sequences: Sequences,
        scale: float,
    ) -> Tensors3:
        """Gradients of query, key and value, of exp(score - lse) as probabilities and the given output."""


class FlashKernels:
    """torch's own flash attention (CUDA; bfloat16 or float16, compute capability 8.0 and above)."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sequences: Sequences, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernels`."""
        # Where no sequence has a second query, torch takes another path (meant for decoding), whose lse is laid out
        # otherwise; the bound need not be tight.
        max_q = max(sequences.max_q, 2)
        out, lse, *_ = torch.ops.aten._flash_attention_forward(
            *(query, key, value, sequences.cu_q, sequences.cu_k, max_q, sequences.max_k),
            dropout_p=0.0,
            is_causal=sequences.causal,
            return_debug_mask=False,
            scale=scale,
        )
        return out, lse

    def backward(
        self,
        grad_out: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        sequences: Sequences,
        scale: float,
    ) -> Tensors3:
        """See `Kernels`."""
        grads: Tensors3 = torch.ops.aten._flash_attention_backward(
            *(grad_out, query, key, value, out, lse),
            *(sequences.cu_q, sequences.cu_k, sequences.max_q, sequences.max_k),
            dropout_p=0.0,
            is_causal=sequences.causal,
            rng_state=torch.zeros(2, dtype=torch.uint64, device=query.device),  # of dropout: there is none
            unused=torch.empty(0, device=query.device),
            scale=scale,
        )
        return grads


def attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    blocks: Sequences,
    levels: tuple[Level, ...],
    scale: float,
    kernels: Kernels,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of a forest by variable-length kernels.

    Args:
        query: [N, Hq, D], all slots of a micro-batch one after another.
        key: [N, Hkv, D].
        value: [N, Hkv, D].
        blocks: Causal sequences of slots, each its own keys.
        levels: What blocks see besides.
        scale: Factor of the scores.
        kernels: What computes.

    Returns:
        out: [N, Hq, D] in the query's dtype.
        lse: [Hq, N], as the kernels give it.
    """
    out, lse = kernels.forward(query, key, value, blocks, scale)
    total = out.to(_merging_dtype(out, levels))
    for level in levels:
        slots = level.query_slots
        k, v = key.index_select(0, level.key_slots), value.index_select(0, level.key_slots)
        out_part, lse_part = kernels.forward(query.index_select(0, slots), k, v, _sequences(level), scale)
        out_old, lse_old = total.index_select(0, slots), lse.index_select(1, slots)
        lse_new = torch.logaddexp(lse_old, lse_part)
        merged = _weigh(out_old, lse_old - lse_new) + _weigh(out_part, lse_part - lse_new)
        total.index_copy_(0, slots, merged.to(total.dtype))
        lse.index_copy_(1, slots, lse_new)
    return total.to(out.dtype), lse


def attend_varlen_backward(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    blocks: Sequences,
    levels: tuple[Level, ...],
    scale: float,
    kernels: Kernels,
) -> Tensors3:
    """Gradients of `attend_varlen`; arguments as there, with its results, and `grad_out` shaped like `out`."""
    grads = kernels.backward(grad_out, query, key, value, out, lse, blocks, scale)
    totals = [grad.to(_merging_dtype(grad, levels)) for grad in grads]
    for level in levels:
        queries, keys = level.query_slots, level.key_slots
        g, q, o = (tensor.index_select(0, queries) for tensor in (grad_out, query, out))
        k, v = key.index_select(0, keys), value.index_select(0, keys)
        parts = kernels.backward(g, q, k, v, o, lse.index_select(1, queries), _sequences(level), scale)
        for total, part, slots in zip(totals, parts, (queries, keys, keys), strict=True):
            _add_rows(total, slots, part)
    q, k, v = (total.to(grad.dtype) for total, grad in zip(totals, grads, strict=True))
    return q, k, v


def _sequences(level: Level) -> Sequences:
    return Sequences(level.cu_q, level.cu_k, level.max_q, level.max_k, causal=False)


def _merging_dtype(tensor: torch.Tensor, levels: tuple[Level, ...]) -> torch.dtype:
    """Half precision is rounded once: after the only level, or after several from a float32 copy."""
    return torch.float32 if len(levels) > 1 and tensor.dtype.itemsize < 4 else tensor.dtype


def _weigh(out: torch.Tensor, log_weight: torch.Tensor) -> torch.Tensor:
    """[N, H, D] times exp of [H, N], at least in float32."""
    return out * log_weight.exp().T[:, :, None]


def _add_rows(total: torch.Tensor, slots: torch.Tensor, part: torch.Tensor) -> None:
    """Add rows, none of which is there twice (so without atomic operations), in float32 at least."""
    precise = torch.promote_types(total.dtype, torch.float32)
    added = total.index_select(0, slots).to(precise).add_(part)
    total.index_copy_(0, slots, added.to(total.dtype))
