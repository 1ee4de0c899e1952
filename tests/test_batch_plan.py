"""Which rows a step takes, on any number of ranks, against plans made row by row without any array."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.batch_plan import BatchPlan, StepTarget, Unit, find_bounds
from harness.row_sizes import RowSizes, read_row_sizes
from preprocess.shards import open_split
from tests.toys import make_dataset

UNITS: tuple[Unit, ...] = ("rows", "examples", "tokens")


def make_sizes(num_rows: int, seed: int = 0, *, spread: int = 20) -> RowSizes:
    rng = np.random.Generator(np.random.Philox(seed))
    examples = rng.integers(0, spread, num_rows).astype(np.int32)
    tokens = (examples * rng.integers(1, 9, num_rows) + 5).astype(np.int32)
    return RowSizes(examples, tokens, (tokens // 3).astype(np.int32))


def cut_one_by_one(amounts: Sequence[int], target: int) -> list[int]:
    """`find_bounds` by asking after every row whether the next one would take the step further away."""
    bounds, total = [0], None
    for i, amount in enumerate(amounts):
        if total is not None and abs(total + amount - target) > abs(total - target):
            bounds.append(i)
            total = None
        total = amount if total is None else total + amount
    return [*bounds, len(amounts)]


def amounts_of(sizes: RowSizes, unit: Unit) -> np.ndarray:
    """int32[R]: what each row counts."""
    return {"rows": np.ones_like(sizes.tokens), "examples": sizes.examples, "tokens": sizes.tokens}[unit]


plans = {
    "num_rows": st.integers(1, 60),
    "unit": st.sampled_from(UNITS),
    "amount": st.integers(1, 150),
    "micro": st.integers(1, 4),
    "world_size": st.integers(1, 5),
    "seed": st.none() | st.integers(0, 3),
}


@given(amounts=st.lists(st.integers(0, 30), min_size=1, max_size=60), target=st.integers(1, 80))
def test_steps_are_cut_where_a_walk_row_by_row_cuts_them(amounts: list[int], target: int) -> None:
    assert find_bounds(np.array(amounts), target).tolist() == cut_one_by_one(amounts, target)


def test_a_step_ends_where_the_next_row_would_take_it_further_from_its_target() -> None:
    assert find_bounds(np.array([4, 5, 4, 9, 6, 3, 2]), 10).tolist() == [0, 2, 4, 7]
    assert find_bounds(np.array([40, 40, 1]), 10).tolist() == [0, 1, 2, 3]  # at least one row
    assert find_bounds(np.array([10, 0, 0, 10]), 10).tolist() == [0, 3, 4]  # nothing takes it no further


@given(**plans, epoch=st.integers(0, 2))
def test_an_epoch_takes_every_row_exactly_once_on_any_ranks_micro_batches_and_target(
    num_rows: int, unit: Unit, amount: int, micro: int, world_size: int, seed: int | None, epoch: int
) -> None:
    plan = BatchPlan(make_sizes(num_rows), StepTarget(unit, amount), micro, world_size, seed)
    first = sum(plan.steps_of_epoch(e) for e in range(epoch))
    taken = [
        row
        for step in range(first, first + plan.steps_of_epoch(epoch))
        for rank in range(world_size)
        for rows in plan.rows_of_rank(step, rank)
        for row in rows.tolist()
    ]
    assert sorted(taken) == list(range(num_rows))


@given(**plans)
def test_a_step_takes_the_same_rows_on_any_number_of_ranks_and_any_micro_batch(
    num_rows: int, unit: Unit, amount: int, micro: int, world_size: int, seed: int | None
) -> None:
    sizes = make_sizes(num_rows)
    alone = BatchPlan(sizes, StepTarget(unit, amount), 1, 1, seed)
    spread = BatchPlan(sizes, StepTarget(unit, amount), micro, world_size, seed)
    assert alone.num_steps(2) == spread.num_steps(2)
    for step in range(alone.num_steps(2)):
        assert alone.rows_of_step(step).tolist() == spread.rows_of_step(step).tolist()
        hands = spread.deal(step)
        assert sorted(np.concatenate(hands).tolist()) == sorted(alone.rows_of_step(step).tolist())


@given(**plans)
def test_every_rank_makes_the_same_micro_steps_as_few_as_there_can_be(
    num_rows: int, unit: Unit, amount: int, micro: int, world_size: int, seed: int | None
) -> None:
    plan = BatchPlan(make_sizes(num_rows), StepTarget(unit, amount), micro, world_size, seed)
    for step in range(plan.num_steps(1)):
        num_rows_of_step = len(plan.rows_of_step(step))
        ranks = [plan.rows_of_rank(step, rank) for rank in range(world_size)]
        assert {len(rank) for rank in ranks} == {plan.micro_steps(step)}
        assert plan.micro_steps(step) == -(-num_rows_of_step // (micro * world_size))
        assert all(len(rows) <= micro for rank in ranks for rows in rank)
        shares = [sum(map(len, rank)) for rank in ranks]
        assert max(shares) - min(shares) <= 1


@given(**plans)
@settings(max_examples=40)
def test_steps_are_those_of_a_plan_made_row_by_row(
    num_rows: int, unit: Unit, amount: int, micro: int, world_size: int, seed: int | None
) -> None:
    sizes = make_sizes(num_rows)
    plan = BatchPlan(sizes, StepTarget(unit, amount), micro, world_size, seed)
    expected = []
    for epoch in range(2):
        order = np.arange(num_rows)
        if seed is not None:
            key = np.array([seed, epoch], dtype=np.uint64)
            order = np.random.Generator(np.random.Philox(key=key)).permutation(num_rows)
        bounds = cut_one_by_one(amounts_of(sizes, unit)[order].tolist(), amount)
        expected += [order[a:b].tolist() for a, b in pairwise(bounds)]
    assert [plan.rows_of_step(step).tolist() for step in range(plan.num_steps(2))] == expected


@pytest.mark.parametrize("unit", UNITS)
def test_resuming_at_any_step_needs_its_number_alone(unit: Unit) -> None:
    sizes, target = make_sizes(40), StepTarget(unit, {"rows": 3, "examples": 30, "tokens": 150}[unit])
    plan = BatchPlan(sizes, target, 2, 2, seed=5)
    run = [plan.rows_of_step(step).tolist() for step in range(plan.num_steps(3))]
    for step, expected in enumerate(run):
        assert BatchPlan(sizes, target, 2, 2, seed=5).rows_of_step(step).tolist() == expected


def test_steps_come_near_their_target_of_examples() -> None:
    sizes = make_sizes(3000)
    plan = BatchPlan(sizes, StepTarget("examples", 72), 2, 3, seed=0)
    seen = [int(sizes.examples[plan.rows_of_step(step)].sum()) for step in range(plan.num_steps(1))]
    assert max(abs(examples - 72) for examples in seen[:-1]) <= 10  # half of the largest row
    assert abs(np.mean(seen[:-1]) - 72) < 1


def test_ranks_get_as_much_to_compute_and_dealing_in_turn_would_not() -> None:
    rng = np.random.Generator(np.random.Philox(1))
    tokens = rng.integers(500, 2049, 600).astype(np.int32)
    sizes = RowSizes(np.full(600, 9, np.int32), tokens, tokens // 4)
    plan = BatchPlan(sizes, StepTarget("rows", 24), 2, 3, seed=0)

    def excess(hands: Sequence[np.ndarray]) -> float:
        loads = [int(sizes.cost(hand).sum()) for hand in hands]
        return max(loads) / (sum(loads) / len(loads)) - 1

    dealt = [excess(plan.deal(step)) for step in range(25)]
    in_turn = [excess([plan.rows_of_step(step)[rank::3] for rank in range(3)]) for step in range(25)]
    assert np.mean(dealt) < 0.01
    assert np.mean(in_turn) > 0.05


def test_micro_steps_hold_rows_of_a_size_on_every_rank() -> None:
    tokens = np.arange(100, 112, dtype=np.int32)
    plan = BatchPlan(RowSizes(tokens // 50, tokens, tokens * 0), StepTarget("rows", 12), 1, 3, seed=0)
    for micro in range(4):
        at_once = [int(tokens[plan.rows_of_rank(0, rank)[micro]].sum()) for rank in range(3)]
        assert max(at_once) - min(at_once) <= 2


def test_no_rank_ever_has_more_supervised_tokens_than_are_known_without_asking_it() -> None:
    sizes = make_sizes(20)
    plan = BatchPlan(sizes, StepTarget("rows", 7), 2, 2, seed=0)
    for step in range(3):
        parts = [part for rank in range(2) for part in plan.rows_of_rank(step, rank)]
        assert max(int(sizes.supervised[part].sum()) for part in parts) <= 2 * plan.most_supervised_row
        assert plan.supervised_of_step(step) == int(sizes.supervised[plan.rows_of_step(step)].sum())
    assert plan.most_supervised_row == max(sizes.supervised)


def test_epochs_and_seeds_differ_and_a_plan_repeats() -> None:
    def rows(seed: int, steps: range) -> list[int]:
        plan = BatchPlan(make_sizes(50), StepTarget("rows", 1), 1, 1, seed)
        return [int(plan.rows_of_step(step)[0]) for step in steps]

    first, second = range(50), range(50, 100)
    assert rows(1, first) != rows(1, second)
    assert rows(1, first) != rows(2, first)
    assert rows(1, first) == rows(1, first)


def test_without_a_seed_rows_come_in_stored_order() -> None:
    plan = BatchPlan(make_sizes(5), StepTarget("rows", 2), 2, 1, seed=None)
    assert [plan.rows_of_step(step).tolist() for step in range(3)] == [[0, 1], [2, 3], [4]]


def test_whole_epochs_end_at_whole_numbers_and_fractions_at_the_nearest_step() -> None:
    plan = BatchPlan(make_sizes(40), StepTarget("tokens", 120), 1, 2, seed=3)
    ends = np.cumsum([plan.steps_of_epoch(epoch) for epoch in range(3)]).tolist()
    assert [plan.num_steps(epochs) for epochs in (1, 2, 3)] == ends
    assert [plan.epoch_of(steps) for steps in (0, *ends)] == [0.0, 1.0, 2.0, 3.0]
    for epochs in (0.3, 0.5, 1.25, 2.9):
        distances = {steps: abs(plan.epoch_of(steps) - epochs) for steps in range(1, ends[-1] + 1)}
        assert distances[plan.num_steps(epochs)] == pytest.approx(min(distances.values()))
    assert plan.num_steps(1e-9) == 1


def test_epochs_done_grow_with_every_step_by_the_share_of_its_rows() -> None:
    plan = BatchPlan(make_sizes(40), StepTarget("examples", 30), 1, 1, seed=3)
    done = [plan.epoch_of(steps) for steps in range(plan.num_steps(2) + 1)]
    grown = np.diff(done) * 40
    assert grown == pytest.approx([len(plan.rows_of_step(step)) for step in range(plan.num_steps(2))])


def test_counting_stops_at_the_cap_however_many_epochs_follow() -> None:
    plan = BatchPlan(make_sizes(40), StepTarget("examples", 30), 1, 1, seed=3)
    assert plan.num_steps(1e9, at_most=50) == 50
    assert plan.num_steps(1, at_most=10**6) == plan.num_steps(1)


def test_a_plan_answers_the_same_to_several_threads_at_once() -> None:
    sizes, target = make_sizes(2000), StepTarget("examples", 30)
    alone = BatchPlan(sizes, target, 1, 1, seed=0)
    shared = BatchPlan(sizes, target, 1, 1, seed=0)
    steps = [step for pair in zip(range(0, 1500, 9), count(700, 9), strict=False) for step in pair]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda step: shared.rows_of_step(step).tolist(), steps))
    assert found == [alone.rows_of_step(step).tolist() for step in steps]


def test_sizes_read_from_columns_are_those_of_the_rows(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    manifest = make_dataset(folder, num_songs=12)
    for split in manifest.splits:
        found, expected = read_row_sizes(folder, split, manifest), RowSizes.of(open_split(folder, split))
        assert len(found) == len(open_split(folder, split))
        for name in ("examples", "tokens", "supervised"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()
            assert getattr(found, name).dtype == np.int32
        totals = manifest.splits[split]
        sums = [int(column.sum()) for column in (found.examples, found.tokens, found.supervised)]
        assert sums == [totals.num_examples, totals.num_tokens, totals.num_supervised]
