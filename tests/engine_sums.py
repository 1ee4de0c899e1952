"""How exactly gradients add up over the micro-steps of a step, before DeepSpeed reduces them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import harness.engine as engine_module
from harness.dist import Engine, World, join_world
from harness.lora import trainable_parameters
from preprocess.forest import PackedRow
from tests.engine_ranks import Case, make_engine, make_rows, take_step


def measure_sums(root: Path, cases: Sequence[Case]) -> list[tuple[float, float]]:
    """For each case, the relative error of the gradients that its only step adds up, and of bf16 sums of the same.

    Both are held against the sum in float64 of what each micro-step's backward pass gave.
    """
    world, rows = join_world(None), make_rows()
    return [measure_sum(make_engine(root, case, world), case, world, rows) for case in cases]


def measure_sum(engine: Engine, case: Case, world: World, rows: Sequence[PackedRow]) -> tuple[float, float]:
    """See `measure_sums`."""
    _, parameter = trainable_parameters(engine.module)[-1]
    parts: list[torch.Tensor] = []
    sums: list[torch.Tensor] = []
    reduce = engine_module._reduce_gradients

    def catch(*args: Any) -> None:  # noqa: ANN401
        assert parameter.grad is not None
        sums.append(parameter.grad.double())
        reduce(*args)

    parameter.register_hook(lambda gradient: parts.append(gradient.clone()))  # type: ignore[no-untyped-call]
    with patch.object(engine_module, "_reduce_gradients", catch):
        take_step(engine, case, 0, world, rows)
    assert len(parts) == case.micro_steps[0]
    rounded = [part.bfloat16() for part in parts]
    assert all(torch.equal(part.double(), one.double()) for part, one in zip(rounded, parts, strict=True))
    exact, in_bf16 = torch.stack(parts).double().sum(0), torch.zeros_like(rounded[0])
    for part in rounded:
        in_bf16 += part
    errors = [float((one.double() - exact).norm() / exact.norm()) for one in (sums[0], in_bf16)]
    return errors[0], errors[1]
