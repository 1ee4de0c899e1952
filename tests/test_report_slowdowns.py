"""A planted slow-down is found by the report, with part, place and factor; noise on an even run is not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.config import load_run_config
from harness.loader import load_step
from harness.report import read_whole_run
from harness.report.findings import Finding
from harness.report.incidents import list_warnings
from harness.report.ranks import chart_ranks, read_rank_times, tabulate_ranks
from harness.report.records import RunRecords
from harness.report.slowdowns import find_slowdowns
from harness.train import train
from tests.dist_ranks import run_ranks
from tests.runs import make_config
from tests.toys import make_dataset, make_model_dir, make_tokenizer

MEANS_S = {"data": 0.01, "forward": 0.9, "loss": 0.2, "backward": 1.9, "optimizer": 0.1, "other": 0.02}
PARTS = [*MEANS_S]
Plant = Callable[[np.ndarray[Any, np.dtype[np.float64]], Sequence[int]], None]


def make_run(
    plant: Plant | None = None, num_ranks: int = 3, num_steps: int = 60, seed: int = 0, noise: float = 0.25
) -> RunRecords:
    """A run whose parts vary from step to step and from rank to rank, neighbouring steps alike.

    Args:
        plant: Changes float64[step, part, rank] seconds before ranks wait for each other; gets the steps' numbers too.
        num_ranks: Ranks, two on each host.
        num_steps: Steps.
        seed: Of the noise.
        noise: Standard deviation of the logarithm of a part's time.
    """
    draws = np.random.default_rng(seed)
    drift = draws.normal(0, noise, (num_steps, len(PARTS), num_ranks))
    for step in range(1, num_steps):
        drift[step] = 0.6 * drift[step - 1] + 0.8 * drift[step]
    seconds = np.array([*MEANS_S.values()])[None, :, None] * np.exp(drift)
    steps = range(1, num_steps + 1)
    if plant is not None:
        plant(seconds, steps)
    work = seconds.sum(axis=1)
    wait = work.max(axis=1, keepdims=True) - work
    send = np.full_like(wait, 0.15)
    run = RunRecords(
        "run", summary={"step": num_steps, "hosts": [f"node{r // 2 + 1}" for r in range(num_ranks)]}
    )
    for i, step in enumerate(steps):
        parts = {part: seconds[i, p].tolist() for p, part in enumerate(PARTS)}
        parts |= {"wait": wait[i].tolist(), "communication": send[i].tolist()}
        total = (work + wait + send)[i].tolist()
        run.ranks.append({"kind": "ranks", "step": step, "step_time_s": total, "parts_s": parts})
        own = {part: values[0] for part, values in parts.items()}
        run.train.append({"kind": "train", "step": step, "step_time_s": total[0], "parts_s": own})
    return run


def findings(run: RunRecords) -> list[Finding]:
    return find_slowdowns(read_rank_times(run))


def slow(part: str, rank: int, *, add_s: float = 0.0, times: float = 1.0) -> Plant:
    def plant(seconds: Any, steps: Sequence[int]) -> None:
        seconds[:, PARTS.index(part), rank] = seconds[:, PARTS.index(part), rank] * times + add_s

    return plant


def test_a_sleep_in_one_rank_s_loader_is_found_with_rank_host_share_and_factor() -> None:
    (found,) = findings(make_run(slow("data", 2, add_s=1.0)))
    assert "Loading data holds the run up" in found.text
    assert "rank 2 (node2)" in found.text
    assert "times the others'" in found.text
    assert found.ranks == (2,)
    assert 0.15 < found.cost < 0.35


def test_a_sleep_in_every_tenth_load_is_found_although_most_steps_have_none() -> None:
    def plant(seconds: Any, steps: Sequence[int]) -> None:
        seconds[::10, 0, 1] += 8.0

    texts = [one.text for one in findings(make_run(plant))]
    assert any("Loading data holds the run up" in text and "rank 1 (node1)" in text for text in texts)


def test_a_run_without_lines_of_ranks_tells_of_its_own_loader() -> None:
    run = make_run(slow("data", 0, add_s=1.0))
    run.ranks = []
    (found,) = findings(run)
    assert "Loading data" in found.text
    assert "rank 0" in found.text


def test_a_slow_rank_is_found_with_the_part_that_is_to_blame() -> None:
    (found,) = findings(make_run(slow("backward", 2, times=1.8)))
    assert found.text.startswith("Rank 2 (node2) is slow")
    assert "Most of it is in backward" in found.text
    assert "they wait for it" in found.text
    assert "harness doctor" in found.advice


def test_a_slow_host_is_told_once_for_all_its_ranks() -> None:
    def plant(seconds: Any, steps: Sequence[int]) -> None:
        seconds[:, :, 4:6] *= 1.8

    (found,) = findings(make_run(plant, num_ranks=8))
    assert "So are all ranks on node3." in found.text


@pytest.mark.parametrize(("noise", "num_ranks"), [(0.05, 3), (0.25, 2), (0.25, 8), (0.4, 3)])
def test_noise_on_an_even_run_is_no_slow_down(noise: float, num_ranks: int) -> None:
    runs = [make_run(seed=seed, noise=noise, num_ranks=num_ranks) for seed in range(60)]
    assert [one.text for run in runs for one in findings(run)] == []
    slowed = [make_run(slow("backward", 1, times=2), 8, 60, seed, noise) for seed in range(20)]
    named = sum(any(one.ranks == (1,) for one in findings(run)) for run in slowed)
    assert named >= (12 if noise > 0.3 else 20)


def test_rows_that_are_uneven_now_here_now_there_are_no_slow_rank() -> None:
    def plant(seconds: Any, steps: Sequence[int]) -> None:
        for i, step in enumerate(steps):
            seconds[i, :, step % 3] *= 2

    assert findings(make_run(plant)) == []


def test_two_loads_that_took_long_are_no_slow_loader_and_five_steps_say_something() -> None:
    def plant(seconds: Any, steps: Sequence[int]) -> None:
        seconds[20:22, 0, 1] += 5.0

    assert findings(make_run(plant)) == []
    assert findings(make_run(slow("data", 1, add_s=9.0), num_steps=5)) == []  # four after the warm-up
    assert len(findings(make_run(slow("data", 1, add_s=9.0), num_steps=6))) == 1


def test_stalls_are_found_where_they_cost_much() -> None:
    def plant(seconds: Any, steps: Sequence[int]) -> None:
        seconds[[9, 30], PARTS.index("forward"), :] += 25.0

    (found,) = findings(make_run(plant))
    assert found.text.startswith("2 steps took more than 3 times the median")
    assert "(step 10, 31)" in found.text
    assert "most of it in forward" in found.text


def test_a_slow_first_step_is_warm_up_and_no_stall() -> None:
    def plant(seconds: Any, steps: Sequence[int]) -> None:
        seconds[0] *= 100

    assert findings(make_run(plant)) == []


def test_exposed_communication_above_its_bound_is_found_and_below_it_is_not() -> None:
    def with_communication(seconds_s: float) -> RunRecords:
        run = make_run()
        for line in run.ranks:
            line["step_time_s"] = [total - 0.15 + seconds_s for total in line["step_time_s"]]
            line["parts_s"]["communication"] = [seconds_s] * 3
        return run

    (found,) = findings(with_communication(4.0))
    assert "Communication between ranks" in found.text
    assert "bench-link" in found.advice
    assert findings(with_communication(0.5)) == []


def test_what_guardians_found_is_told_once_and_a_slow_link_by_its_host() -> None:
    run = make_run(slow("backward", 2, times=1.8))
    event = {"kind": "event", "event": "slow rank", "host": "node2", "seconds": 0.08, "median_s": 0.001}
    run.events = [
        {**event, "step": 9, "rank": 2, "what": "work", "factor": 1.7},
        {**event, "step": 9, "rank": 1, "what": "link", "factor": 80.0},
        {**event, "step": 40, "rank": 1, "what": "link", "factor": 20.0},
    ]
    texts = [one.text for one in list_warnings(run)]
    assert sum("rank 2" in text.lower() for text in texts) == 1
    (link,) = [text for text in texts if "link" in text]
    assert "rank 1 on node2" in link
    assert "80 times" in link
    assert "step 9, 40" in link


def test_a_world_that_shrank_is_read_from_its_last_size_on() -> None:
    run = make_run(num_ranks=4)
    run.ranks[30:] = [line | {"step": line["step"] + 30} for line in make_run(num_ranks=2).ranks[:30]]
    times = read_rank_times(run)
    assert times is not None
    assert times.step_time_s.shape == (30, 2)


def test_many_ranks_are_cut_to_the_slowest_and_the_fastest() -> None:
    times = read_rank_times(make_run(slow("backward", 33, times=2), num_ranks=64))
    (chart,) = chart_ranks(times)
    assert "rank 33 (node17)" in chart.svg
    assert "The 8 ranks of 64" in chart.note
    (table,) = tabulate_ranks(times)
    assert len(table.rows) == 16
    assert table.rows[0][0] == "rank 33 (node17)"


def train_even_and_slow(even: Path, slow_one: Path) -> None:
    """Train twice in one process group; in the second rank 0's loader sleeps."""
    train(load_run_config(even), Console(quiet=True))

    def load_slowly(*args: Any, **kwargs: Any) -> Any:
        if os.environ["RANK"] == "0":
            time.sleep(0.5)
        return load_step(*args, **kwargs)

    with patch("harness.loader.load_step", load_slowly):
        train(load_run_config(slow_one), Console(quiet=True))


@pytest.mark.parametrize("num_ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sleep_planted_in_a_real_run_s_loader_is_found_and_none_in_an_even_run(
    num_ranks: int, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "data", num_songs=40, seq_len=256)
    make_model_dir(tmp_path / "model", make_tokenizer().vocab_size)
    overrides = ["schedule.max_steps=10", "batch.global_batch_size=2", "guard.enabled=false"]
    overrides.append("tensorboard=true")
    paths = [
        make_config(tmp_path, tmp_path / name, tmp_path / "data", tmp_path / "model", overrides)
        for name in ("even", "slow")
    ]
    run_ranks(train_even_and_slow, num_ranks, *paths, timeout_s=300)
    even, planted = (
        [one.text for one in list_warnings(read_whole_run(tmp_path / name)) if "Loading data" in one.text]
        for name in ("even", "slow")
    )
    assert even == []
    (text,) = planted
    assert "rank 0" in text
    tags = set(EventAccumulator(str(tmp_path / "even" / "tensorboard")).Reload().Tags()["scalars"])
    assert {"train/loss", "train/learning_rate", "throughput/tokens_per_s", "final/samples_per_s"} <= tags
