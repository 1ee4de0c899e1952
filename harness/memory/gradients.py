"""Bytes of new gradients on their way into the float32 sums that lie on the adapters' parameters."""

from __future__ import annotations

from collections.abc import Sequence

from harness.memory.sizes import FLOAT32, Sizes
from harness.memory.tape import Made, Tape


def cast_gradients(tape: Tape, sizes: Sizes, names: Sequence[str]) -> None:
    """New gradients of some adapters, alive in the model's precision, become float32, are added, and end.

    `grad_dtype` of half-precision parameters is float32 (`harness.half_precision`): autograd converts all gradients of
    a function before it adds the first. The sums are `gradients` in `harness.memory.state`, not counted here.
    """
    values = [size for name in names for size in (sizes.matrix_a(name), sizes.matrix_b(name))]
    wide = [tape.make(size * FLOAT32 * sizes.is_half) for size in values]
    tape.drop(*(Made(size * sizes.value, "layer_work") for size in values), *wide)
