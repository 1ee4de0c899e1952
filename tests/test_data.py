"""Rank arithmetic without processes: which rows go where, on any number of ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.data import BatchPlan


@given(
    num_rows=st.integers(1, 200),
    micro=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    world_size=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_an_epoch_takes_every_row_exactly_once(
    num_rows: int, micro: int, accumulation: int, world_size: int, epoch: int
) -> None:
    plan = BatchPlan(num_rows, micro, accumulation, world_size, seed=7)
    taken = [
        row
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        for rank in range(world_size)
        for rows in plan.rows_of_rank(step, rank)
        for row in rows.tolist()
    ]
    assert sorted(taken) == list(range(num_rows))


@given(num_rows=st.integers(1, 100), step=st.integers(0, 40), world_size=st.sampled_from([1, 2, 3, 4, 6]))
def test_a_step_takes_the_same_rows_on_any_number_of_ranks(num_rows: int, step: int, world_size: int) -> None:
    alone = BatchPlan(num_rows, 12, 1, 1, seed=3)
    spread = BatchPlan(num_rows, 1, 12 // world_size, world_size, seed=3)
    assert alone.steps_per_epoch == spread.steps_per_epoch
    assert alone.rows_of_step(step).tolist() == spread.rows_of_step(step).tolist()
    taken = [
        row for rank in range(world_size) for rows in spread.rows_of_rank(step, rank) for row in rows.tolist()
    ]
    assert sorted(taken) == sorted(alone.rows_of_step(step).tolist())


def test_every_rank_has_the_same_number_of_micro_steps_even_when_rows_run_out() -> None:
    plan = BatchPlan(num_rows=10, micro_batch_size=2, accumulation_steps=2, world_size=3, seed=0)
    assert plan.steps_per_epoch == 1
    assert {len(plan.rows_of_rank(0, rank)) for rank in range(3)} == {2}
    assert [[len(rows) for rows in plan.rows_of_rank(0, rank)] for rank in range(3)] == [
        [2, 2],
        [2, 2],
        [2, 0],
    ]


def test_epochs_and_seeds_differ_and_a_plan_repeats() -> None:
    plan = BatchPlan(50, 1, 1, 1, seed=1)
    first, second = ([int(plan.rows_of_step(s)[0]) for s in range(e * 50, e * 50 + 50)] for e in (0, 1))
    assert first != second
    assert first != [int(BatchPlan(50, 1, 1, 1, seed=2).rows_of_step(s)[0]) for s in range(50)]
    assert first == [int(BatchPlan(50, 1, 1, 1, seed=1).rows_of_step(s)[0]) for s in range(50)]


def test_without_a_seed_rows_come_in_stored_order() -> None:
    plan = BatchPlan(5, 2, 1, 1, seed=None)
    assert [plan.rows_of_step(step).tolist() for step in range(3)] == [[0, 1], [2, 3], [4]]
    assert np.concatenate([plan.rows_of_step(step) for step in range(3)]).tolist() == list(range(5))
