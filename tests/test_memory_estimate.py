"""The search's first guess, against the plan that it is taken from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.linear_flops import LoraShape
from harness.memory.case import MemoryCase, Part, ZeroSettings
from harness.memory.estimate import Estimate
from harness.memory.predict import predict
from harness.shapes import find_shape
from harness.throughput import StepCounts

STATE = 5e9
CASE = MemoryCase(
    find_shape("llama-3.2-3b"), LoraShape(128, ("q_proj", "down_proj")), ZeroSettings(), 3, 1, 1, device="cpu"
)
ROW = StepCounts(
    rows=1, examples=5, tokens=2000, supervised_tokens=500, slots=2048, attention_pairs=1_000_000
)


def planned(rows: int, layers: int) -> float:
    """The plan's own peak of a pass, beyond weights and optimizer."""
    case = replace(CASE, slots=rows * 2048, supervised=rows * 500, row_slots=2048, recompute_layers=layers)
    state: tuple[Part, ...] = (
        "frozen_weights",
        "lora_weights",
        "gradients",
        "master_weights",
        "optimizer_states",
    )
    passes = [one for one in predict(case).phases if one.phase in ("forward", "loss", "backward")]
    return max(one.total - sum(one.parts.get(part, 0) for part in state) for one in passes)


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_without_and_with_all_recomputation_the_guess_is_the_plans(rows: int) -> None:
    estimate = Estimate(CASE, ROW, STATE, 0.0)
    for layers in (0, 28):
        assert estimate.predict_bytes(rows, layers) - STATE == pytest.approx(planned(rows, layers), rel=0.02)


@pytest.mark.parametrize("layers", [1, 7, 14, 27])
def test_in_between_it_is_near(layers: int) -> None:
    assert Estimate(CASE, ROW, 0.0, 0.0).predict_bytes(4, layers) == pytest.approx(
        planned(4, layers), rel=0.15
    )


def test_recomputation_takes_less_memory_and_more_time() -> None:
    estimate = Estimate(CASE, ROW, STATE, 0.0)
    assert estimate.predict_bytes(4, 28) < estimate.predict_bytes(4, 14) < estimate.predict_bytes(4, 0)
    assert estimate.predict_seconds(4, 28) > estimate.predict_seconds(4, 14) > estimate.predict_seconds(4, 0)


def test_no_choice_takes_less_than_a_steps_end() -> None:
    end = STATE + planned(1, 14)
    estimate = Estimate(CASE, ROW, STATE, end)
    assert estimate.predict_bytes(1, 28) == end
    assert estimate.predict_bytes(1, 0) > end
