"""Bytes that a rank's step must move between its memory and its cores, at least: each tensor once for each use.

Source: Williams, Waterman & Patterson 2009 (roofline). Caches serve what is read again at once, so this is a lower
bound of the traffic, and the ceiling that follows from it an upper bound of the speed.

Of W frozen and T trained weights, w bytes a value, in each micro-step::

    frozen weights    read forward, read backward for the input's gradient, read once more where a layer recomputes
    trained weights   the same, and their float32 gradient is read and written
    activations       what is kept for the backward pass: written once, read once
    logits            of each supervised token: written in w bytes, read and written in float32, read as gradient

and once a step, of the P trained values that a rank updates: read gradient, float32 copy and two moments, write copy,
moments and weight.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from harness.memory.activations import replay
from harness.memory.case import MemoryCase
from harness.memory.state import partition_values
from harness.memory.weights import count_float8, list_weights, trained_sizes

FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class BytesMoved:
    """Bytes of one rank's optimizer step by what they are of."""

    frozen_weights: float
    trained_weights: float
    gradients: float
    activations: float
    logits: float
    optimizer: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(float(getattr(self, one.name)) for one in fields(self))


def count_bytes_moved(case: MemoryCase, *, micro_steps: int, tokens: float, supervised: float) -> BytesMoved:
    """Count a rank's step.

    Args:
        case: The case; its micro-batch tells the activations of a token.
        micro_steps: Passes of the step.
        tokens: That the rank computes in the step.
        supervised: Of them.
    """
    sizes, value = trained_sizes(case), case.value_bytes
    repeats = 2 + case.recompute_layers / case.shape.num_layers
    frozen = sum(weight.num_values for weight in list_weights(case) if not weight.trains) * value
    # A float8 weight has a copy for each direction, each read in its own.
    float8 = count_float8(case.shape) / 2 if case.fp8 else 0
    passes = micro_steps * repeats
    return BytesMoved(
        frozen_weights=passes * (frozen + float8),
        trained_weights=passes * value * sum(sizes),
        gradients=2.0 * micro_steps * FLOAT32 * sum(sizes),
        activations=2.0 * replay(case).kept / max(1, case.slots) * tokens,
        logits=supervised * case.shape.vocab_size * (2 * value + 2 * FLOAT32),
        optimizer=float(partition_values(case, sizes) * (7 * FLOAT32 + value)),
    )
