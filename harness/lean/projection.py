"""Projections that read one input: frozen matrices, each with or without a low-rank adapter.

With x the input [N, W], d the dropout's mask (0 or 1) and s the adapter's scale over the share that is kept:

    y_i = x W_i^T + b_i + s h_i B_i^T      h = (d x) [A_1; A_2; ...]^T, one product for all adapters
    dB_i = s dy_i^T h_i                    u_i = s dy_i B_i
    dA = u^T (d x)                         dx = sum of dy_i W_i + d (u A)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear

from harness.dropout import WindowDropout, keep_windows
from harness.lean.fp8 import QuantizedRows, multiply_rows, quantize_rows


class Projection(NamedTuple):
    """The tensors of one projection.

    Attributes:
        weight: [out, W], frozen; float8 where `weight_scale` is given.
        bias: [out] or None.
        lora_a: [r, W], or None without an adapter.
        lora_b: [out, r], or None.
        weight_scale: float32[1, out], of float8's weight, or None.
        back: float8[W, out], the transposed weight for the gradient of the input, or None.
        back_scale: float32[1, W], or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    lora_a: torch.Tensor | None
    lora_b: torch.Tensor | None
    weight_scale: torch.Tensor | None = None
    back: torch.Tensor | None = None
    back_scale: torch.Tensor | None = None


Tensors = Sequence[torch.Tensor | None]
NUM_TENSORS = len(Projection._fields)


class Mask(NamedTuple):
    """What the dropout of one input is redrawn from; see `harness.dropout.keep_windows`."""

    offsets: torch.Tensor | None
    table: torch.Tensor | None

    def apply_to(self, values: torch.Tensor) -> torch.Tensor:
        """`values` [N, W] with zeros where dropped; the same tensor without dropout."""
        if self.offsets is None or self.table is None:
            return values
        return keep_windows(values, self.offsets, self.table)


class Group(NamedTuple):
    """Projections of one input, as the autograd functions take them: tensors and numbers, nothing else."""

    mask: Mask
    scales: tuple[float, ...]
    projections: tuple[Projection, ...]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """For an autograd function: offsets, table, scales, and the projections' tensors."""
        flat = tuple(tensor for projection in self.projections for tensor in projection)
        return (*self.mask, self.scales, *flat)


def read_group(modules: Sequence[Any], values: torch.Tensor) -> Group:
    """The projections of peft's `lora.Linear` or of plain linear modules that read `values`, dropout included."""
    mask, scales, projections = Mask(None, None), [], []
    for module in modules:
        base, scale = module, 0.0
        lora_a = lora_b = None
        if hasattr(module, "lora_A"):
            name, base = module.active_adapters[0], module.base_layer
            if name in module.lora_A:
                lora_a, lora_b = module.lora_A[name].weight, module.lora_B[name].weight
                scale = module.scaling[name]
                dropout = module.lora_dropout[name]
                if isinstance(dropout, WindowDropout) and dropout.training:
                    mask = Mask(*dropout.source_for(values))
                    scale *= dropout.scale
        quantized = getattr(base, "quantized", (None, None, None))
        projections.append(Projection(base.weight, base.bias, lora_a, lora_b, *quantized))
        scales.append(scale)
    return Group(mask, tuple(scales), tuple(projections))


def join_group(
    offsets: torch.Tensor | None, table: torch.Tensor | None, scales: tuple[float, ...], tensors: Tensors
) -> Group:
    """The inverse of `Group.arguments`."""
    parts = [tensors[start : start + NUM_TENSORS] for start in range(0, len(tensors), NUM_TENSORS)]
    return Group(Mask(offsets, table), scales, tuple(map(Projection._make, parts)))


def project(values: torch.Tensor, group: Group) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """All projections of one input.

    Args:
        values: [N, W].
        group: What to multiply by.

    Returns:
        A tensor [N, out] for each projection, and h [N, sum of ranks] for the backward pass (None without adapters).
    """
    rows = quantize_rows(values) if group.projections[0].back is not None else None
    results = [_multiply(values, rows, projection) for projection in group.projections]
    adapters = list(_adapters(group))
    if not adapters:
        return results, None
    low_rank = group.mask.apply_to(values) @ _join_a(adapters).t()
    parts = torch.split(low_rank, [len(adapter.a) for adapter in adapters], dim=1)
    for adapter, part in zip(adapters, parts, strict=True):
        results[adapter.place].addmm_(part, adapter.b.t(), alpha=adapter.scale)
    return results, low_rank


def project_back(
    grads: Sequence[torch.Tensor],
    values: torch.Tensor | None,
    low_rank: torch.Tensor | None,
    group: Group,
    *,
    needs_input: bool,
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """The gradients of `project`.

    Args:
        grads: Of each projection's result [N, out].
        values: [N, W], the input; None where no adapter learns.
        low_rank: [N, sum of ranks], h of the forward pass, or None without adapters.
        group: As in the forward pass.
        needs_input: Whether the gradient of the input is wanted.

    Returns:
        The gradient of the input [N, W] or None, and one for each tensor of the group (None for frozen ones).
    """
    flat: list[torch.Tensor | None] = [None] * (NUM_TENSORS * len(group.projections))
    adapters = list(_adapters(group))
    learned = None
    if low_rank is not None:
        back = [(grads[adapter.place] @ adapter.b).mul_(adapter.scale) for adapter in adapters]
        learned = back[0] if len(back) == 1 else torch.cat(back, dim=1)
        if values is not None:
            _fill_adapters(flat, grads, low_rank, learned.t() @ group.mask.apply_to(values), adapters)
    if not needs_input:
        return None, flat
    total = None if learned is None else group.mask.apply_to(learned @ _join_a(adapters))
    for grad, projection in zip(grads, group.projections, strict=True):
        total = _multiply_back(grad, projection, total)
    return total, flat


def _fill_adapters(
    flat: list[torch.Tensor | None],
    grads: Sequence[torch.Tensor],
    low_rank: torch.Tensor,
    grad_a: torch.Tensor,
    adapters: Sequence[_Adapter],
) -> None:
    """Put the gradients of the adapters' matrices in their places among the group's tensors."""
    ranks = [len(adapter.a) for adapter in adapters]
    parts = zip(adapters, torch.split(grad_a, ranks), torch.split(low_rank, ranks, dim=1), strict=True)
    for adapter, own_a, own_low_rank in parts:
        start = adapter.place * NUM_TENSORS
        flat[start + Projection._fields.index("lora_a")] = own_a
        own_b = grads[adapter.place].t() @ own_low_rank
        flat[start + Projection._fields.index("lora_b")] = own_b.mul_(adapter.scale)


class _Adapter(NamedTuple):
    place: int
    a: torch.Tensor
    b: torch.Tensor
    scale: float


def _adapters(group: Group) -> Iterator[_Adapter]:
    for index, (projection, scale) in enumerate(zip(group.projections, group.scales, strict=True)):
        if projection.lora_a is not None and projection.lora_b is not None:
            yield _Adapter(index, projection.lora_a, projection.lora_b, scale)


def _join_a(adapters: Sequence[_Adapter]) -> torch.Tensor:
    """[sum of ranks, W]; copied where there are several, which is small beside what it saves."""
    return adapters[0].a if len(adapters) == 1 else torch.cat([adapter.a for adapter in adapters])


def _multiply(values: torch.Tensor, rows: QuantizedRows | None, projection: Projection) -> torch.Tensor:
    if rows is None or projection.weight_scale is None:
        return linear(values, projection.weight, projection.bias)
    result = multiply_rows(rows, projection.weight, projection.weight_scale, values.dtype)
    return result if projection.bias is None else result.add_(projection.bias)


def _multiply_back(grad: torch.Tensor, projection: Projection, total: torch.Tensor | None) -> torch.Tensor:
    """Add dy W to the gradient of the input."""
    if projection.back is not None and projection.back_scale is not None:
        result = multiply_rows(quantize_rows(grad), projection.back, projection.back_scale, grad.dtype)
        return result if total is None else total.add_(result)
    return grad @ projection.weight if total is None else total.addmm_(grad, projection.weight)
