"""The memory case of a run that is at hand, from its settings and the rows that it will take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from harness.config import RunConfig
from harness.deepspeed_config import load_deepspeed_config
from harness.flops import Kind, LoraShape
from harness.memory.case import MemoryCase, ZeroSettings
from harness.shapes import ModelShape
from preprocess.schema import Int32Array

if TYPE_CHECKING:
    from harness.batch_plan import BatchPlan

STEPS_LOOKED_THROUGH = 200
"""Steps of which the largest micro-batch is looked for, from the start: dealing out a step takes some microseconds a
row, and later steps of a shuffled order are like the first."""


def make_case(
    config: RunConfig,
    shape: ModelShape,
    attention: Kind,
    *,
    ranks: int,
    device: Literal["cuda", "cpu"],
    lora_kernel: Literal["lean", "peft"],
    new_tokens: int = 0,
) -> MemoryCase:
    """What memory follows from, but for the micro-batch: it has one slot.

    Args:
        config: The run's.
        shape: The model's sizes.
        attention: The kernel that was chosen.
        ranks: In all.
        device: What computes.
        lora_kernel: The one that is in use, which may not be the one that was asked for.
        new_tokens: Token rows that are trained.
    """
    model = config.model
    layers = shape.num_layers if model.recompute_layers == "all" else model.recompute_layers
    return MemoryCase(
        shape=shape,
        lora=LoraShape(config.lora.r, config.lora.targets),
        zero=ZeroSettings.read(load_deepspeed_config(config.deepspeed)),
        ranks=ranks,
        slots=1,
        supervised=1,
        precision=model.precision,
        recompute_layers=min(layers, shape.num_layers),
        dropout=config.lora.dropout,
        attention=attention,
        loss_chunk=model.loss_chunk,
        lora_kernel=lora_kernel,
        fp8=model.fp8,
        compile=model.compile,
        new_tokens=new_tokens,
        device=device,
    )


def with_largest_batch(case: MemoryCase, plan: BatchPlan, rank: int, num_steps: int) -> MemoryCase:
    """The case with the micro-batch that takes the most on a rank.

    Args:
        case: Of the run.
        plan: Which rows a step takes.
        rank: Whose micro-batches.
        num_steps: Of the run; the first `STEPS_LOOKED_THROUGH` are looked through.
    """
    padded = case.attention in ("sdpa", "eager")
    cases = (
        _with_rows(case, plan.sizes.tokens[rows], int(plan.sizes.supervised[rows].sum()), padded=padded)
        for step in range(min(num_steps, STEPS_LOOKED_THROUGH))
        for rows in plan.rows_of_rank(step, rank)
        if len(rows)
    )
    return max(cases, key=lambda one: (one.slots, one.supervised), default=case)


def _with_rows(case: MemoryCase, tokens: Int32Array, supervised: int, *, padded: bool) -> MemoryCase:
    longest = int(tokens.max())
    slots = longest * len(tokens) if padded else int(tokens.sum())
    return replace(case, slots=slots, supervised=supervised, row_slots=longest)
