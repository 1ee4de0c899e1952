"""Is the memory that is planned from sizes the memory that torch counts, tensor by tensor?

Both are of one micro-step of the true shapes, on the harness's own model: planned by `harness.memory.activations`, and
counted operator by operator over fake tensors, which have shapes but take no memory. What an operator takes inside is
seen by neither (for a GPU's flash kernels the plan adds it, from their definitions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bench.counted_step import CountedStep, count_step
from bench.record import Outcome, WrongResultError, summarize
from harness.config import ATTENTION_AND_MLP
from harness.linear_flops import LoraShape
from harness.memory.activations import PassMemory, replay
from harness.memory.case import MemoryCase, ZeroSettings
from harness.memory.state import count_state
from harness.shapes import find_shape

MEAN_ERROR = 0.03
LARGEST_ERROR = 0.05
"""Shares of the counted peak that the plan may be off by."""

WITH_HEAD = (*ATTENTION_AND_MLP, "lm_head")
STRETCHES = ("forward", "loss", "backward")
LAYERS_OF_QUICK = 2


def make_case(
    shape: str,
    r: int,
    slots: int,
    supervised: int,
    *,
    head: bool = False,
    **others: Any,  # noqa: ANN401 - fields of MemoryCase
) -> MemoryCase:
    """One rank of one, on the CPU, so that no allowance is added."""
    lora = LoraShape(r, WITH_HEAD if head else ATTENTION_AND_MLP)
    settings: dict[str, Any] = {"zero": ZeroSettings(), "ranks": 1, "device": "cpu"} | others
    return MemoryCase(find_shape(shape), lora, slots=slots, supervised=supervised, **settings)


CASES: tuple[MemoryCase, ...] = (
    make_case("llama-3.2-3b", 128, 2048, 512),
    make_case("llama-3.2-3b", 128, 2048, 512, dropout=0.05),
    make_case("llama-3.2-3b", 128, 24 * 2048, 12_288, dropout=0.05),
    make_case("llama-3.2-3b", 128, 8 * 2048, 4096, head=True),
    make_case("llama-3.2-3b", 128, 8 * 2048, 4096, head=True, dropout=0.05, loss_chunk=512),
    make_case("llama-3.2-3b", 16, 4 * 1024, 4096, recompute_layers=14),
    make_case("llama-3.2-3b", 128, 24 * 2048, 12_288, recompute_layers=28, dropout=0.05),
    make_case("llama-3.2-3b", 128, 2048, 512, lora_kernel="peft"),
    make_case("llama-3.2-3b", 128, 4 * 2048, 512, lora_kernel="peft", dropout=0.05),
    make_case("llama-3.2-3b", 128, 4 * 2048, 2048, lora_kernel="peft", recompute_layers=14, dropout=0.05),
    make_case("llama-3.2-3b", 128, 4 * 2048, 2048, attention="sdpa", row_slots=2048),
    make_case("llama-3.2-3b", 64, 2 * 1024, 512, attention="sdpa", row_slots=1024, lora_kernel="peft"),
    make_case("llama-3.2-3b", 128, 4 * 2048, 2048, fp8=True),
    make_case("mistral-7b", 128, 4 * 2048, 2048, dropout=0.05),
    make_case("mistral-7b", 128, 8 * 2048, 16_384, head=True, loss_chunk=2048, recompute_layers=8),
    make_case("mistral-7b", 64, 4096, 1024, lora_kernel="peft", recompute_layers=32),
    make_case("llama-3.2-1b", 128, 8 * 2048, 4096, precision="fp32"),
    make_case("qwen2.5-0.5b", 32, 16 * 1024, 4096, dropout=0.1),
    make_case("smollm2-135m", 16, 4096, 1024, precision="fp32", dropout=0.05),
)
"""Shapes, precisions, ranks, dropout, recomputation, tokens, supervised shares, chunks, heads, kernels."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A case with both counts."""

    case: MemoryCase
    planned: PassMemory
    counted: CountedStep

    @property
    def kept_error(self) -> float:
        """Of what the body's forward pass keeps."""
        return self.planned.kept / self.counted.kept - 1

    def error(self, stretch: str) -> float:
        """Of a stretch's peak, of what the step makes alone."""
        return self.planned.total(stretch) / self.counted.peaks[stretch] - 1

    @property
    def peak_error(self) -> float:
        """Of the step's peak, of what the step makes alone."""
        planned = max(self.planned.total(stretch) for stretch in STRETCHES)
        return planned / max(self.counted.peaks.values()) - 1

    @property
    def whole_error(self) -> float:
        """Of the step's peak with weights, gradients and optimizer state, which are the same on both sides."""
        step = max(self.counted.peaks.values())
        return self.peak_error * step / (step + state_bytes(self.case))


def state_bytes(case: MemoryCase) -> int:
    """Weights, gradients, masters and moments."""
    state = count_state(case)
    weights = state.frozen_weights + state.lora_weights
    return weights + state.gradients + state.master_weights + state.optimizer_states


def compare(case: MemoryCase) -> Comparison:
    """Plan a case and count it."""
    return Comparison(case, replay(case), count_step(case))


def name_case(case: MemoryCase) -> str:
    """What tells a case apart, in a line."""
    assert case.lora is not None
    shape = case.shape
    parts = [
        f"H {shape.hidden_size} x {shape.num_layers}",
        f"r {case.lora.r}",
        case.lora_kernel,
        case.attention,
    ]
    parts += [case.precision, f"{case.slots} tokens", f"{case.supervised} supervised by {case.loss_chunk}"]
    extras = {
        f"dropout {case.dropout:g}": case.dropout > 0,
        f"{case.recompute_layers} recomputed": case.recompute_layers > 0,
        "head LoRA": "lm_head" in case.lora.targets,
        "fp8": case.fp8,
    }
    return ", ".join([*parts, *(name for name, has in extras.items() if has)])


def measure(*, quick: bool) -> Outcome:
    """Every case planned and counted; `quick` with two layers of each model.

    Raises:
        WrongResultError: The plan is further off than it may be.
    """
    found = [compare(_shorten(case) if quick else case) for case in CASES]
    check_errors([abs(one.peak_error) for one in found])
    return Outcome(
        baseline="counted",
        figures=_figures(found),
        ratios={},
        facts={**{name_case(one.case): describe(one) for one in found}, **_estimates()},
    )


def check_errors(errors: list[float]) -> None:
    """Compare with what the plan may be off by.

    Raises:
        WrongResultError: It is off by more.
    """
    mean, largest = sum(errors) / len(errors), max(errors)
    if mean > MEAN_ERROR or largest > LARGEST_ERROR:
        raise WrongResultError(f"planned memory is off by {mean:.2%} in the mean, {largest:.2%} at most")


def describe(one: Comparison) -> str:
    """Planned and counted MiB, stretch by stretch."""
    peaks = (
        f"{stretch} {one.planned.total(stretch) / 2**20:,.1f} planned, {one.counted.peaks[stretch] / 2**20:,.1f} "
        f"counted ({one.error(stretch):+.3%})"
        for stretch in STRETCHES
    )
    kept = f"kept {one.planned.kept:,} planned, {one.counted.kept:,} counted ({one.kept_error:+.4%})"
    return f"{'; '.join(peaks)} MiB; {kept} bytes; with state {one.whole_error:+.4%}"


def _figures(found: list[Comparison]) -> dict[str, Any]:
    figures = {
        "error of the step's peak": [abs(one.peak_error) for one in found],
        "error of the peak with state": [abs(one.whole_error) for one in found],
        "error of what is kept": [abs(one.kept_error) for one in found],
    }
    figures |= {f"error of {name}'s peak": [abs(one.error(name)) for one in found] for name in STRETCHES}
    worst = {f"largest {name}": [max(values)] for name, values in figures.items()}
    mean = {f"mean {name}": [sum(values) / len(values)] for name, values in figures.items()}
    every = figures | mean | worst
    return {name: summarize([100 * value for value in values], "%") for name, values in every.items()}


def _shorten(case: MemoryCase) -> MemoryCase:
    layers = min(LAYERS_OF_QUICK, case.shape.num_layers)
    recomputed = min(case.recompute_layers, layers if case.recompute_layers == case.shape.num_layers else 1)
    return replace(case, shape=replace(case.shape, num_layers=layers), recompute_layers=recomputed)


def _estimates() -> dict[str, float | int | str]:
    """What DeepSpeed's own estimator says of model states on three ranks, beside ours, in GiB."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as estimate_3
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as estimate_2

    facts: dict[str, float | int | str] = {}
    for stage in (2, 3):
        case = make_case("llama-3.2-3b", 128, 2048, 512, zero=ZeroSettings(stage=stage), ranks=3)
        total = case.shape.num_weights + count_state(case).lora_weights // case.value_bytes
        layer = case.shape.num_body_weights // case.shape.num_layers
        if stage == 2:
            _, theirs = estimate_2(total, num_gpus_per_node=1, num_nodes=3, cpu_offload=False)
        else:
            _, theirs, _ = estimate_3(
                total, layer, num_gpus_per_node=1, num_nodes=3, cpu_offload=False, cpu_offload_params=False
            )
        name = f"Llama-3.2-3B, r 128, three ranks, ZeRO-{stage}, states"
        facts[f"{name}: DeepSpeed's estimator gib"] = theirs / 2**30
        facts[f"{name}: planned gib"] = state_bytes(case) / 2**30
    return facts
