"""Which base an adapter was trained on, told by some of the base's own weights: a name or a path may move or lie."""

from __future__ import annotations

import json

import torch
from torch import nn

from preprocess.outside_text import parse_json

NUM_MATRICES = 16
NUM_VALUES = 16
RELATIVE_TOLERANCE = 2.0**-8
"""bfloat16 moves a weight by at most 2^-9 of itself, so the same weights in two precisions stay within this."""

MAX_DIFFERING = 0.1
"""Share of values that may lie outside: fp16 loses the smallest weights."""


def sample_weights(base: nn.Module) -> str:
    """Some weights of a base model, spread over its matrices, as JSON.

    Args:
        base: Without any adapter, its embedding not grown, its parameters whole (not split by ZeRO-3).

    Returns:
        `{name: [values]}` of up to 16 matrices with up to 16 values each, about 5 KB.
    """
    matrices = sorted((name, weight) for name, weight in base.named_parameters() if weight.dim() == 2)
    chosen = [matrices[i] for i in _spread(len(matrices), NUM_MATRICES)]
    return json.dumps({name: _values(weight) for name, weight in chosen})


def _values(weight: torch.Tensor) -> list[float]:
    flat = weight.detach().flatten()
    picked = flat[torch.tensor(_spread(flat.numel(), NUM_VALUES), device=flat.device)]
    return [float(f"{value:.6g}") for value in picked.double().tolist()]


def _spread(total: int, wanted: int) -> list[int]:
    """Up to `wanted` of the numbers below `total`, evenly spread; the last one is always there."""
    count = min(total, wanted)
    return [(i + 1) * total // count - 1 for i in range(count)]


def find_difference(base: nn.Module, samples: str) -> str | None:
    """How a base differs from the one that `sample_weights` was called on, or None when it is that one.

    The precision that the weights are held in does not count.
    """
    expected: dict[str, list[float]] = parse_json(samples)
    weights = dict(base.named_parameters())
    if missing := sorted(set(expected) - set(weights)):
        return f"it has no weight {missing[0]}"
    found = {name: _values(weights[name]) for name in expected}
    if wrong := [name for name, values in expected.items() if len(found[name]) != len(values)]:
        return f"its {wrong[0]} has another size"
    pairs = [pair for name, values in expected.items() for pair in zip(values, found[name], strict=True)]
    differing = sum(abs(a - b) > RELATIVE_TOLERANCE * max(abs(a), abs(b)) for a, b in pairs)
    if differing > MAX_DIFFERING * len(pairs):
        return f"{differing} of {len(pairs)} sampled weights are others"
    return None
