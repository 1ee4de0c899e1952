"""Numbers as a reader wants them."""

from __future__ import annotations

import math


def format_float(value: float) -> str:
    """Write a float with about four digits; NaN is a dash."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
