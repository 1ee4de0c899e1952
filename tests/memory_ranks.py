"""What the tests of measured memory let ranks do: take steps at a ZeRO stage and weigh what the engine holds then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from torch.distributed import get_rank
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from harness.config import load_run_config
from harness.dist import Engine, join_world
from harness.head import sum_losses
from harness.lora import trainable_parameters
from harness.loss import scale_for_engine
from harness.memory.measured import measure_parts
from harness.train import train
from tests.engine_ranks import (
    Case,
    fp16_on_cpu,
    held_tensors,
    make_engine,
    make_rows,
    take_step,
)

EXTRA_BYTES = 4 << 20
PLANTED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Weighed:
    """One rank's bytes.

    Attributes:
        new: By part, before any step.
        stepped: By part, after two steps.
        kept: By part, while a backward pass's gradients lie on the parameters.
        held: Of masters and optimizer state as the engine's own tests find them, after two steps.
        frozen_values: Values of frozen parameters that lie on this rank.
        trained_values: Values of all trained parameters.
        planted: By part, after two steps, with 4 MiB more in a buffer of rank 0's model.
    """

    new: dict[str, int]
    stepped: dict[str, int]
    kept: dict[str, int]
    held: int
    frozen_values: int
    trained_values: int
    planted: dict[str, int]


def weigh_cases(root: Path, cases: Sequence[Case]) -> list[Weighed]:
    """Cases one after another in this rank's process group."""
    with fp16_on_cpu():
        return [weigh(root, case) for case in cases]


def weigh(root: Path, case: Case) -> Weighed:
    """Build an engine, take two steps, weigh in between."""
    world, rows = join_world(None), make_rows()
    engine = make_engine(root, case, world)
    new = by_name(engine)
    for step in range(2):
        take_step(engine, case, step, world, rows)
    stepped = by_name(engine)
    frozen = [one for one in engine.module.parameters() if not one.requires_grad]
    trained = [one for _, one in trainable_parameters(engine.module)]
    held = {tensor.untyped_storage().data_ptr(): tensor for tensor in held_tensors(engine)}
    kept = with_gradients(engine, trained)
    planted = by_name(engine)
    if world.rank == 0:
        engine.module.register_buffer("planted", torch.zeros(EXTRA_BYTES, dtype=torch.uint8))
        planted = by_name(engine)
    engine.destroy()
    return Weighed(
        new,
        stepped,
        kept,
        sum(tensor.untyped_storage().nbytes() for tensor in held.values()),
        sum(getattr(one, "ds_tensor", one).numel() for one in frozen),
        sum(getattr(one, "ds_numel", one.numel()) for one in trained),
        planted,
    )


def with_gradients(engine: Engine, trained: Sequence[torch.nn.Parameter]) -> dict[str, int]:
    """Parts while each trained parameter has a gradient in float32, as between two micro-steps."""
    for one in trained:
        one.grad_dtype = torch.float32
        one.grad = torch.zeros(one.shape, dtype=torch.float32)
    found = by_name(engine)
    for one in trained:
        one.grad = None
    return found


def by_name(engine: Engine) -> dict[str, int]:
    """What is measured, as a plain dictionary."""
    return {str(part): num_bytes for part, num_bytes in measure_parts(engine).items()}


def train_with_plants(plain: Path, planted: Path) -> None:
    """Train twice; the second time rank 0 takes 64 MiB more in layer 1, and rank 1 in the loss, until backward."""
    kept: list[torch.Tensor] = []

    def plant() -> None:
        kept.append(torch.empty(PLANTED_BYTES, dtype=torch.uint8))

    def greedy_layer(self: LlamaDecoderLayer, *args: Any, **kwargs: Any) -> Any:
        if self.self_attn.layer_idx == 1 and torch.is_grad_enabled() and get_rank() == 0 and not kept:
            plant()
        return layer_forward(self, *args, **kwargs)

    def greedy_loss(*args: Any) -> Any:
        if get_rank() == 1:
            plant()
        return sum_losses(*args)

    def forget(*args: Any) -> torch.Tensor:
        kept.clear()
        return scale_for_engine(*args)

    layer_forward = LlamaDecoderLayer.forward
    train(load_run_config(plain), Console(quiet=True))
    with (
        patch.object(LlamaDecoderLayer, "forward", greedy_layer),
        patch("harness.loss.sum_losses", greedy_loss),
        patch("harness.micro_steps.scale_for_engine", forget),
    ):
        train(load_run_config(planted), Console(quiet=True))
