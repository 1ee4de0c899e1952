"""RMSNorm (Zhang and Sennrich 2019) as transformers computes it; backward from the input and one number a token."""

from __future__ import annotations

import torch


def normalize(values: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute weight * values / rms(values) in float32 (float64 for float64 values).

    Args:
        values: [N, H].
        weight: [H].
        eps: Added to the mean square.

    Returns:
        [N, H] in the type of `values`, and 1 / rms [N, 1] in the type of the computation.
    """
    if _has_kernel(values):
        result: tuple[torch.Tensor, torch.Tensor] = torch.ops.aten._fused_rms_norm(
            values, [values.shape[-1]], weight, eps
        )
        return result
    precise = _to_precise(values)
    rstd = torch.rsqrt(precise.square().mean(-1, keepdim=True) + eps)
    return weight * (precise * rstd).to(values.dtype), rstd


def normalize_again(
    values: torch.Tensor, rstd: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """The first result of `normalize` to the bit, from its second one: [N, H]."""
    if _has_kernel(values):
        return normalize(values, weight, eps)[0]
    return weight * (_to_precise(values) * rstd).to(values.dtype)


def normalize_back(
    grad: torch.Tensor, values: torch.Tensor, rstd: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """The gradient with respect to `values` [N, H], from the one with respect to the normalized values [N, H].

    With v the values over their rms and g the gradient times the weight: (g - v mean(g v)) / rms.
    """
    if _has_kernel(values):
        back = torch.ops.aten._fused_rms_norm_backward
        fused: torch.Tensor = back(grad, values, [values.shape[-1]], rstd, weight, [True, False])[0]
        return fused
    scaled = _to_precise(grad * weight)
    normal = _to_precise(values) * rstd
    shared = (scaled * normal).mean(-1, keepdim=True)
    return (scaled - normal * shared).mul_(rstd).to(values.dtype)


def _has_kernel(values: torch.Tensor) -> bool:
    """Whether one kernel does it. It rounds once, at the end, and is for GPUs; a compiled graph is fused anyway."""
    return values.is_cuda and not torch.compiler.is_compiling()


def _to_precise(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()
