"""Run trainings whose memory runs out: at a planted place on one rank, or for real."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
from rich.console import Console

from harness.config import load_run_config
from harness.engine import build_engine
from harness.head import sum_losses
from harness.lora import trainable_parameters
from harness.memory.limit import CpuMemory, RankMemory, read_status
from harness.train import train
from preprocess.errors import UserError

Place = Literal["forward", "loss", "backward", "eval"]


@dataclass(frozen=True, slots=True)
class Planted:
    """Memory that runs out once.

    Attributes:
        place: In what.
        rank: On which rank.
        call: The how many-eth time that the place is come to, from 1.
        times: How often it runs out from then on.
    """

    place: Place
    rank: int
    call: int
    times: int = 1


@dataclass(frozen=True, slots=True)
class Planned:
    """A run, and what goes wrong in it.

    Attributes:
        config: Its YAML.
        planted: Where memory runs out, if it does.
        keeps_gradients: Whether the gradients of a broken step are left lying, which is wrong.
    """

    config: Path
    planted: Planted | None = None
    keeps_gradients: bool = False


def run_planned(runs: Sequence[Planned]) -> list[tuple[int, str]]:
    """Train one after another in this rank's process group. For each the exit code and the user's error."""
    torch.use_deterministic_algorithms(mode=True)
    outcomes = []
    for run in runs:
        code, text = 0, ""
        with ExitStack() as stack:
            if run.planted is not None and run.planted.rank == int(os.environ["RANK"]):
                stack.enter_context(plant(run.planted))
            if run.keeps_gradients:
                for module in ("harness.micro_steps", "harness.engine"):
                    stack.enter_context(patch(f"{module}.drop_gradients", lambda engine, **options: None))
            try:
                train(load_run_config(run.config), Console(quiet=True))
            except UserError as error:
                code, text = error.exit_code, str(error)
        outcomes.append((code, text))
    return outcomes


@contextmanager
def plant(planted: Planted) -> Iterator[None]:
    """Let memory run out at a place."""
    calls = iter(range(1, 1_000_000))
    bad = range(planted.call, planted.call + planted.times)

    def come_by(*_: object) -> None:
        if next(calls) in bad:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore lines")

    if planted.place == "loss":

        def fail_in_between(*given: Any) -> Any:
            come_by()
            return sum_losses(*given)

        with patch("harness.loss.sum_losses", fail_in_between):
            yield
        return
    with patch("harness.building.build_engine", _build_with(planted.place, come_by)):
        yield


def _build_with(place: Place, come_by: Callable[..., None]) -> Callable[..., Any]:
    def build(*args: Any, **options: Any) -> Any:
        engine = build_engine(*args, **options)
        if place == "backward":
            _, parameter = trainable_parameters(engine.module)[0]
            parameter.register_hook(come_by)  # type: ignore[no-untyped-call]
        else:
            in_training = place == "forward"
            engine.module.causal.model.layers[-1].register_forward_pre_hook(
                lambda layer, inputs: come_by() if layer.training == in_training else None
            )
        return engine

    return build


def run_with_little_room(configs: Sequence[Path], room_bytes: int) -> list[tuple[int, str]]:
    """Train with a real limit on allocations, so many bytes above what the process has once its engine is built."""
    torch.use_deterministic_algorithms(mode=True)

    def open_little(*_: object) -> RankMemory:
        return CpuMemory(read_status("VmRSS") + room_bytes, 1)

    with patch("harness.memory.fit.open_memory", open_little):
        return run_planned([Planned(config) for config in configs])
