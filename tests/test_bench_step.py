"""The plain loop that a step is measured against, and the sweep over a grid of settings."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import bench.__main__ as command_line
from bench import step, sweep, sweep_point
from bench.plain_loop import pad
from bench.record import WrongResultError
from preprocess.errors import ConfigError
from preprocess.schema import IGNORE_INDEX
from tests.test_bench_training import make_example, run_quick
from tests.test_bench_ways import check_record


def test_examples_are_padded_beside_each_other_and_padding_is_neither_seen_nor_supervised() -> None:
    batch = pad([make_example(3, 10), make_example(5, 20)])
    assert batch["input_ids"].tolist() == [[10, 11, 12, 0, 0], [20, 21, 22, 23, 24]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    no = IGNORE_INDEX
    assert batch["labels"].tolist() == [[no, 11, 12, no, no], [no, no, no, 23, 24]]
    assert batch["labels"].dtype == torch.int64


def test_losses_that_part_from_the_plain_loop_are_noticed() -> None:
    assert step.check_losses([2.0, 1.5], [2.0, 1.50001], 1e-4) == pytest.approx(1e-5)
    for wrong in (1.51, math.nan):
        with pytest.raises(WrongResultError, match="of the plain loop"):
            step.check_losses([2.0, wrong], [2.0, 1.5], 1e-4)


@pytest.mark.slow
def test_a_quick_run_of_a_step_trains_the_weights_of_the_plain_loop() -> None:
    record = run_quick("step")
    check_record(record, {"harness"})
    assert record["facts"]["largest_loss_difference"] <= step.TOLERANCE["fp32"]
    assert record["figures"]["harness: backward_share"]["median"] > 0


def test_a_grid_is_every_combination_in_order() -> None:
    points = sweep.parse_grid(["batch.micro_batch_size=1,2", "model.recompute_layers=0, all"])
    assert [list(point.values()) for point in points] == [["1", "0"], ["1", "all"], ["2", "0"], ["2", "all"]]
    assert set(points[0]) == {"batch.micro_batch_size", "model.recompute_layers"}


@pytest.mark.parametrize("axes", [["a.b"], ["=1"], ["a=1,"], ["a=1,1"], ["a=1", "a=2"]])
def test_a_grid_that_says_nothing_or_something_twice_is_refused(axes: list[str]) -> None:
    with pytest.raises(ConfigError, match="--grid"):
        sweep.parse_grid(axes)


def test_a_point_has_one_key_whatever_the_order_and_another_for_another_run() -> None:
    key = sweep.key_of({"a": "1", "b": "2"}, "base", 3)
    assert key == sweep.key_of({"b": "2", "a": "1"}, "base", 3)
    others = [
        sweep.key_of({"a": "1"}, "base", 3),
        sweep.key_of({"a": "1", "b": "2"}, "other", 3),
        sweep.key_of({"a": "1", "b": "2"}, "base", 4),
    ]
    assert len({key, *others}) == 4


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The points that were measured, by a stand-in: a.b=2 fails, the others are twice as fast as the base."""
    seen: list[dict[str, str]] = []

    def stand_in(config: Path, point: Mapping[str, str], num_turns: int) -> dict[str, Any]:
        seen.append(dict(point))
        if point["a.b"] == "2":
            return {"error": "a.b: 2 is too much"}
        one = {"examples": [8] * num_turns, "losses": [1.0] * num_turns}
        base, fast = {**one, "seconds": [2.0] * num_turns}, {**one, "seconds": [1.0] * num_turns}
        return {"base": base, "point": fast, "losses_compared": True}

    monkeypatch.setattr(sweep, "measure_point", stand_in)
    return seen


def run_sweep(folder: Path, *options: str, grid: str = "a.b=1,2,3") -> tuple[int, list[dict[str, Any]]]:
    """Exit code, and the records of a sweep over a run's file."""
    (folder / "run.yaml").write_text("seed: 1\n")
    arguments = [
        "--grid",
        grid,
        "--config",
        str(folder / "run.yaml"),
        "--output",
        str(folder / "table.jsonl"),
    ]
    result = CliRunner().invoke(command_line.app, ["sweep", *arguments, "--quick", "--json", *options])
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_a_failed_point_is_recorded_and_the_sweep_goes_on(
    tmp_path: Path, measured: list[dict[str, str]]
) -> None:
    code, records = run_sweep(tmp_path)
    assert code == 0
    assert len(measured) == 3
    assert [record["facts"].get("error") for record in records] == [None, "a.b: 2 is too much", None]
    assert records[0]["ratios"]["point"]["median"] == 2.0
    assert records[0]["figures"]["point_examples_per_s"]["median"] == 8.0
    assert records[1]["figures"] == records[1]["ratios"] == {}
    lines = (tmp_path / "table.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records


def test_points_in_the_table_are_not_measured_again(tmp_path: Path, measured: list[dict[str, str]]) -> None:
    _, first = run_sweep(tmp_path, grid="a.b=1,2")
    _, again = run_sweep(tmp_path)
    assert [point["a.b"] for point in measured] == ["1", "2", "3"]
    assert again[:2] == first
    run_sweep(tmp_path, "--retry-failed")
    assert [point["a.b"] for point in measured] == ["1", "2", "3", "2"]


def test_a_table_that_a_kill_cut_in_mid_line_goes_on(tmp_path: Path, measured: list[dict[str, str]]) -> None:
    run_sweep(tmp_path, grid="a.b=1,3")
    path = tmp_path / "table.jsonl"
    path.write_text(path.read_text()[:-40])
    run_sweep(tmp_path, grid="a.b=1,3")
    _, records = run_sweep(tmp_path, grid="a.b=1,3")
    assert [point["a.b"] for point in measured] == ["1", "3", "3"]
    assert len(records) == 2


def test_the_table_tells_the_settings_and_what_failed(tmp_path: Path, measured: list[dict[str, str]]) -> None:
    _, records = run_sweep(tmp_path)
    stream = io.StringIO()
    sweep.print_table(records, Console(file=stream, width=100))
    text = stream.getvalue()
    for part in ("a.b", "2.000", "failed", "too much"):
        assert part in text


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        sweep.identify_base(tmp_path / "missing.yaml", quick=True)


def test_settings_that_must_not_change_a_loss_and_do_are_noticed() -> None:
    sweep_point.check_losses([1.0, 2.0], [1.0, 2.00005], 1e-4)
    for wrong in ([1.0, 2.1], [1.0, math.nan]):
        with pytest.raises(WrongResultError, match="without the settings"):
            sweep_point.check_losses(wrong, [1.0, 2.0], 1e-4)


@pytest.mark.slow
def test_a_real_sweep_measures_one_point_and_records_a_refused_one(tmp_path: Path) -> None:
    points = sweep.parse_grid(["model.recompute_layers=1,9"])
    records = sweep.sweep_grid(points, None, tmp_path / "table.jsonl", Console(quiet=True), quick=True)
    assert records[0]["facts"]["losses_compared"] == "True"
    assert "has 1 layers" in records[1]["facts"]["error"]
