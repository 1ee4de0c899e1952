"""The engine on two ranks: exact over any number of micro-steps, unharmed by what is not finite, and frugal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.config import DataSettings, ModelSettings, Precision, RunConfig
from harness.dist import World
from harness.engine import build_engine
from harness.step import Fault, explain_faults, find_faults
from preprocess.errors import ConfigError
from tests.dist_ranks import run_ranks
from tests.engine_ranks import (
    Case,
    Outcome,
    Poison,
    make_model,
    make_root,
    run_cases,
    without_poison,
)
from tests.engine_reference import run_reference
from tests.engine_sums import compare_sums, measure_sums, run_cases_scaled_early

RANKS = 2
STAGES = range(4)
INFINITE = float("inf")
TRAINED = 8192
"""Numbers in the toy's adapter."""


def spoiled(stage: int, precision: Precision) -> Case:
    """A loss that is not finite in step 1 on one rank, a gradient in step 2 on the other."""
    poison = (Poison(1, 1, "loss"), Poison(2, 0, "gradient", INFINITE))
    return Case(stage, precision, (1, 3, 1, 2), poison=poison)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("engine"))


class Runs:
    """What cases did, by case; each is run once."""

    def __init__(self, root: Path, cases: list[Case], ranks: int = RANKS) -> None:
        self.cases = cases
        self.of_ranks = run_ranks(run_cases, ranks, root, cases, timeout_s=400)

    def of(self, case: Case, rank: int = 0) -> Outcome:
        return self.of_ranks[rank][self.cases.index(case)]


@pytest.fixture(scope="module")
def runs(root: Path) -> Runs:
    cases = [case for stage in STAGES for case in (Case(stage), spoiled(stage, "fp32"))]
    cases.append(Case(3, lean=True))
    return Runs(root, [*cases, *(without_poison(case) for case in cases if case.poison)])


@pytest.fixture(scope="module")
def half_runs(root: Path) -> Runs:
    cases = [case for stage in STAGES for case in (Case(stage, "bf16"), spoiled(stage, "bf16"))]
    return Runs(root, [*cases, *(without_poison(case) for case in cases if case.poison)])


@pytest.fixture(scope="module")
def reference(root: Path) -> Outcome:
    return run_reference(root, Case(0), RANKS)


def losses(outcome: Outcome) -> list[float]:
    return [result.loss for result in outcome.results]


def norms(outcome: Outcome) -> list[float]:
    return [result.grad_norm for result in outcome.results]


@pytest.mark.parametrize("stage", STAGES)
def test_steps_of_one_three_and_two_micro_steps_are_those_of_torch_alone(
    runs: Runs, reference: Outcome, stage: int
) -> None:
    outcome = runs.of(Case(stage))
    assert losses(outcome) == pytest.approx(losses(reference), rel=1e-5)
    assert norms(outcome) == pytest.approx(norms(reference), rel=1e-4)
    np.testing.assert_allclose(outcome.weights, reference.weights, rtol=0, atol=1e-4)
    assert np.array_equal(outcome.weights, runs.of(Case(stage), rank=1).weights)


def test_lean_layers_take_the_same_steps_under_zero3(runs: Runs, reference: Outcome) -> None:
    outcome = runs.of(Case(3, lean=True))
    assert losses(outcome) == pytest.approx(losses(reference), rel=1e-5)
    np.testing.assert_allclose(outcome.weights, reference.weights, rtol=0, atol=1e-4)


def test_a_mean_of_means_would_not_pass_as_the_same(root: Path, reference: Outcome) -> None:
    wrong = run_reference(root, Case(0), RANKS, means_of_means=True)
    assert norms(wrong) != pytest.approx(norms(reference), rel=1e-2)
    assert not np.allclose(wrong.weights, reference.weights, rtol=0, atol=1e-3)


def test_losses_by_task_add_up_to_the_loss_of_all_ranks(runs: Runs) -> None:
    for result in runs.of(Case(1)).results:
        loss, tokens = result.by_task.sum(axis=0)
        assert result.by_task.shape == (4, 2)
        assert np.array_equal(result.by_task[:, 1] > 0, result.examples > 0)
        assert result.examples.sum() == result.counts.examples > 0
        assert tokens == result.counts.supervised_tokens
        assert loss / tokens == result.loss
    seen = np.stack([result.examples for result in runs.of(Case(1)).results])
    assert seen.any(axis=0).all()


@pytest.mark.parametrize("stage", STAGES)
def test_a_spoiled_step_leaves_every_bit_as_if_it_had_not_been(runs: Runs, stage: int) -> None:
    check_spoiled(runs, spoiled(stage, "fp32"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_spoiled_step_in_bf16_leaves_every_bit_as_if_it_had_not_been(half_runs: Runs, stage: int) -> None:
    check_spoiled(half_runs, spoiled(stage, "bf16"))


def check_spoiled(runs: Runs, case: Case) -> None:
    for rank in range(RANKS):
        outcome, expected = runs.of(case, rank), runs.of(without_poison(case), rank)
        assert [result.applied for result in outcome.results] == [True, False, False, True]
        assert outcome.results[-1].loss == expected.results[-1].loss
        assert outcome.results[-1].grad_norm == expected.results[-1].grad_norm
        assert outcome.state == expected.state
        assert outcome.state != runs.of(Case(case.stage, case.precision), rank).state
        _, loss, gradient, _ = outcome.results
        assert loss.faults == (*(Fault(1, micro) for micro in range(3)), Fault(1, None))
        assert gradient.reason == "the gradient on rank 0 is not finite"
        assert np.isnan(loss.loss)
        assert np.isfinite(gradient.loss)
        assert not any(result.overflowed for result in outcome.results)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_gradients_are_reduced_once_a_step_and_frozen_weights_never_gathered(runs: Runs, stage: int) -> None:
    collectives = runs.of(Case(stage)).watched.collectives  # of a step of two micro-steps
    large = [(name, numel) for name, numel in collectives if numel > 100]
    gathered = [("_allgather_base_", TRAINED)] if stage else []
    assert large == [("allreduce_", TRAINED), *gathered]
    assert len(collectives) <= 4


def test_under_zero3_gradients_are_reduced_once_a_step(runs: Runs) -> None:
    collectives = runs.of(Case(3)).watched.collectives
    assert [numel for name, numel in collectives if name == "_reduce_scatter_base_"] == [TRAINED]
    small = [name for name, numel in collectives if numel <= 100]
    assert small == ["allreduce_"] * 2  # the step's sums and the gradient's norm; none for a micro-step


@pytest.mark.parametrize("stage", STAGES)
def test_the_host_waits_for_the_device_three_times_a_step_at_most(runs: Runs, stage: int) -> None:
    assert runs.of(Case(stage)).watched.reads <= 3


@pytest.mark.parametrize("stage", STAGES)
def test_the_optimizer_holds_twelve_bytes_for_each_trained_weight_and_none_for_a_frozen_one(
    runs: Runs, stage: int
) -> None:
    own = TRAINED // (RANKS if stage else 1)
    padding = 1024  # ZeRO's alignment, and Adam's counts of steps
    assert 12 * own <= runs.of(Case(stage)).held_bytes <= 12 * own + padding


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_one_and_three_ranks_take_the_steps_of_torch_alone(root: Path, ranks: int) -> None:
    reference = run_reference(root, Case(0), ranks)
    cases = [Case(stage) for stage in STAGES]
    runs = Runs(root, cases, ranks)
    for case in cases:
        assert losses(runs.of(case)) == pytest.approx(losses(reference), rel=1e-5)
        np.testing.assert_allclose(runs.of(case).weights, reference.weights, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_adam_gets_bf16_gradients_added_up_over_micro_steps_and_ranks_without_rounding(
    root: Path, ranks: int
) -> None:
    cases = [Case(stage, "bf16", (16,)) for stage in STAGES]
    in_bf16 = [Case(stage, "bf16", (16,), communication="bf16") for stage in STAGES]
    of_ranks = run_ranks(measure_sums, ranks, root, [*cases, *in_bf16])
    errors = [
        compare_sums(sums, case.stage) for case, *sums in zip([*cases, *in_bf16], *of_ranks, strict=True)
    ]
    for error, error_in_bf16 in errors[: len(cases)]:
        assert error < 1e-6
        assert error_in_bf16 > 1e-3  # what adding up in bf16 would have done to the same gradients
    for case, (error, _) in zip(in_bf16, errors[len(cases) :], strict=True):
        # What travels in bf16 is rounded, as DeepSpeed's JSON asks for; without ZeRO nothing travels on one rank.
        assert (error > 1e-3) == (ranks > 1 or case.stage > 0)


@pytest.mark.slow
def test_zero0_in_bf16_takes_the_same_steps_as_zero1(half_runs: Runs) -> None:
    one, other = half_runs.of(Case(0, "bf16")), half_runs.of(Case(1, "bf16"))
    assert losses(one) == pytest.approx(losses(other), rel=1e-4)
    assert norms(one) == pytest.approx(
        norms(other), rel=3e-4
    )  # without ZeRO it is that of gradients rounded to bf16


@pytest.mark.slow
def test_fp16_lowers_its_scale_until_gradients_fit_and_then_trains_as_float32(
    root: Path, reference: Outcome
) -> None:
    """The first scales are far too high: gradients overflow, and only then the steps are those of float32."""
    wait = (1,) * 10
    cases = [Case(stage, "fp16", (*wait, 1, 3, 2), first_scale_power=22) for stage in STAGES]
    fitting = [Case(stage, "fp16") for stage in STAGES]
    runs = Runs(root, [*cases, *fitting])
    for case in cases:
        applied = [result.applied for result in runs.of(case).results]
        skips = applied.index(True)
        assert 1 <= skips <= len(wait)
        assert all(applied[skips:])
        first = runs.of(case).results[0]
        assert first.overflowed
        assert first.reason is not None
        assert first.reason.startswith("gradients overflow fp16 at loss scale 4.1943e+06")
    for case in fitting:
        assert losses(runs.of(case)) == pytest.approx(losses(reference), rel=1e-3)
        assert norms(runs.of(case))[0] == pytest.approx(norms(reference)[0], rel=1e-3)
        assert norms(runs.of(case)) == pytest.approx(norms(reference), rel=5e-2)


@pytest.mark.slow
def test_a_step_whose_loss_scale_grows_is_that_of_a_scale_that_stays(root: Path) -> None:
    stages, steps = (0, 1, 3), (1,) * 5
    constant = [Case(stage, "fp16", steps, first_scale_power=10) for stage in stages]
    growing = [replace(case, scale_window=2) for case in constant]
    (outcomes,) = run_ranks(run_cases, 1, root, [*constant, *growing])
    (early,) = run_ranks(run_cases_scaled_early, 1, root, growing)
    for one, other, wrong in zip(outcomes[:3], outcomes[3:], early, strict=True):
        assert (one.loss_scale, other.loss_scale, wrong.loss_scale) == (2**10, 2**12, 2**12)
        assert norms(other) == pytest.approx(norms(one), rel=1e-3)
        np.testing.assert_allclose(other.weights, one.weights, rtol=0, atol=1e-3)
        assert not np.allclose(wrong.weights, one.weights, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_weight_decay_in_bf16_shrinks_the_weights_equally_with_and_without_zero(root: Path) -> None:
    cases = [Case(stage, "bf16", (1, 1), weight_decay=decay) for stage in (0, 1) for decay in (0.5, 0.0)]
    (outcomes,) = run_ranks(run_cases, 1, root, cases)
    plain, _, zero, without = outcomes
    assert losses(plain) == pytest.approx(losses(zero), rel=1e-5)
    assert norms(plain) == pytest.approx(norms(zero), rel=3e-4)
    np.testing.assert_allclose(plain.weights, zero.weights, rtol=1e-6)
    shrunk = np.linalg.norm(zero.weights - without.weights) / np.linalg.norm(without.weights)
    assert shrunk == pytest.approx(1e-2, rel=0.2)  # by 0.5 times the learning rate, twice; in bf16


def test_a_second_place_that_sums_gradients_is_refused(root: Path) -> None:
    path = root / "sums.json"
    path.write_text(json.dumps({"data_types": {"grad_accum_dtype": "fp32"}}))
    config = RunConfig(
        output_dir=root,
        model=ModelSettings(path="unused"),
        data=DataSettings(path=root),
        deepspeed=str(path),
    )
    world = World(0, 1, 0, torch.device("cpu"))
    with pytest.raises(ConfigError, match="grad_accum_dtype is the harness"):
        build_engine(make_model(root, "fp32"), config, world)


def test_faults_are_found_by_rank_and_micro_step() -> None:
    found = find_faults(np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]))
    assert found == (Fault(1, 1), Fault(0, None))
    assert explain_faults(found) == "the loss of micro-step 2 on rank 1 is not finite"
    assert explain_faults(found[1:]) == "the gradient on rank 0 is not finite"
    assert find_faults(np.zeros((2, 2)), np.zeros(2)) == ()


def test_many_faults_are_named_in_part() -> None:
    many = tuple(Fault(rank, 0) for rank in range(9))
    assert explain_faults(many).endswith("on rank 3 and 5 more are not finite")
