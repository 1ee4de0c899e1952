"""What memory a run is expected to take, told before its first step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from harness.batch_plan import BatchPlan
from harness.config import RunConfig
from harness.dist import World
from harness.flops import Kind
from harness.lean.layer import LeanLayer
from harness.memory.case import MemoryPlan
from harness.memory.predict import predict
from harness.memory.run_case import make_case, with_largest_batch
from harness.shapes import read_shape
from preprocess.errors import ConfigError


def predict_run(
    config: RunConfig,
    causal: nn.Module,
    attention: Kind,
    plan: BatchPlan,
    world: World,
    *,
    recompute_layers: int,
    num_steps: int,
    new_tokens: int,
) -> MemoryPlan | None:
    """Predict a rank's memory; None for a model whose sizes are not told by its configuration.

    Args:
        config: The run's.
        causal: The model with its adapter.
        attention: The kernel.
        plan: Which rows a step takes.
        world: This rank's place.
        recompute_layers: As it is now; a search may have found it.
        num_steps: Of the run.
        new_tokens: Token rows that are trained.
    """
    try:
        shape = read_shape(_settings(causal))
    except ConfigError:
        return None
    is_lean = any(isinstance(module, LeanLayer) for module in causal.modules())
    case = make_case(
        config,
        shape,
        attention,
        ranks=world.size,
        device="cpu" if world.device.type == "cpu" else "cuda",
        lora_kernel="lean" if is_lean else "peft",
        new_tokens=new_tokens,
    )
    case = replace(case, recompute_layers=recompute_layers)
    return predict(with_largest_batch(case, plan, world.rank, num_steps))


def _settings(causal: nn.Module) -> Any:  # noqa: ANN401 - a configuration of transformers
    return causal.config
