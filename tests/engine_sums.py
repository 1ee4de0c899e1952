"""How exactly gradients add up over micro-steps and ranks: what Adam gets, against the sum in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch

import harness.engine as engine_module
from harness.dist import Engine, World, join_world
from harness.lora import trainable_parameters
from harness.step import Float64Array
from preprocess.forest import PackedRow
from tests.engine_ranks import Case, Outcome, make_engine, make_rows, run_cases, take_step


@dataclass(frozen=True, slots=True)
class Sums:
    """The gradients of a case's only step on one rank, parameter after parameter.

    Attributes:
        sizes: Numbers in each parameter.
        exact: float64[...], the sum of what each micro-step's backward pass gave.
        in_bf16: float64[...], the same added up in bf16.
        handed: float64[...], what the optimizer got on this rank, before clipping.
    """

    sizes: list[int]
    exact: Float64Array
    in_bf16: Float64Array
    handed: Float64Array


def measure_sums(root: Path, cases: Sequence[Case]) -> list[Sums]:
    """What each case's only step adds up on this rank."""
    world, rows = join_world(None), make_rows()
    return [measure_sum(make_engine(root, case, world), case, world, rows) for case in cases]


def measure_sum(engine: Engine, case: Case, world: World, rows: Sequence[PackedRow]) -> Sums:
    """See `measure_sums`."""
    parameters = [parameter for _, parameter in trainable_parameters(engine.module)]
    parts: list[list[torch.Tensor]] = [[] for _ in parameters]
    for parameter, own in zip(parameters, parts, strict=True):
        parameter.register_hook(keep_in(own))  # type: ignore[no-untyped-call]
    with gradients_handed(engine) as handed:
        result = take_step(engine, case, 0, world, rows)
    assert all(len(own) == case.micro_steps[0] for own in parts)
    assert all(torch.equal(part.bfloat16().double(), part.double()) for own in parts for part in own)
    exact = [torch.stack(own).double().sum(0) for own in parts]
    in_bf16 = [torch.zeros_like(own[0], dtype=torch.bfloat16) for own in parts]
    for total, own in zip(in_bf16, parts, strict=True):
        for part in own:
            total += part.bfloat16()
    engine.destroy()
    unclipped = flatten(handed) * max(1.0, result.grad_norm + 1e-6)
    return Sums([one.numel() for one in exact], flatten(exact), flatten(in_bf16), unclipped)


def flatten(tensors: Sequence[torch.Tensor]) -> Float64Array:
    """float64[...]: tensors one after another."""
    return cast("Float64Array", torch.cat([one.double().flatten() for one in tensors]).numpy())


def keep_in(parts: list[torch.Tensor]) -> Callable[[torch.Tensor], None]:
    """A hook that keeps copies of the gradients it sees."""

    def keep(gradient: torch.Tensor) -> None:
        parts.append(gradient.detach().clone())

    return keep


@contextmanager
def gradients_handed(engine: Engine) -> Iterator[list[torch.Tensor]]:
    """Collect the gradients that AdamW itself steps with."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    step, handed = optimizer.step, list[torch.Tensor]()

    def watch(*args: Any, **kwargs: Any) -> Any:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        handed.extend(one.grad.detach().flatten().clone() for one in weights if one.grad is not None)
        return step(*args, **kwargs)

    with patch.object(optimizer, "step", watch):
        yield handed


def join_ranks(of_ranks: Sequence[Sums], stage: int) -> Float64Array:
    """float64[...]: the whole gradient that the optimizers of all ranks got, parameter after parameter."""
    sizes = of_ranks[0].sizes
    if stage == 0:
        return of_ranks[0].handed
    if stage < 3:
        return np.concatenate([sums.handed for sums in of_ranks])[: sum(sizes)]
    ends = np.cumsum([-(-size // len(of_ranks)) for size in sizes])  # ZeRO-3 shares out each parameter
    split = [np.split(sums.handed, ends)[:-1] for sums in of_ranks]
    return np.concatenate(
        [np.concatenate(pieces)[:size] for size, *pieces in zip(sizes, *split, strict=True)]
    )


def compare_sums(of_ranks: Sequence[Sums], stage: int) -> tuple[float, float]:
    """The relative error of what Adam got, and of a bf16 sum over micro-steps; DeepSpeed averages over ranks."""
    exact = np.mean([sums.exact for sums in of_ranks], axis=0)
    in_bf16 = np.mean([sums.in_bf16 for sums in of_ranks], axis=0)
    errors = [
        np.linalg.norm(one - exact) / np.linalg.norm(exact) for one in (join_ranks(of_ranks, stage), in_bf16)
    ]
    return float(errors[0]), float(errors[1])


def run_cases_scaled_early(root: Path, cases: Sequence[Case]) -> list[Outcome]:
    """Cases on this rank, where DeepSpeed changes the loss scale before it divides by it, as it does by itself."""
    with patch.object(engine_module, "scale_kept", lambda engine: nullcontext()):
        return run_cases(root, cases)
