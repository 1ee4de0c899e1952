"""Frozen projections in float8, forward and input gradient (Micikevicius et al. 2022, "FP8 formats for deep learning").

Every row of either side of a product is scaled by its own largest value, so that an outlier costs its own row alone.
The forward pass sums over a weight's columns, the gradient of the input over its rows; each direction has a copy of the
weight with the scales of that direction. Two copies of one byte take the place of one of two.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
LEAST_CAPABILITY = (8, 9)
MULTIPLE = 16
"""Rows and columns of a weight must be multiples of this for a GPU's float8 kernels."""


class QuantizedRows(NamedTuple):
    """Rows in float8.

    Attributes:
        values: float8[N, W].
        scale: float32[N, 1]; values * scale is what they stand for.
    """

    values: torch.Tensor
    scale: torch.Tensor


def fp8_supported(device: torch.device) -> str | None:
    """None where a device multiplies in float8, else why not. A CPU does, slowly: enough to try it."""
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"{device.type} devices are not known to multiply in float8"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) >= LEAST_CAPABILITY:
        return None
    name = torch.cuda.get_device_name(device)
    return f"{name} has compute capability {major}.{minor}; float8 needs 8.9 (Ada, Hopper) or higher"


def quantize_rows(values: torch.Tensor) -> QuantizedRows:
    """Scale each row of [N, W] to float8's range and round it."""
    largest = torch.linalg.vector_norm(values, float("inf"), dim=1, keepdim=True, dtype=torch.float32)
    scale = largest.clamp_(min=1e-12).div_(LARGEST)
    return QuantizedRows((values / scale).to(FLOAT8), scale)


def multiply_rows(
    rows: QuantizedRows, weight: torch.Tensor, weight_scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Multiply rows [N, W] by the transpose of a matrix, products summed in float32.

    Args:
        rows: The left side.
        weight: float8[out, W].
        weight_scale: float32[1, out].
        dtype: Of the result, bfloat16 or (on a CPU) float32.

    Returns:
        [N, out].
    """
    return torch._scaled_mm(
        rows.values, weight.t(), scale_a=rows.scale, scale_b=weight_scale, out_dtype=dtype
    )


class Float8Linear(nn.Module):
    """A frozen linear layer whose weight is kept in float8, in both directions.

    The copies are buffers of integers, since `module.bfloat16()` and its like convert all that floats; they are not
    part of the state dict, for the base's weights are saved nowhere.

    Args:
        linear: The layer to take the place of; its weight [out, W] is quantized, its bias kept.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        weight = linear.weight.detach()
        for name, matrix in (("forward", weight), ("back", weight.t().contiguous())):
            rows = quantize_rows(matrix)
            self.register_buffer(f"{name}_bits", rows.values.view(torch.uint8), persistent=False)
            self.register_buffer(f"{name}_scale_bits", rows.scale.t().view(torch.int32), persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """float8[out, W]."""
        return self.get_buffer("forward_bits").view(FLOAT8)

    @property
    def quantized(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The weight's scale float32[1, out], the transposed weight float8[W, out] and its scale float32[1, W]."""
        return (
            self.get_buffer("forward_scale_bits").view(torch.float32),
            self.get_buffer("back_bits").view(FLOAT8),
            self.get_buffer("back_scale_bits").view(torch.float32),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[..., W] to [..., out], for passes that don't run lean: generation with a cache."""
        from harness.lean.functions import project_one  # it is built on this module
        from harness.lean.projection import read_group

        return project_one(values, read_group((self,), values))


def why_not_float8(linear: nn.Linear) -> str | None:
    """Why a linear layer's weight cannot be float8, or None."""
    weight = linear.weight
    if hasattr(weight, "ds_id"):
        return "is split over ranks, and float8 weights cannot be"
    if any(size % MULTIPLE for size in weight.shape):
        return f"has the shape {tuple(weight.shape)}, expected multiples of {MULTIPLE}"
    if weight.dtype == torch.bfloat16 or (weight.dtype == torch.float32 and weight.device.type == "cpu"):
        return None
    return f"is in {weight.dtype}, expected bfloat16".replace("torch.", "")
