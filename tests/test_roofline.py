"""Ceilings, collectives and simulated steps against numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.batch_plan import BatchPlan, StepTarget
from harness.memory.activations import replay
from harness.memory.traffic import count_traffic
from harness.memory.weights import trained_sizes
from harness.planning.workload import SongLengths, assume_workload
from harness.report import render_report
from harness.report.records import read_run
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
from harness.roofline.command import read_alpha_beta, study_run
from harness.roofline.measured import read_measured
from harness.roofline.moves import move_recompute, move_tasks, scale_hosts
from harness.roofline.scaling import Parts, even_rows, simulate_step, slowest_rows
from harness.roofline.study import to_json
from harness.row_sizes import RowSizes
from preprocess.errors import ConfigError, DataError
from tests.planned import plan_setting
from tests.toys import make_dataset, make_model_dir

RUNNER = CliRunner()
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


COUNTS = {
    "rows": 24,
    "examples": 96,
    "tokens": 6000,
    "supervised_tokens": 600,
    "slots": 6000,
    "attention_pairs": 400_000,
}
CEILINGS = {
    "format_version": 1,
    "ranks": [
        {
            "rank": rank,
            "host": f"node{rank + 1}",
            "device": "cpu",
            "card": None,
            "peak_tflops": None,
            "matmul_tflops": 0.08 - 0.01 * rank,
            "matmul_dtype": "bf16",
            "copy_gb_per_s": 10.0,
        }
        for rank in range(2)
    ],
    "allreduce_gbps": 0.8,
    "allreduce_latency_s": 0.002,
}
BY_RANK = {
    "steps": 4,
    "parts_s": {
        "data": [0.1, 0.1],
        "forward": [1.0, 1.4],
        "loss": [0.2, 0.2],
        "backward": [2.0, 2.4],
        "wait": [0.8, 0.0],
        "communication": [0.4, 0.38],
        "optimizer": [0.2, 0.2],
    },
}


def write_run(folder: Path, *, ceilings: bool = True, by_rank: bool = True, data: Path | None = None) -> Path:
    """A run of two ranks and four steps that took 5 s."""
    model = make_model_dir(folder / "model", 512)
    run = folder / "run"
    run.mkdir()
    config = {
        "output_dir": str(run),
        "model": {"path": str(model)},
        "data": {"path": str(data or folder / "gone")},
        "batch": {"micro_batch_size": 3, "global_batch_size": 6},
    }
    (run / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    summary: dict[str, Any] = {
        "kind": "summary",
        "step": 5,
        "num_steps": 4,
        "counts": COUNTS,
        "step_time_total_s": 5.0,
        "world_size": 2,
        "time_share_by_part": {"forward": 0.2, "loss": 0.04, "backward": 0.4, "other": 0.36},
    }
    if by_rank:
        summary |= {"hosts": ["node1", "node2"], "by_rank": BY_RANK}
    (run / "metrics.jsonl").write_text(json.dumps(summary) + "\n", encoding="utf-8")
    if ceilings:
        (run / "ceilings.json").write_text(json.dumps(CEILINGS), encoding="utf-8")
    return run


def test_a_run_stands_where_its_slowest_rank_and_its_ceilings_say(tmp_path: Path) -> None:
    run = read_measured(write_run(tmp_path))
    # The second rank computes 4.0 s in four steps of three rows each.
    assert run.parts.row_s == pytest.approx(1.0 / 3)
    assert run.communication_s == pytest.approx(0.1)
    assert run.parts.fixed_s == pytest.approx(1.25 - 1.0 - 0.1)
    assert run.examples_per_s == pytest.approx(96 / 5)
    assert run.link is not None
    assert run.link.bytes_per_s == pytest.approx(1e8)
    assert run.link.latency_s == pytest.approx(0.001)
    study = to_json(study_run(run))
    standing = study["standing"]
    assert standing["communication_share"] == pytest.approx(0.08)
    compute = next(one for one in study["ceilings"] if one["name"] == "matmul")
    assert standing["shares"]["matmul"] == pytest.approx(19.2 / compute["examples_per_s"], rel=0.05)
    # What is simulated for the run's own ranks is the run.
    own = study["scaling"]["fixed"][1]
    assert own["step_s"] == pytest.approx(1.25, rel=1e-6)
    assert own["communication_s"] == pytest.approx(0.1 - standing["unexplained_s"])
    assert any("more than the" in line for line in study["next"])
    assert any("data set is not at hand" in line for line in study["missing"])


def test_a_run_without_the_newer_records_is_told_of_with_what_is_missing(tmp_path: Path) -> None:
    run = read_measured(write_run(tmp_path, ceilings=False, by_rank=False))
    assert run.parts.row_s == pytest.approx(0.64 * 1.25 / 3)
    assert run.communication_s is None
    text = " ".join(run.missing)
    for part in ("ceilings.json is not there", "names no hosts", "did not tell communication apart"):
        assert part in text
    with pytest.raises(ConfigError, match="--gpu NAME"):
        study_run(run)
    study = to_json(study_run(run, gpu="L40S", nodes=2))
    assert study["card"] == "L40S"


def test_the_command_tells_of_a_run_and_writes_its_page(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_dataset(data, num_songs=24)
    run = write_run(tmp_path, data=data)
    page = tmp_path / "page.html"
    done = RUNNER.invoke(app, ["roofline", str(run), "--json", "--html", str(page)])
    assert done.exit_code == 0, done.output
    study = json.loads(done.stdout)
    assert study["bottleneck"] in {one["name"] for one in study["ceilings"]}
    assert [one["ranks"] for one in study["scaling"]["fixed"]][-1] == 64
    assert study["moves"]["tasks"]
    text = page.read_text(encoding="utf-8")
    for part in ("Roofline of a rank", "Ceilings, examples a second", "over ranks, simulated", "measured"):
        assert part in text
    assert "#0" not in text.split("</style>")[1]  # every colour is the page's own
    # The run's own report has the same section.
    assert "Roofline of a rank" in render_report(read_run(run))


def test_the_command_answers_the_plans_claims() -> None:
    asked = ["roofline", "--config", "plan", "--set", "world_size=null", "--gpu", "L40S", "--nodes", "3"]
    done = RUNNER.invoke(app, [*asked, "--tasks", "5", "--json"])
    assert done.exit_code == 0, done.output
    wishes = {one["name"]: one for one in json.loads(done.stdout)["wishes"]}
    assert set(wishes) == {"samples_per_s", "demo_s", "whole_s"}
    assert all(one["arithmetic"] for one in wishes.values())
    assert RUNNER.invoke(app, [*asked, "--tasks", "5"]).exit_code == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "give a run's folder"),
        (["--config", "plan"], "--gpu NAME"),
        (["no/such/run"], "no metrics.jsonl"),
        (["--config", "plan", "--gpu", "L40S", "--nodes", "0"], "--nodes"),
    ],
)
def test_a_wrong_question_is_refused_with_what_to_do(asked: list[str], said: str) -> None:
    done = RUNNER.invoke(app, ["roofline", *asked])
    assert done.exit_code in (2, 4)
    assert said in done.output + done.stderr
    assert "Traceback" not in done.output


def test_assumed_lengths_are_said_to_be_assumed() -> None:
    assert "assumed" in assume_workload(SongLengths()).source
