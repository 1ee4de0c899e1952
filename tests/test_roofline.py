"""Ceilings, collectives and simulated steps against numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.batch_plan import BatchPlan, StepTarget
from harness.memory.activations import replay
from harness.memory.traffic import count_traffic
from harness.memory.weights import trained_sizes
from harness.roofline.bytes_moved import count_bytes_moved
from harness.roofline.ceilings import ASSUMED_LATENCY_S, describe_roof, read_loader_rate
from harness.roofline.collectives import (
    Collective,
    Link,
    buckets,
    communication_seconds,
    list_collectives,
    vector_bytes,
)
from harness.roofline.command import read_alpha_beta
from harness.roofline.moves import move_recompute, move_tasks, scale_hosts
from harness.roofline.scaling import Parts, even_rows, simulate_step, slowest_rows
from harness.row_sizes import RowSizes
from preprocess.errors import DataError
from tests.planned import plan_setting

LINK = Link(1e-3, 1e6)
"""A millisecond a round, a megabyte a second."""


def seconds(kind: Any, num_bytes: int, ranks: int, link: Link = LINK) -> float:
    return link.seconds(Collective(kind, num_bytes, "gradients"), ranks)


def test_a_ring_takes_its_rounds_and_its_share_of_the_bytes() -> None:
    # Three ranks, 3 MB: each round carries a megabyte.
    assert seconds("all_gather", 3_000_000, 3) == pytest.approx(2 * (1e-3 + 1.0))
    assert seconds("all_reduce", 3_000_000, 3) == pytest.approx(4 * (1e-3 + 1.0))
    assert seconds("reduce_scatter", 3_000_000, 3) == pytest.approx(2 * (1e-3 + 1.0))
    assert seconds("all_reduce", 0, 2) == pytest.approx(2e-3)


def test_gloo_scatters_by_a_whole_all_reduce() -> None:
    gloo = replace(LINK, backend="gloo")
    assert seconds("reduce_scatter", 3_000_000, 3, gloo) == seconds("all_reduce", 3_000_000, 3, gloo)
    assert seconds("all_gather", 3_000_000, 3, gloo) == seconds("all_gather", 3_000_000, 3)


def test_timed_all_reduces_give_back_the_link_that_they_were_made_of() -> None:
    true = Link(2e-4, 1.25e7, "gloo")
    timed = [(size, seconds("all_reduce", size, 3, true)) for size in (1 << 22, 1 << 10, 1 << 16)]
    found = Link.from_reduces(timed, 3, "gloo", "made up")
    assert found.latency_s == pytest.approx(true.latency_s)
    assert found.bytes_per_s == pytest.approx(true.bytes_per_s)
    assert found.gbps == pytest.approx(0.1)


def test_a_link_that_is_faster_for_more_bytes_is_no_error() -> None:
    found = Link.from_reduces([(1024, 1e-3), (1 << 22, 0.5e-3)], 2, "gloo", "noise")
    assert found.latency_s == pytest.approx(0.5e-3)
    assert found.bytes_per_s > 1e9


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_collectives_carry_the_bytes_that_the_traffic_counts(stage: int) -> None:
    case = plan_setting().with_stage(stage).case
    link = Link(0.0, 1.0)
    calls = [one for one in list_collectives(case, 2) if one.what not in ("vector", "norm")]
    traffic = count_traffic(case, 2)
    for what in ("gradients", "updated_weights", "gathered_weights"):
        sent = sum(link.bytes_sent(one, case.ranks) for one in calls if one.what == what)
        assert sent == pytest.approx(getattr(traffic, what), abs=2)


def test_one_rank_calls_nothing() -> None:
    assert list_collectives(plan_setting(nodes=1).case, 3) == []


def test_stages_call_what_the_engine_calls() -> None:
    def kinds(stage: int) -> list[tuple[str, str]]:
        case = replace(plan_setting().with_stage(stage).case)
        return [(one.kind, one.what) for one in list_collectives(case, 1)]

    vector, gradients = ("all_reduce", "vector"), ("all_reduce", "gradients")
    # 211 M values in buckets of 50 M.
    assert kinds(0) == [vector, *[gradients] * 5]
    assert kinds(1) == kinds(2) == [*kinds(0), ("all_reduce", "norm"), ("all_gather", "updated_weights")]
    third = kinds(3)
    assert third[0] == ("all_gather", "gathered_weights")
    assert ("reduce_scatter", "gradients") in third
    assert third[-1] == ("all_gather", "updated_weights")


def test_buckets_fill_up_one_after_another() -> None:
    assert buckets((3, 4, 5, 20, 1), 10) == [7, 5, 20, 1]
    assert buckets((), 10) == []


def test_the_vector_is_as_long_as_the_steps() -> None:
    from harness.step import StepTally

    torch = pytest.importorskip("torch")
    tally = StepTally(8, torch.device("cpu"), 2)
    vector = tally.to_vector(torch.tensor(1.0), 0, 3)
    assert vector_bytes(3, 2, 8) == pytest.approx(vector.numel() * vector.element_size(), abs=8)


def plan_of(tokens: Sequence[int], ranks: int, rows: int) -> BatchPlan:
    sizes = np.array(tokens, dtype=np.int32)
    return BatchPlan(
        RowSizes(np.ones_like(sizes), sizes, np.zeros_like(sizes)), StepTarget("rows", rows), 1, ranks, None
    )


def test_the_slowest_rank_decides() -> None:
    assert even_rows(7, 3) == 3
    # Rows of 3, 2, 2 and 1 tokens on two ranks are dealt 3 + 1 and 2 + 2; on three ranks one has 3 of 8.
    assert slowest_rows(plan_of([3, 2, 2, 1], 2, 4), [0]) == pytest.approx(2.0)
    assert slowest_rows(plan_of([3, 2, 2, 1], 3, 4), [0]) == pytest.approx(4 * 3 / 8)
    assert slowest_rows(plan_of([1] * 7, 3, 7), [0]) == pytest.approx(3.0)


PARTS = Parts(row_s=0.5, fixed_s=0.1, source="made up")


def simulate(ranks: int, *, slowest: float, link: Link = LINK, contention: float = 1.0) -> float:
    case = replace(plan_setting().with_stage(1).case, ranks=ranks)
    return simulate_step(
        PARTS, case, link, rows=7, slowest=slowest, micro_steps=1, examples=7, contention=contention
    ).step_s


def test_a_step_is_the_slowest_ranks_rows_what_is_fixed_and_the_collectives() -> None:
    case = replace(plan_setting().with_stage(1).case, ranks=3)
    trained = sum(trained_sizes(case))
    wire_s = 4 / 3 * (4 * trained + vector_bytes(3, 1, 8) + 4) / 1e6 + 2 / 3 * 2 * trained / 1e6
    # Five buckets, vector and norm: seven all-reduces of four rounds; one all-gather of two.
    rounds_s = (7 * 4 + 2) * 1e-3
    by_hand = 3 * 0.5 + 0.1 + wire_s + rounds_s
    assert simulate(3, slowest=3) == pytest.approx(by_hand, rel=1e-6)
    assert simulate(3, slowest=3, contention=1.5) == pytest.approx(by_hand + 0.5 * 1.6, rel=1e-6)


def test_without_latency_or_the_slowest_rank_the_hand_count_is_missed() -> None:
    """Each rule matters: a simulation that drops one is off by far more than it may be."""
    fast = Link(0.1, 1e12)
    right = simulate(3, slowest=3, link=fast)
    assert right == pytest.approx(1.6 + 30 * 0.1, rel=0.01)
    assert simulate(3, slowest=3, link=replace(fast, latency_s=0.0)) < 0.6 * right
    quick = Link(0.0, 1e12)
    assert simulate(3, slowest=7 / 3, link=quick) < 0.85 * simulate(3, slowest=3, link=quick)


def test_a_roof_gives_the_ceilings_by_hand() -> None:
    setting = plan_setting()
    roof = describe_roof(
        setting, Link(0.0, 25e9 / 8), matmul_tflops=300.0, loader_rows_per_s=(1000.0, "test")
    )
    by_name = {one.name: one for one in roof.ceilings}
    assert set(by_name) == {"compute", "matmul", "memory", "network", "loader"}
    assert roof.compute_s == pytest.approx(roof.flops / 362e12)
    assert by_name["compute"].examples_per_s == pytest.approx(roof.examples / roof.compute_s)
    assert by_name["matmul"].examples_per_s == pytest.approx(by_name["compute"].examples_per_s * 300 / 362)
    assert by_name["memory"].tokens_per_s == pytest.approx(roof.tokens * 864e9 / roof.moved.total)
    traffic_s = count_traffic(setting.case, setting.micro_steps).total / (25e9 / 8)
    assert by_name["network"].examples_per_s == pytest.approx(roof.examples / traffic_s, rel=1e-3)
    assert by_name["loader"].examples_per_s == pytest.approx(roof.examples * 1000 / setting.rows_of_rank)
    assert roof.lowest is by_name["network"]
    assert roof.missing == ()
    assert roof.attainable_flops == pytest.approx(362e12)  # far right of the ridge
    assert roof.together_examples_per_s < roof.lowest.examples_per_s


def test_what_was_not_measured_has_no_ceiling_and_is_named() -> None:
    roof = describe_roof(plan_setting(nodes=1))
    assert [one.name for one in roof.ceilings] == ["compute", "memory"]
    assert "ceilings.json" in roof.missing[0]
    assert "loader" in roof.missing[1]


def test_bytes_of_a_step_by_hand() -> None:
    case = plan_setting().with_stage(0).case
    trained = sum(trained_sizes(case))
    moved = count_bytes_moved(case, micro_steps=3, tokens=1000, supervised=10)
    # 6.43 GB of frozen weights, forward and backward, three times.
    assert moved.frozen_weights == pytest.approx(3 * 2 * 6.43e9, rel=0.01)
    assert moved.trained_weights == 3 * 2 * 2 * trained
    assert moved.gradients == 3 * 2 * 4 * trained
    assert moved.optimizer == trained * (7 * 4 + 2)
    assert moved.logits == 10 * 128_256 * (2 * 2 + 2 * 4)
    assert moved.activations == pytest.approx(2 * 1000 * replay(case).kept / case.slots)
    everything = replace(case, recompute_layers=28)
    again = count_bytes_moved(everything, micro_steps=3, tokens=1000, supervised=10)
    assert again.frozen_weights == pytest.approx(1.5 * moved.frozen_weights)
    assert again.activations < moved.activations / 3


def test_more_tasks_a_song_raise_the_rate_and_recomputation_lowers_it() -> None:
    setting = plan_setting()
    tasks = move_tasks(setting)
    even = [one.even_examples_per_s for one in tasks]
    assert even == sorted(even)
    assert [one.tokens_per_example for one in tasks] == sorted(
        (one.tokens_per_example for one in tasks), reverse=True
    )
    layers = [one.examples_per_s for one in move_recompute(setting)]
    assert layers == sorted(layers, reverse=True)
    assert layers[0] > layers[-1]


def test_hosts_share_a_fixed_step_until_each_has_a_row() -> None:
    setting = plan_setting().with_rows_of_step(6)
    free = Link(0.0, 1e15)
    found = {one.ranks: one for one in scale_hosts(setting, PARTS, free, hosts=(1, 2, 3, 4, 6, 64))}
    assert [found[count].slowest_rows for count in (1, 2, 3, 4, 6, 64)] == [6, 3, 2, 2, 1, 1]
    assert found[3].compute_s == found[4].compute_s == pytest.approx(2 * 0.5 + 0.1)
    growing = {one.ranks: one for one in scale_hosts(setting, PARTS, free, hosts=(1, 64), grows=True)}
    assert growing[64].rows == 64 * setting.rows_of_rank
    assert growing[64].examples_per_s == pytest.approx(64 * growing[1].examples_per_s, rel=1e-4)
    slow = scale_hosts(setting, PARTS, LINK, hosts=(1, 64))
    assert slow[1].communication_s > 60 * 30 * 1e-3
    assert communication_seconds([], LINK, 64) == 0


def test_the_loader_rate_is_that_of_the_record() -> None:
    found = read_loader_rate()
    assert found is not None
    record = json.loads(Path("bench/results/loader.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert found[0] == pytest.approx(1e6 / record["figures"]["load_us_per_row"]["median"])
    assert read_loader_rate(Path("no/such/file")) is None


def test_a_measured_link_tells_latency_and_a_bandwidth_alone_does_not(tmp_path: Path) -> None:
    reduces = [
        {"bytes": size, "median_s": seconds("all_reduce", size, 2)} for size in (1 << 10, 1 << 16, 1 << 24)
    ]
    report = {"gbps": 0.008, "backend": "gloo", "hosts": [{}, {}], "reduces": reduces}
    path = tmp_path / "link.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    found = read_alpha_beta(str(path), 0.008)
    assert found.latency_s == pytest.approx(1e-3)
    assert found.bytes_per_s == pytest.approx(1e6)
    assert "measured" in found.source
    assert read_alpha_beta("25", 25.0).latency_s == ASSUMED_LATENCY_S
    path.write_text(json.dumps({**report, "reduces": [{}]}), encoding="utf-8")
    with pytest.raises(DataError, match="bench-link"):
        read_alpha_beta(str(path), 0.008)
