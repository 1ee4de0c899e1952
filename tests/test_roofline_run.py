"""Where a run stands under its ceilings, from files that runs write; the command and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.planning.workload import SongLengths, assume_workload
from harness.report import render_report
from harness.report.records import read_run
from harness.roofline.command import study_run
from harness.roofline.measured import read_measured
from harness.roofline.study import to_json
from preprocess.errors import ConfigError
from tests.toys import make_dataset, make_model_dir

RUNNER = CliRunner()

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
