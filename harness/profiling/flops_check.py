"""The harness's count of FLOPs held against DeepSpeed's, on one forward pass that changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.data import MicroBatch
from harness.memory.case import MemoryCase
from harness.metering.efficiency import count_case_flops
from harness.micro_steps import attempt, common_chunks
from harness.profiling.deepspeed_flops import count_with_deepspeed
from harness.profiling.summary import FlopsCheck

if TYPE_CHECKING:
    from harness.run import Run

AGREES = 0.02
"""Two counts that differ by less are told as the same."""


def check_flops(run: Run, step: int) -> FlopsCheck | str:
    """Count the forward pass of a step's first micro-batch both ways; every rank must call this, for ZeRO-3 gathers.

    The pass computes no gradient and draws no random number that the run would miss.

    Args:
        run: The run.
        step: Of which step, from 1.

    Returns:
        The counts, or why there are none.
    """
    case = run.fit.case
    with run.load_steps(run.train_split, step - 1, step) as steps:
        batch = next(steps).batches[0]
    counted: list[tuple[float, float]] = []
    reason = attempt(run.engine, lambda: counted.append(_count(run, batch, step)))
    if reason is not None:
        return f"no forward pass for DeepSpeed's FLOPs profiler: {reason}"
    if case is None:
        return "the harness does not know this model's sizes, so it has no count of FLOPs to hold DeepSpeed's against"
    ours = count_forward(case, batch)
    flops, products = counted[0]
    ratio = products / ours
    return FlopsCheck(step, ours, flops, products, ratio, explain(case, ratio))


def _count(run: Run, batch: MicroBatch, step: int) -> tuple[float, float]:
    engine, on_device = run.engine, batch.to(run.world.device)
    was_training = engine.module.training
    chunks = run.train_split.passes_through_head(step - 1, run.config.model.loss_chunk)[0]
    common = common_chunks(engine, on_device, chunks)
    devices = [run.world.device] if run.world.device.type == "cuda" else []
    engine.eval()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            return count_with_deepspeed(engine.module, lambda: engine(on_device, num_chunks=common))
    finally:
        engine.train(was_training)


def count_forward(case: MemoryCase, batch: MicroBatch) -> float:
    """FLOPs of a micro-batch's forward pass from its sizes, as the hardware computes it."""
    num_rows, num_slots = batch.input_ids.shape
    parts = count_case_flops(case, batch.counts, num_rows * num_slots**2).hardware
    return float(parts.forward_base + parts.forward_lora + parts.forward_attention + parts.head_forward)


def explain(case: MemoryCase, ratio: float) -> str:
    """Why DeepSpeed's count is what it is beside ours."""
    if abs(ratio - 1) < AGREES:
        return "they agree"
    reasons = []
    if case.attention in ("flash", "flex"):
        reasons.append(
            f"attention ({case.attention}) is an operator of its own, which DeepSpeed does not know"
        )
    if case.lora_kernel == "lean":
        reasons.append(
            "the lean layers' autograd functions call `linear` by a name bound before DeepSpeed put its own in "
            "its place, and add adapters in place (`addmm_`), which it does not stand in for"
        )
    if case.compile:
        reasons.append("compiled layers call kernels, not the functions that DeepSpeed stands in for")
    if case.fp8:
        reasons.append(
            "float8 products (torch._scaled_mm) are not among the functions that DeepSpeed stands in for"
        )
    return "; ".join(reasons) or "not explained by attention, layers, compilation or float8"
