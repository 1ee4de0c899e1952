"""Planned memory phase by phase: what is in each, what moves it, and what is an assumption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.memory import check_errors, make_case
from bench.record import WrongResultError
from harness.memory.activations import batch_bytes, replay
from harness.memory.case import PHASES, MemoryCase
from harness.memory.predict import COMMUNICATOR_BYTES, context_bytes, predict
from harness.memory.state import count_state


def plan_case(**others: Any) -> MemoryCase:
    return make_case("llama-3.2-3b", 128, 8 * 2048, 4096, **({"device": "cuda"} | others))


def test_every_phase_is_planned_in_order() -> None:
    assert tuple(phase.phase for phase in predict(plan_case()).phases) == PHASES


def test_on_a_cpu_nothing_is_assumed() -> None:
    case = plan_case(device="cpu")
    for phase in predict(case).phases:
        assert phase.parts.get("context", 0) == phase.parts.get("fragmentation", 0) == 0
    assert context_bytes(case) == 0


def test_the_backward_pass_is_state_and_what_is_replayed() -> None:
    case = plan_case(device="cpu")
    state, phases = count_state(case), {phase.phase: phase for phase in predict(case).phases}
    resident = state.frozen_weights + state.lora_weights + state.master_weights + state.optimizer_states
    expected = (
        resident + state.gradients + state.gathered + batch_bytes(case) + replay(case).total("backward")
    )
    assert phases["backward"].total == expected
    assert phases["load"].total == state.frozen_weights


@pytest.mark.parametrize(
    "more",
    [
        {"dropout": 0.05},
        {"slots": 9 * 2048},
        {"lora_kernel": "peft"},
        {"supervised": 8192},
        {"precision": "fp32"},
        {"attention": "sdpa"},
    ],
)
def test_what_costs_memory_raises_the_peak(more: dict[str, Any]) -> None:
    case = plan_case()
    assert predict(replace(case, **more)).peak.total > predict(case).peak.total


@pytest.mark.parametrize("less", [{"recompute_layers": 1}, {"recompute_layers": 28}, {"loss_chunk": 256}])
def test_what_saves_memory_lowers_the_peak(less: dict[str, Any]) -> None:
    case = plan_case()
    assert predict(replace(case, **less)).peak.total < predict(case).peak.total


def test_communicators_are_for_several_ranks() -> None:
    assert context_bytes(plan_case(ranks=3)) - context_bytes(plan_case()) == COMMUNICATOR_BYTES


def test_evaluation_keeps_no_layer() -> None:
    phases = {phase.phase: phase for phase in predict(plan_case()).phases}
    assert phases["eval"].parts["activations"] == batch_bytes(plan_case())
    assert phases["eval"].total < phases["forward"].total


def test_a_plan_that_is_too_far_off_is_no_result() -> None:
    check_errors([0.049, 0.001])
    with pytest.raises(WrongResultError, match=r"5\.10% at most"):
        check_errors([0.051, 0.0])
    with pytest.raises(WrongResultError, match=r"4\.00% in the mean"):
        check_errors([0.04, 0.04])
