"""Matrix products in float8: each row of either side is scaled by its own largest value (Micikevicius et al. 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max


class QuantizedRows(NamedTuple):
    """Rows in float8.

    Attributes:
        values: float8[N, W].
        scale: float32[N, 1]; values * scale is what they stand for.
    """

    values: torch.Tensor
    scale: torch.Tensor


def quantize_rows(values: torch.Tensor) -> QuantizedRows:
    """Scale each row of [N, W] to float8's range and round it."""
    largest = values.abs().amax(dim=1, keepdim=True).float()
    scale = largest.clamp_(min=1e-12).div_(LARGEST)
    return QuantizedRows((values / scale.to(torch.float32)).clamp_(-LARGEST, LARGEST).to(FLOAT8), scale)


def multiply_rows(
    rows: QuantizedRows, weight: torch.Tensor, weight_scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Multiply rows [N, W] by the transpose of a matrix, products summed in float32.

    Args:
        rows: The left side.
        weight: float8[out, W].
        weight_scale: float32[1, out].
        dtype: Of the result, bfloat16 or float32.

    Returns:
        [N, out].
    """
    return torch._scaled_mm(
        rows.values, weight.t(), scale_a=rows.scale, scale_b=weight_scale, out_dtype=dtype
    )
