"""Simulated steps against real ones: the collectives that DeepSpeed calls, and three hosts on shaped links."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.scaling import (
    FULL,
    QUICK,
    Point,
    make_case,
    measure,
    micro_steps,
    predict_links,
)
from bench.scaling_hosts import Ranks, write_config
from bench.training import build_data, write_model
from harness.roofline.collectives import Link, list_collectives
from preprocess.tasks.load import DEFAULT_TASKS
from tests.cluster import missing_means
from tests.collective_ranks import note_step
from tests.dist_ranks import run_ranks

WITHIN = 0.15


@pytest.mark.slow
def test_deepspeed_calls_the_collectives_that_are_listed(tmp_path: Path) -> None:
    scale = replace(FULL.scale, songs=8, hidden_size=64)
    model = write_model(tmp_path / "model", scale)
    data = build_data(tmp_path / "data", str(model), DEFAULT_TASKS, scale)
    configs = {stage: write_config(tmp_path, data, model, scale, stage, 8) for stage in range(4)}
    found = run_ranks(note_step, 3, configs, timeout_s=600)[0]
    for stage, calls in found.items():
        listed = list_collectives(make_case(scale, stage, 3), micro_steps(scale, 3), len(DEFAULT_TASKS))
        # What the vector holds is its owner's; that there is one counts.
        expected = [(one.kind, one.num_bytes) for one in listed if one.what != "vector"]
        assert sum(one.what == "vector" for one in listed) == 1
        vectors = [call for call in calls if call[0] == "all_reduce" and 100 <= call[1] <= 2000]
        assert len(vectors) == 1, stage
        assert sorted(call for call in calls if call not in vectors) == sorted(expected), stage


def made_up(link: Link, compute_s: float) -> Ranks:
    """Three ranks whose steps take exactly what the model says."""
    reduces, step_s = {}, {}
    for name, mbit in FULL.links:
        there = replace(link, bytes_per_s=link.bytes_per_s if mbit is None else mbit * 1e6 / 8)
        total = 0.0
        for one in list_collectives(make_case(FULL.scale, 0, 3), micro_steps(FULL.scale, 3)):
            total += there.seconds(one, 3)
        rounds_s = 4 * there.latency_s
        reduces[name] = [[(size, rounds_s + 4 / 3 * size / there.bytes_per_s) for size in (1024, 1 << 22)]]
        step_s[name] = [compute_s + total]
    return Ranks(reduces, {0: step_s}, {0: {}}, {0: [compute_s]}, {0: [1.0]}, {0: [1.0]})


def test_steps_that_follow_the_model_are_predicted_exactly() -> None:
    points = list(predict_links(FULL, {3: made_up(Link(2e-3, 1e9, "gloo"), 0.4)}))
    assert [point.link for point in points] == ["1 Gb/s", "100 Mb/s"]
    assert all(point.error == pytest.approx(0, abs=1e-9) for point in points)
    assert points[1].measured_s > 2 * points[0].measured_s - 0.4


def test_a_link_that_is_measured_wrong_is_noticed() -> None:
    ranks = made_up(Link(2e-3, 1e9, "gloo"), 0.4)
    ranks.reduces["100 Mb/s"] = ranks.reduces["1 Gb/s"]
    errors = {point.link: point.error for point in predict_links(FULL, {3: ranks})}
    assert abs(errors["1 Gb/s"]) < 1e-9
    assert errors["100 Mb/s"] < -0.3


def test_the_recorded_steps_on_shaped_links_are_as_predicted() -> None:
    record = json.loads(Path("bench/results/scaling.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    links = [point for point in record["points"] if point["way"] == "links"]
    asked = {
        (ranks, stage, link) for ranks in (2, 3) for stage in range(4) for link in ("1 Gb/s", "100 Mb/s")
    }
    assert {(one["ranks"], one["stage"], one["link"]) for one in links} == asked
    errors = sorted(abs(one["predicted_s"] / one["measured_s"] - 1) for one in links)
    assert errors[len(errors) // 2] <= WITHIN / 3
    assert sum(error <= WITHIN for error in errors) >= 15
    # Without the collectives' seconds most steps on the slow link would be missed.
    slow = [one for one in links if one["link"] == "100 Mb/s"]
    without = [(one["predicted_s"] - one["communication_s"]) / one["measured_s"] - 1 for one in slow]
    assert sum(error < -WITHIN for error in without) >= 7


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.skipif(bool(missing_means()), reason=missing_means())
def test_three_hosts_on_shaped_links_take_what_is_predicted() -> None:
    outcome = measure(quick=True)
    points = [Point(**{k: v for k, v in one.items() if k != "error"}) for one in outcome.points]
    links = [point for point in points if point.way == "links"]
    assert len(links) == len(QUICK.stages) * 2
    median = sorted(abs(point.error) for point in links)[len(links) // 2]
    assert median <= WITHIN
    ratios = [figure.median for name, figure in outcome.figures.items() if "bytes sent" in name]
    assert all(1.0 <= ratio <= 1.12 for ratio in ratios)  # headers of TCP and IP
