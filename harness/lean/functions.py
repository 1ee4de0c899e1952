"""The parts of a decoder layer as autograd functions that keep little and redo the cheap rest in the backward pass.

| function            | keeps for backward                       | redoes                                            |
|---------------------|------------------------------------------|---------------------------------------------------|
| `NormProject`       | the norm's input, 1 / rms, h             | the normalized input, the mask, the masked input   |
| `Project`           | its input (attention keeps it anyway), h | the mask, the masked input                        |
| `GatedProject`      | gate, up, h                              | silu(gate) up, the mask, the masked input          |

h is the low-rank product of `harness.lean.projection`. Frozen weights get no gradient and are not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import silu

from harness.lean.norm import normalize, normalize_again, normalize_back
from harness.lean.projection import Group, join_group, project, project_back

# The arguments of an autograd function are positional: offsets, table, scales and tensors are `Group.arguments`.
# ruff: noqa: ANN401 - ctx is autograd's context, which has no type


class NormProject(torch.autograd.Function):
    """RMSNorm and the projections of its result: q, k and v, or gate and up."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        norm_weight: torch.Tensor,
        eps: float,
        offsets: torch.Tensor | None,
        table: torch.Tensor | None,
        scales: tuple[float, ...],
        *tensors: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        """[..., H] to one [..., out] for each projection."""
        rows = values.reshape(-1, values.shape[-1])
        normal, rstd = normalize(rows, norm_weight, eps)
        results, low_rank = project(normal, join_group(offsets, table, scales, tensors))
        ctx.save_for_backward(values, norm_weight, rstd, low_rank, offsets, table, *tensors)
        ctx.scales, ctx.eps = scales, eps
        return tuple(_unflatten(result, values) for result in results)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of `values` and of the adapters."""
        values, norm_weight, rstd, low_rank, offsets, table, *tensors = ctx.saved_tensors
        rows = values.reshape(-1, values.shape[-1])
        normal = normalize_again(rows, rstd, norm_weight, ctx.eps) if _adapters_learn(ctx, 6) else None
        group = join_group(offsets, table, ctx.scales, tensors)
        needs_input = ctx.needs_input_grad[0]
        total, flat = project_back(_flatten(grads), normal, low_rank, group, needs_input=needs_input)
        if total is not None:
            total = normalize_back(total, rows, rstd, norm_weight).view(values.shape)
        return (total, None, None, None, None, None, *flat)


class Project(torch.autograd.Function):
    """One projection of an input: the attention's output."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        offsets: torch.Tensor | None,
        table: torch.Tensor | None,
        scales: tuple[float, ...],
        *tensors: torch.Tensor | None,
    ) -> torch.Tensor:
        """[..., W] to [..., out]."""
        rows = values.reshape(-1, values.shape[-1])
        results, low_rank = project(rows, join_group(offsets, table, scales, tensors))
        ctx.save_for_backward(values, low_rank, offsets, table, *tensors)
        ctx.scales = scales
        return _unflatten(results[0], values)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of `values` and of the adapter."""
        values, low_rank, offsets, table, *tensors = ctx.saved_tensors
        rows = values.reshape(-1, values.shape[-1]) if _adapters_learn(ctx, 4) else None
        group = join_group(offsets, table, ctx.scales, tensors)
        needs_input = ctx.needs_input_grad[0]
        total, flat = project_back(_flatten(grads), rows, low_rank, group, needs_input=needs_input)
        return (None if total is None else total.view(values.shape), None, None, None, *flat)


class GatedProject(torch.autograd.Function):
    """SwiGLU (Shazeer 2020) and the projection of its result: down(silu(gate) * up)."""

    @staticmethod
    def forward(
        ctx: Any,
        gate: torch.Tensor,
        up: torch.Tensor,
        offsets: torch.Tensor | None,
        table: torch.Tensor | None,
        scales: tuple[float, ...],
        *tensors: torch.Tensor | None,
    ) -> torch.Tensor:
        """Twice [..., F] to [..., out]."""
        inner = silu(gate).mul_(up).view(-1, gate.shape[-1])
        results, low_rank = project(inner, join_group(offsets, table, scales, tensors))
        ctx.save_for_backward(gate, up, low_rank, offsets, table, *tensors)
        ctx.scales = scales
        return _unflatten(results[0], gate)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of `gate`, `up` and of the adapter."""
        gate, up, low_rank, offsets, table, *tensors = ctx.saved_tensors
        active = silu(gate)
        inner = (active * up).view(-1, gate.shape[-1]) if _adapters_learn(ctx, 5) else None
        group = join_group(offsets, table, ctx.scales, tensors)
        needs_input = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        total, flat = project_back(_flatten(grads), inner, low_rank, group, needs_input=needs_input)
        if total is None:
            return (None, None, None, None, None, *flat)
        total = total.view(gate.shape)
        grad_up = active.mul_(total)
        grad_gate = torch.ops.aten.silu_backward(total.mul_(up), gate)
        return (grad_gate, grad_up, None, None, None, *flat)


def _adapters_learn(ctx: Any, first: int) -> bool:
    """Whether any tensor of the group, which begins at argument `first`, wants a gradient."""
    return any(ctx.needs_input_grad[first:])


def _flatten(grads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [grad.reshape(-1, grad.shape[-1]) for grad in grads]


def _unflatten(result: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return result.view(*values.shape[:-1], result.shape[-1])


def norm_project(
    values: torch.Tensor, norm_weight: torch.Tensor, eps: float, group: Group
) -> tuple[torch.Tensor, ...]:
    """`NormProject` of a group."""
    result: tuple[torch.Tensor, ...] = NormProject.apply(values, norm_weight, eps, *group.arguments)  # type: ignore[no-untyped-call]
    return result


def project_one(values: torch.Tensor, group: Group) -> torch.Tensor:
    """`Project` of a group."""
    result: torch.Tensor = Project.apply(values, *group.arguments)  # type: ignore[no-untyped-call]
    return result


def gated_project(gate: torch.Tensor, up: torch.Tensor, group: Group) -> torch.Tensor:
    """`GatedProject` of a group."""
    result: torch.Tensor = GatedProject.apply(gate, up, *group.arguments)  # type: ignore[no-untyped-call]
    return result
