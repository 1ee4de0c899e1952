"""What a run's memory was to be, rank by rank, for the run to write beside what it measures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

from harness.lean.layer import LeanLayer
from harness.memory.case import MemoryPlan
from harness.memory.predict import predict
from harness.memory.run_case import make_case, with_largest_batch
from harness.shapes import read_shape

if TYPE_CHECKING:
    import torch

    from harness.attention.choice import Kind
    from harness.batch_plan import BatchPlan
    from harness.config import RunConfig
    from harness.loss import ForestLanguageModel


def plan_run(
    config: RunConfig,
    model: ForestLanguageModel,
    plan: BatchPlan,
    *,
    attention: Kind,
    recompute_layers: int,
    num_steps: int,
    ranks: int,
    device: torch.device,
    new_tokens: int = 0,
) -> list[MemoryPlan]:
    """Predict each rank's memory from the sizes that the run has, in rank order.

    Args:
        config: The run's.
        model: Tells the shape, and which LoRA kernel its layers really have.
        plan: Which rows a step takes.
        attention: The kernel in use.
        recompute_layers: In use.
        num_steps: Of the run.
        ranks: In all.
        device: What computes.
        new_tokens: Token rows that are trained.

    Raises:
        ConfigError: The model's configuration does not tell a size.
    """
    is_lean = any(isinstance(module, LeanLayer) for module in model.modules())
    kernel: Literal["lean", "peft"] = "lean" if is_lean else "peft"
    case = make_case(
        config,
        read_shape(cast("Any", model.causal).config),
        attention,
        ranks=ranks,
        device="cuda" if device.type == "cuda" else "cpu",
        lora_kernel=kernel,
        new_tokens=new_tokens,
    )
    case = replace(case, recompute_layers=recompute_layers)
    return [predict(with_largest_batch(case, plan, rank, num_steps)) for rank in range(ranks)]
