"""DeepSpeed's FLOPs profiler around one forward pass.

It counts by standing in for Python functions (`torch.nn.functional.linear`, `torch.matmul`, …) while modules run.
Source: DeepSpeed 0.19.8, deepspeed/profiling/flops_profiler/profiler.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from deepspeed.profiling.flops_profiler import FlopsProfiler
from torch import nn
from torch.nn import functional

_PATCHED = (functional, torch, torch.Tensor)


def count_with_deepspeed(model: nn.Module, forward: Callable[[], object]) -> tuple[float, float]:
    """What DeepSpeed counts while `forward` runs the model: all FLOPs, and those of matrix products.

    Whatever it stands in for is itself again afterwards, whether or not it puts everything back.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    before = [dict(vars(place)) for place in _PATCHED]
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    try:
        forward()
        flops, products = float(profiler.get_total_flops()), 2.0 * float(profiler.get_total_macs())
    finally:
        profiler.end_profile()
        for place, names in zip(_PATCHED, before, strict=True):
            _put_back(place, names)
    return flops, products


def _put_back(place: object, names: dict[str, object]) -> None:
    for name, value in list(vars(place).items()):
        if name not in names:
            delattr(place, name)
        elif value is not names[name]:
            setattr(place, name, names[name])
