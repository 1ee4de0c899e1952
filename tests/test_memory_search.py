"""The search for rows and recomputed layers, on simulated machines, against sweeps of all choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from harness.memory.search import MAX_TRIALS, Choice, Found, Measured, search

GIB = 2.0**30


@dataclass(frozen=True)
class Machine:
    """A simulated rank: what its memory and its time truly are, and what is predicted of them.

    Attributes:
        rows: The most that a step has.
        layers: Of the model.
        state: Bytes held whatever is chosen.
        a_row: Bytes of a row's working memory.
        kept: Bytes that one kept layer adds for each row.
        limit: Where memory runs out.
        target: Bytes.
        wrong: Factors by which the prediction misses `state`, `a_row` and `kept`.
        overhead: Fixed seconds of a micro-batch; a row takes one second.
        noise: Of measured peaks, as a share.
        seed: Of the noise.
        bend: Bytes that come on top in proportion to the square of the rows' share.
    """

    rows: int = 12
    layers: int = 28
    state: float = 8 * GIB
    a_row: float = 1.0 * GIB
    kept: float = 0.18 * GIB
    limit: float = 45 * GIB
    target: float = 0.94 * 45 * GIB
    wrong: tuple[float, float, float] = (1.0, 1.0, 1.0)
    overhead: float = 0.3
    noise: float = 0.0
    seed: int = 0
    bend: float = 0.0

    def peak(self, choice: Choice) -> float:
        kept = self.kept * choice.rows * (self.layers - choice.layers)
        lumpy = (
            self.noise * np.random.default_rng([self.seed, *choice]).normal()
        )  # the same at each measurement
        bend = self.bend * (choice.rows / self.rows) ** 2
        return (self.state + self.a_row * choice.rows + kept + bend) * (1 + lumpy)

    def predict(self, rows: int, layers: int) -> float:
        state, a_row, kept = self.wrong
        return (
            state * self.state + a_row * self.a_row * rows + kept * self.kept * rows * (self.layers - layers)
        )

    def seconds(self, choice: Choice) -> float:
        return self.overhead + choice.rows * (1 + 0.47 * choice.layers / self.layers)

    def step(self, choice: Choice) -> float:
        passes = -(-self.rows // choice.rows)
        return passes * self.overhead + self.rows * (1 + 0.47 * choice.layers / self.layers)

    def choices(self) -> Iterator[Choice]:
        return (Choice(row, layer) for row in range(1, self.rows + 1) for layer in range(self.layers + 1))

    def find(self, *, cautious: bool = False) -> Found:
        rng = np.random.default_rng(self.seed)

        def trial(choice: Choice) -> Measured:
            peak = self.peak(choice)
            if peak > self.limit:
                return Measured(None)
            return Measured(peak, self.seconds(choice) * (1 + 0.02 * rng.normal()))

        return search(
            trial,
            self.predict,
            lambda rows, layers: rows * (1 + 0.4 * layers / self.layers),
            self.rows,
            self.layers,
            self.target,
            cautious=cautious,
        )


MACHINES = [
    Machine(rows=rows, layers=layers, a_row=a_row * GIB, kept=kept * GIB, wrong=wrong, overhead=overhead, noise=noise,
            seed=seed, bend=bend)
    for seed, (rows, layers, a_row, kept) in enumerate(
        [(12, 28, 1.0, 0.18), (24, 32, 0.4, 0.1), (4, 16, 2.0, 0.9), (48, 28, 0.25, 0.05), (8, 24, 3.0, 0.4)]
    )
    for wrong in ((1, 1, 1), (0.9, 0.7, 0.7), (1.1, 1.3, 1.3), (1, 0.7, 1.3), (1, 1.3, 0.7))
    for overhead, noise, bend in ((0.05, 0.0, 0.0), (0.3, 0.003, 0.0), (0.02, 0.003, 2 * GIB))
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_the_search_is_as_fast_as_a_full_sweep_and_never_above_the_target(machine: Machine) -> None:
    found = machine.find()
    assert found.choice is not None
    assert len(found.trials) <= MAX_TRIALS
    peak = machine.peak(found.choice)
    assert peak <= machine.target
    assert peak == found.peak_bytes
    within = [choice for choice in machine.choices() if machine.peak(choice) <= machine.target]
    best = min(map(machine.step, within))
    assert machine.step(found.choice) <= 1.02 * best
    nearest = max(machine.peak(choice) for choice in within if machine.step(choice) <= 1.001 * best)
    if nearest > machine.target - 0.01 * machine.limit:  # the grid allows it
        assert peak > machine.target - 0.02 * machine.limit


def test_the_search_ends_near_the_target_where_the_grid_is_fine() -> None:
    shares = []
    for seed in range(20):
        machine = Machine(
            rows=200, layers=16, a_row=0.2 * GIB, kept=0.02 * GIB, wrong=(1, 0.8, 1.2), noise=0.002, seed=seed
        )
        found = machine.find()
        assert found.choice is not None
        shares.append(machine.peak(found.choice) / machine.limit)
    assert 0.92 <= min(shares) <= max(shares) <= 0.94


def test_trials_are_few() -> None:
    counts = [len(machine.find().trials) for machine in MACHINES]
    assert np.mean(counts) < 6
    assert max(counts) <= MAX_TRIALS


def test_a_cautious_search_never_runs_out_of_memory() -> None:
    ran_out = {True: 0, False: 0}
    for machine in MACHINES:
        for cautious in (True, False):
            found = machine.find(cautious=cautious)
            assert found.choice is not None
            ran_out[cautious] += any(trial.measured.peak_bytes is None for trial in found.trials)
    assert ran_out[True] == 0
    assert ran_out[False] > 0


def test_a_prediction_that_is_believed_as_it_is_would_not_pass() -> None:
    """What no trial corrects: the best predicted choice is above the target, or far under it."""
    bad = 0
    for machine in MACHINES:
        fits = [choice for choice in machine.choices() if machine.predict(*choice) <= machine.target]
        peak = machine.peak(min(fits, key=machine.step))
        bad += peak > machine.target
    assert bad > len(MACHINES) / 4


def test_where_nothing_fits_the_smallest_choice_was_tried_and_none_is_returned() -> None:
    found = Machine(state=44 * GIB).find()
    assert found.choice is None
    assert found.peak_bytes is None
    assert [trial.choice for trial in found.trials] == [Choice(1, 28)]


def test_where_everything_fits_one_trial_takes_all_rows_and_recomputes_nothing() -> None:
    found = Machine(a_row=0.1 * GIB, kept=0.01 * GIB, overhead=0.1).find()
    assert found.choice == Choice(12, 0)
    assert len(found.trials) == 1


def test_rows_that_save_no_forward_pass_are_not_taken_at_the_price_of_recomputation() -> None:
    """Six rows a step: five in a micro-batch take two passes, as three do."""
    machine = Machine(rows=6, layers=28, a_row=1 * GIB, kept=0.35 * GIB)
    found = machine.find()
    assert found.choice is not None
    assert found.choice.layers == 0
