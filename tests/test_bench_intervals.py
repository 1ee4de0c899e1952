"""The intervals of `bench compare`, calibrated on made-up measurements with known truth; all seeds are fixed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.compare import intervals
from bench.compare.intervals import (
    Floats,
    Interval,
    block,
    correlation_time,
    expected_spread,
    locate,
    rank_sum_weights,
    shift,
    shift_of_summaries,
    signed_rank_weights,
    student_quantile,
)
from bench.compare.records import compare_figure
from bench.compare.verdict import MIN_CHANGE, judge, to_ratio
from bench.record import summarize
from bench.recorded import read_records

RESULTS = Path(intervals.__file__).parents[1] / "results"
TRIALS = 400
LIMIT = 0.05 + 2 * math.sqrt(0.05 * 0.95 / TRIALS)
"""What a rate of 5 % is not seen to exceed in so many trials, but for one time in forty."""


def draw_turns(chance: np.random.Generator, n: int, noise: float = 0.05) -> Floats:
    """Logarithms of times: normal, and one turn in ten hit by another load."""
    spikes = (chance.random(n) < 0.1) * chance.exponential(0.3, n)
    return np.asarray(chance.normal(0, noise, n) + spikes)


def draw_series(chance: np.random.Generator, n: int, memory: float, noise: float = 0.05) -> Floats:
    """Logarithms of times of steps, each of which remembers the last."""
    series = np.zeros(n + 50)
    for step in range(1, n + 50):
        series[step] = memory * series[step - 1] + chance.normal(0, noise)
    return series[50:]


def rate_of_alarms(measure: Callable[[np.random.Generator], Interval], trials: int = TRIALS) -> float:
    """How often an interval leaves out zero."""
    chance = np.random.default_rng(20261128)
    found = [measure(chance) for _ in range(trials)]
    return sum(one.low > 0 or one.high < 0 for one in found) / trials


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_equal_turns_are_told_apart_in_one_of_twenty_at_most(n: int) -> None:
    assert rate_of_alarms(lambda c: shift(draw_turns(c, n), draw_turns(c, n), 0.95)) <= LIMIT
    assert rate_of_alarms(lambda c: locate(draw_turns(c, n) - draw_turns(c, n), 0.95)) <= LIMIT


@pytest.mark.parametrize("n", [2, 3, 7])
def test_summaries_alone_raise_no_more_alarms(n: int) -> None:
    def measure(chance: np.random.Generator) -> Interval:
        a, b = (summarize(np.exp(draw_turns(chance, n)).tolist(), "s") for _ in range(2))
        return shift_of_summaries(a, b, 0.95, log=True)

    assert rate_of_alarms(measure) <= LIMIT


def test_a_percentile_bootstrap_of_few_pairs_would_raise_too_many() -> None:
    def bootstrap(chance: np.random.Generator) -> Interval:
        ratios = draw_turns(chance, 3) - draw_turns(chance, 3)
        low, high = np.percentile(np.median(chance.choice(ratios, (300, 3)), axis=1), [2.5, 97.5])
        return Interval(0.0, float(low), float(high), "bootstrap", (3, 3))

    assert rate_of_alarms(bootstrap) > 0.2


@pytest.mark.parametrize(("n", "memory"), [(60, 0.0), (150, 0.3), (150, 0.6), (400, 0.8)])
def test_steps_that_remember_each_other_raise_no_more_alarms_in_blocks(n: int, memory: float) -> None:
    # Beyond half as many again: how long a series remembers is itself estimated from it.
    allowed = 1.5 * LIMIT

    def paired(c: np.random.Generator) -> Interval:
        return locate(block(draw_series(c, n, memory) - draw_series(c, n, memory)), 0.95)

    assert rate_of_alarms(paired, 200) <= allowed


def test_without_blocks_steps_that_remember_each_other_raise_many() -> None:
    assert rate_of_alarms(lambda c: locate(draw_series(c, 150, 0.6), 0.95), 100) > 0.2


def noise_of_a_step_here() -> float:
    """Deviation of the logarithm of a step's time, from the recorded steps of the newest bench/results/bare.jsonl."""
    figure = read_records(RESULTS / "bare.jsonl")[-1].figures["harness_s_per_step"]
    assert figure.n >= 60
    return math.log(figure.p80 / figure.p20) / expected_spread(figure.n)


def test_a_step_five_percent_slower_is_found_among_steps_as_noisy_as_here() -> None:
    noise = noise_of_a_step_here()
    assert 0.01 < noise < 0.5
    n = math.ceil(240 * (noise / 0.139) ** 2)
    chance = np.random.default_rng(3)
    found = []
    for _ in range(40):
        a, b = chance.normal(0, noise, n), chance.normal(math.log(1.05), noise, n)
        found.append(judge(to_ratio(locate(block(b - a), 0.95)), -1, MIN_CHANGE)[0])
    assert found.count("worse") >= 32
    assert "better" not in found


def test_five_turns_with_one_percent_of_noise_show_five_percent() -> None:
    chance = np.random.default_rng(5)
    verdicts = []
    for _ in range(100):
        a, b = (summarize((base * np.exp(chance.normal(0, 0.01, 5))).tolist(), "s") for base in (1.0, 1.05))
        verdicts.append(compare_figure("step_s", a, b, 0.95, MIN_CHANGE).verdict)
    assert verdicts.count("worse") >= 90


def test_distributions_are_those_of_the_tables() -> None:
    assert [round(student_quantile(f, 0.95), 3) for f in (1, 2, 5, 10)] == [12.706, 4.303, 2.571, 2.228]
    assert student_quantile(1000, 0.95) == pytest.approx(1.96, abs=1e-3)
    assert (rank_sum_weights(3, 3) * 20).round(9).tolist() == [1, 1, 2, 3, 3, 3, 3, 2, 1, 1]
    assert (signed_rank_weights(3) * 8).round(9).tolist() == [1, 1, 1, 2, 1, 1, 1]
    assert expected_spread(1000) == pytest.approx(2 * 0.8416, rel=0.01)


def test_a_shift_is_found_where_it_is_and_a_spike_does_not_move_it() -> None:
    a = np.arange(10.0)
    found = shift(a, a + 3, 0.95)
    assert (found.estimate, found.method) == (3.0, "rank sums")
    assert found.low < 3 < found.high
    spiked = np.append(a[:-1] + 3, 1e6)
    assert shift(a, spiked, 0.95).estimate == pytest.approx(3.0, abs=0.5)
    assert math.isinf(shift([1.0], [2.0], 0.95).high)
    assert locate([2.0] * 10, 0.95).low == 2.0


def test_how_long_a_series_remembers_is_found() -> None:
    chance = np.random.default_rng(1)
    assert correlation_time(chance.normal(size=400)) < 1.6
    assert 2.5 < correlation_time(draw_series(chance, 400, 0.6)) < 6  # (1 + 0.6) / (1 - 0.6) = 4
    assert len(block(np.ones(100))) == 25
    assert len(block(np.ones(5))) == 5


def test_recorded_lines_are_of_the_versions_that_can_be_read() -> None:
    for path in sorted(RESULTS.glob("*.jsonl")):
        assert len(read_records(path)) == len(path.read_text(encoding="utf-8").splitlines())
        assert all(json.loads(line)["name"] == path.stem for line in path.read_text("utf-8").splitlines())
