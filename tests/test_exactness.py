"""Training through DeepSpeed on several ranks against every example alone in one process, in float64 and in bf16."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch

from bench import exactness
from bench.exactness import Result
from bench.exactness.cases import (
    CHOICES,
    MICRO_STEPS,
    RANKS,
    SEED,
    STAGES,
    Case,
    Float64Array,
    Step,
    make_controls,
    make_matrix,
    make_quick_matrix,
    pairs_of,
)
from bench.exactness.compare import (
    BF16_FACTOR,
    CONTROL_FLOOR,
    NORM_TOLERANCE,
    TOLERANCE,
    Errors,
    Reference,
    compare_losses,
    worst,
)
from bench.exactness.production import run_cases
from bench.exactness.reference import SlowModel
from bench.exactness.toys import exact_transformers, make_rows
from bench.record import WrongResultError
from harness.step import step_seed
from preprocess.forest import PackedRow, unpack_examples
from tests.dist_ranks import run_ranks

MATRIX = make_matrix()
QUICK = [*make_quick_matrix(), *make_controls()]


def compare_on_ranks(cases: list[Case], timeout_s: float) -> list[Result]:
    (world_size,) = {case.ranks for case in cases}
    ranks = run_ranks(run_cases, world_size, cases, timeout_s=timeout_s)
    reference = Reference()
    return [(case, reference.judge(case, [rank[i] for rank in ranks])) for i, case in enumerate(cases)]


@pytest.fixture(scope="module")
def quick() -> list[Result]:
    """Runs on two ranks, with all negative controls."""
    return compare_on_ranks(QUICK, 300)


def test_steps_on_two_ranks_in_float64_equal_every_example_alone(quick: list[Result]) -> None:
    exact = [
        (case, errors)
        for case, errors in quick
        if case.precision == "float64" and case.optimizer == "descent" and not case.sabotage
    ]
    assert {case.stage for case, _ in exact} == set(STAGES)
    assert {case.micro_steps for case, _ in exact} == set(MICRO_STEPS)
    for name, values in CHOICES.items():
        assert {getattr(case, name) for case, _ in exact} == set(values), name
    for case, errors in exact:
        assert errors.loss <= TOLERANCE, case
        assert errors.evaluation <= TOLERANCE, case
        assert errors.matrix <= TOLERANCE, case
        assert errors.within_bounds(case), case


def test_weights_that_adamw_moves_with_clipped_gradients_go_the_way_that_they_go_alone(
    quick: list[Result],
) -> None:
    clipped = [(case, errors) for case, errors in quick if case.optimizer == "adamw"]
    assert clipped
    for case, errors in clipped:
        assert errors.matrix <= NORM_TOLERANCE, case
        assert errors.within_bounds(case), case
        assert not replace(errors, matrix=1e-5).within_bounds(case)


def test_a_step_in_bf16_is_as_near_as_bf16_comes(quick: list[Result]) -> None:
    rough = [(case, errors) for case, errors in quick if case.precision == "bf16"]
    assert rough
    for case, errors in rough:
        assert 1e-4 < errors.alone < 0.1, case  # bf16 does cost something, so the bound is one
        assert errors.gradient <= BF16_FACTOR * errors.alone, case
        assert errors.within_bounds(case), case


def test_every_mistake_made_on_purpose_is_found(quick: list[Result]) -> None:
    found = {case.sabotage: errors for case, errors in quick if case.sabotage}
    assert len(found) == len({case.sabotage for case in make_controls()}) == 7
    for sabotage, errors in found.items():
        assert errors.gradient > (CONTROL_FLOOR if sabotage == "float32" else 1e-3), sabotage
        assert not errors.within_bounds(Case(2, 1, 1)), sabotage


def test_the_report_of_the_matrix_tells_every_run_and_the_worst_errors(quick: list[Result]) -> None:
    exactness.check_results(quick)
    outcome = exactness.summarize_results(quick)
    assert len(outcome.runs) == len(QUICK)
    assert 0 < float(outcome.facts["float64: largest error of a gradient matrix"]) <= TOLERANCE
    assert float(outcome.facts["control, mean of means: error"]) > 1e-3


def errors_of(matrix: float) -> Errors:
    return Errors(loss=0.0, evaluation=0.0, grad_norm=0.0, gradient=matrix, matrix=matrix, alone=0.0)


@pytest.mark.parametrize("matrix", [2e-10, 1.0, float("nan")])
def test_a_run_beyond_the_bounds_is_refused(matrix: float) -> None:
    exactness.check_results([(Case(1, 0, 1), errors_of(1e-11))])
    with pytest.raises(WrongResultError, match="not the same"):
        exactness.check_results([(Case(1, 0, 1), errors_of(matrix))])


def test_a_control_that_is_not_found_out_is_refused() -> None:
    control = Case(1, 0, 1, sabotage="mean of means")
    exactness.check_results([(control, errors_of(1e-3))])
    with pytest.raises(WrongResultError, match="not found out"):
        exactness.check_results([(control, errors_of(1e-11))])


def test_a_wrong_matrix_on_one_rank_in_one_step_is_the_error_of_the_run() -> None:
    case = Case(2, 0, 1)
    right = [
        Step(2.0, 1.0, [2.0, 3.0, float("nan")], {"a": np.ones((2, 2)), "b": np.full(3, 100.0)})
        for _ in case.steps
    ]
    wrong = [right[0], replace(right[1], gradients={**right[1].gradients, "a": np.full((2, 2), 1.5)})]
    reference = Reference(lambda case, precision: right)
    assert reference.judge(case, [right, right]).matrix == 0
    errors = reference.judge(case, [right, wrong])
    assert errors.matrix == pytest.approx(0.5)
    assert 0 < errors.gradient < 0.01


@pytest.mark.parametrize(("found", "error"), [([3.0, 2.0], 0.5), ([2.0, float("nan")], float("inf"))])
def test_a_wrong_or_missing_eval_loss_is_an_error(found: list[float], error: float) -> None:
    assert compare_losses([2.0, 2.0], [2.0, 2.0]) == 0
    assert compare_losses([2.0, float("nan")], [2.0, float("nan")]) == 0
    assert compare_losses(found, [2.0, 2.0]) == error


def test_a_number_that_is_none_is_the_worst() -> None:
    bad = worst([errors_of(float("nan")), errors_of(1.0)])
    assert np.isnan(bad.matrix)
    assert not bad.within_bounds(Case(1, 1, 1))
    assert not bad.within_bounds(Case(1, 1, 1, precision="bf16"))


def test_the_matrix_has_every_rank_stage_and_accumulation_and_all_pairs_of_choices() -> None:
    cases = [case for case in MATRIX if case.precision == "float64" and case.optimizer == "descent"]
    wanted = set(product(RANKS, STAGES, MICRO_STEPS))
    assert {(case.ranks, case.stage, case.micro_steps) for case in cases} == wanted
    assert len(cases) == len(wanted)
    met = set().union(*(pairs_of(case) for case in cases))
    values = {"ranks": RANKS, "stage": STAGES, "micro_steps": MICRO_STEPS, **CHOICES}
    for (one, ones), (other, others) in combinations(values.items(), 2):
        for pair in product(ones, others):
            pairs = {((one, pair[0]), (other, pair[1])), ((other, pair[1]), (one, pair[0]))}
            assert pairs & met, pairs


def test_the_matrix_has_bf16_on_every_number_of_ranks_and_every_stage() -> None:
    rough = {(case.ranks, case.stage) for case in MATRIX if case.precision == "bf16"}
    assert rough == set(product(RANKS, STAGES))


def test_the_rows_of_the_cases_are_what_they_are_called() -> None:
    for case in [*MATRIX, *QUICK]:
        rows = make_rows(case.data, case.num_rows)
        plan = case.plan(rows)
        last = case.steps[-1]
        hands = [plan.rows_of_rank(last, rank) for rank in range(case.ranks)]
        supervised = [int(row.label_mask.sum()) for row in rows]
        assert plan.supervised_of_step(last) > 0
        assert all(plan.micro_steps(step) == case.micro_steps for step in case.steps[:-1])
        if case.data == "last_partial":
            assert sum(len(part) > 0 for hand in hands for part in hand) == 1
        else:
            assert plan.micro_steps(last) == case.micro_steps
        if case.data == "short":
            assert len({sum(map(len, hand)) for hand in hands}) == (1 if case.ranks == 1 else 2)
        assert (0 in supervised) == (case.data == "unlabeled")
        assert max(supervised) > 5 * min(count for count in supervised if count)


def test_the_reference_gradient_is_the_slope_of_the_reference_loss() -> None:
    rng = np.random.default_rng(0)
    rows = make_rows("uneven", 2)
    step = step_along({}, 0.0, rows)
    direction = {name: rng.normal(size=gradient.shape) for name, gradient in step.gradients.items()}
    expected = sum(float((step.gradients[name] * way).sum()) for name, way in direction.items())
    ahead, behind = (step_along(direction, distance, rows).loss for distance in (1e-6, -1e-6))
    assert (ahead - behind) / 2e-6 == pytest.approx(expected, rel=1e-6)


def step_along(direction: dict[str, Float64Array], distance: float, rows: list[PackedRow]) -> Step:
    """A step of the reference, with dropout, from weights that were moved."""
    with exact_transformers():
        model = SlowModel(Case(1, 0, 1, dropout=0.2), "float64")
        with torch.no_grad():
            for name, way in direction.items():
                dict(model.weights)[name].add_(torch.from_numpy(way), alpha=distance)
        return model.take_step(rows, step_seed(SEED, 0))


def test_rows_of_the_cases_have_deep_trees_and_examples_without_a_prefix() -> None:
    row = make_rows("uneven", 1)[0]
    assert max(len(example.input_ids) for example in unpack_examples(row)) > 10
    depths = [sum(1 for _ in walk(row.parents.tolist(), segment)) for segment in range(len(row.parents))]
    assert max(depths) == 3
    assert any(parent < 0 and task >= 0 for parent, task in zip(row.parents, row.tasks, strict=True))


def walk(parents: list[int], segment: int) -> list[int]:
    return [segment] if parents[segment] < 0 else [segment, *walk(parents, parents[segment])]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", RANKS)
def test_the_whole_matrix_equals_every_example_alone(ranks: int) -> None:
    results = compare_on_ranks([case for case in MATRIX if case.ranks == ranks], 1800)
    assert len(results) == len(STAGES) * (len(MICRO_STEPS) + 1 + (ranks == 2))
    wrong = [(case, errors) for case, errors in results if not errors.within_bounds(case)]
    assert wrong == []
