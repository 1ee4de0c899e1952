"""What memory a run is expected to take, told from its model and its rows before the first step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from torch import nn

from harness.batch_plan import BatchPlan
from harness.config import RunConfig
from harness.dist import World
from harness.flops import Kind
from harness.lean.layer import LeanLayer
from harness.memory.case import MemoryCase, MemoryPlan
from harness.memory.predict import predict
from harness.memory.run_case import make_case, with_largest_batch
from harness.shapes import check_kind, read_shape
from preprocess.errors import ConfigError


def read_case(
    config: RunConfig, causal: nn.Module, attention: Kind, world: World, *, new_tokens: int
) -> MemoryCase | None:
    """The memory case of a model that is ready for the engine; None where its sizes do not tell its layers.

    Args:
        config: The run's.
        causal: The model with its adapter.
        attention: The kernel.
        world: This rank's place.
        new_tokens: Token rows that are trained.
    """
    settings = cast("Any", causal).config
    try:
        check_kind(settings)
        shape = read_shape(settings)
    except ConfigError:
        return None
    is_lean = any(isinstance(module, LeanLayer) for module in causal.modules())
    return make_case(
        config,
        shape,
        attention,
        ranks=world.size,
        device="cpu" if world.device.type == "cpu" else "cuda",
        lora_kernel="lean" if is_lean else "peft",
        new_tokens=new_tokens,
    )


def predict_run(
    case: MemoryCase, plan: BatchPlan, rank: int, *, recompute_layers: int, num_steps: int
) -> MemoryPlan:
    """Predict a rank's memory over a run.

    Args:
        case: Of the run.
        plan: Which rows a step takes.
        rank: Whose memory.
        recompute_layers: As it is now; a search may have found it.
        num_steps: Of the run.
    """
    now = replace(case, recompute_layers=recompute_layers)
    return predict(with_largest_batch(now, plan, rank, num_steps))
