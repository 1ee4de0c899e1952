"""`bench compare`: verdicts on records of known truth, what is refused, and what is warned of."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from typer.testing import CliRunner

import bench.__main__ as command_line
from bench.compare.records import compare_ways, find_direction
from bench.compare.sides import compare_sides
from bench.record import Outcome, append_record, compare, make_record, rates, summarize, time_in_turns
from bench.recorded import parse_record
from harness.json_lines import write_json_lines
from preprocess.errors import ConfigError, DataError

SURROUNDINGS: dict[str, Any] = {
    "commit": "a" * 40,
    "versions": {"torch": "2.13.0"},
    "machine": {"cpu": "Some CPU", "usable_threads": 2, "ram_gib": 8.0},
    "load_average": [0.1, 0.1, 0.1],
}


def record_of(values: list[float], name: str = "demo", **more: Any) -> dict[str, Any]:
    """A record of two ways in the same turns, the second of which takes half the time."""
    halves = [value / 2 for value in values]
    outcome = Outcome(
        "old",
        {"old_us_per_row": summarize(values, "us/row"), "new_us_per_row": summarize(halves, "us/row")},
        {"new": compare(values, halves)},
        {"rows": 3},
    )
    return {**make_record(name, "How fast?", outcome, f"python -m bench {name}", SURROUNDINGS), **more}


def drop_values(record: dict[str, Any]) -> dict[str, Any]:
    """The same record in format version 1."""
    old = json.loads(json.dumps(record)) | {"format_version": 1}
    for figure in [*old["figures"].values(), *old["ratios"].values()]:
        del figure["values"]
    del old["load_average_at_end"], old["recorded_at"]
    return dict(old)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One file of three records: noise, and a last one that is a tenth slower in all; and another program's."""
    chance = np.random.default_rng(11)
    for base in (1.0, 1.0, 1.1):
        append_record(tmp_path / "demo.jsonl", record_of((base * chance.lognormal(0, 0.01, 7)).tolist()))
    append_record(tmp_path / "other.jsonl", record_of([1.0, 2.0], "other"))
    return tmp_path


def verdicts_of(a: str, b: str, results: Path) -> dict[str, str]:
    (found,) = compare_sides(a, b, results=results)
    return {one.name: one.verdict for one in found.findings}


def test_a_slower_record_is_worse_and_its_ratio_to_the_baseline_is_not(results: Path) -> None:
    names = ("old_us_per_row", "new_us_per_row", "new / old")
    assert verdicts_of("demo#1", "demo#2", results) == dict.fromkeys(names, "noise")
    found = verdicts_of("demo#1", "demo", results)
    assert found == dict(zip(names, ("worse", "worse", "noise"), strict=True))
    assert verdicts_of("demo#-1", str(results / "demo.jsonl#1"), results)["old_us_per_row"] == "better"
    (comparison,) = compare_sides("demo#1", "demo", results=results)
    assert "baseline's own us_per_row" in comparison.remarks[0].replace("old_", "")


def test_a_record_without_values_is_compared_with_a_wider_interval(results: Path) -> None:
    lines = [json.loads(line) for line in (results / "demo.jsonl").read_text().splitlines()]
    write_json_lines(results / "aged.jsonl", [drop_values(lines[0]), drop_values(lines[2])])
    (aged,) = compare_sides("aged#1", "aged#2", results=results)
    (whole,) = compare_sides("demo#1", "demo#3", results=results)
    assert [one.verdict for one in aged.findings] == [one.verdict for one in whole.findings]
    for old, new in zip(aged.findings[:2], whole.findings[:2], strict=True):
        widths = [float(one.high or 0) - float(one.low or 0) for one in (old, new)]
        assert widths[0] > widths[1] > 0
        assert "approximate" in old.method


def test_two_ways_of_one_record_are_compared_turn_by_turn(results: Path) -> None:
    (found,) = compare_sides("demo:old", "demo:new", results=results)
    assert [(one.name, one.verdict, round(one.change, 6)) for one in found.findings] == [
        ("us_per_row", "better", -0.5)
    ]
    assert "paired" in found.findings[0].method


def test_a_way_slowed_in_a_real_measurement_is_worse() -> None:
    """The clock is the machine's; the slowed way sleeps long enough for any machine."""
    ways = {"plain": lambda: time.sleep(0.002), "slowed": lambda: time.sleep(0.2)}
    turns = time_in_turns(ways, 4, num_warmups=0)
    figures = {
        f"{way}_rows_per_s": summarize(rates(seconds, 1), "rows/s") for way, seconds in turns.seconds.items()
    }
    line = make_record("demo", "?", Outcome("plain", figures, {}), "", SURROUNDINGS)
    found = compare_ways(parse_record(json.loads(json.dumps(line)), "here"), "plain", "slowed")
    assert found.names("worse") == ["rows_per_s"]


def test_machines_versions_settings_and_work_that_differ_are_told(results: Path) -> None:
    other = record_of(
        [1.0, 1.1, 1.2],
        machine={"cpu": "Another CPU", "usable_threads": 2, "ram_gib": 8.0},
        versions={"torch": "2.14.0"},
        facts={"rows": 4},
        commit="b" * 40 + "+",
        load_average=[9.0, 1.0, 1.0],
        load_average_at_end=[1.0, 1.0, 1.0],
    )
    other["command"] += " --quick"
    append_record(results / "demo.jsonl", other)
    (found,) = compare_sides("demo#1", "demo", results=results)
    told = "\n".join(found.warnings)
    for words in (
        "machines differ: cpu",
        "torch is 2.13.0",
        "--quick",
        "rows is 3 in A, 4 in B",
        "load of 9.0",
        "no commit",
    ):
        assert words in told, words


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ("demo", "other", "different questions"),
        ("demo#4", "demo", "no record 4"),
        ("demo#0", "demo", "no record 0"),
        ("nothing", "demo", "no record file"),
        ("demo:old", "demo", "Name a way on both sides"),
        ("demo:old", "demo:newer", "no figure begins with 'newer'"),
        ("demo", ".", "without metrics.jsonl"),
    ],
)
def test_what_cannot_be_compared_is_refused(results: Path, a: str, b: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        compare_sides(a, b, results=results)


def test_commits_are_compared_program_by_program(results: Path) -> None:
    commits = {"one": "c" * 40, "two": "d" * 40}
    for commit, base in zip(commits.values(), (1.0, 2.0), strict=True):
        append_record(results / "demo.jsonl", record_of([base, base * 1.01, base * 0.99], commit=commit))
    append_record(results / "other.jsonl", record_of([1.0, 1.0], "other", commit=commits["one"]))
    with patch("bench.compare.sides.resolve_commit", commits.get):
        (found,) = compare_sides("one", "two", results=results)
        assert (found.title, found.names("worse")) == (
            "demo: How fast?",
            ["old_us_per_row", "new_us_per_row"],
        )
        (results / "demo.jsonl").unlink()
        with pytest.raises(ConfigError, match=r"one \(ccccccccc\): other; two \(ddddddddd\): none"):
            compare_sides("one", "two", results=results)


def test_a_record_of_a_later_version_is_refused(results: Path) -> None:
    append_record(results / "demo.jsonl", record_of([1.0], format_version=99))
    with pytest.raises(DataError, match="format version 99, expected 2 or less"):
        compare_sides("demo", "demo#1", results=results)


def test_the_exit_code_tells_worse_only_when_asked(results: Path) -> None:
    file = results / "demo.jsonl"
    arguments = ["compare", f"{file}#1", f"{file}#3"]
    done = CliRunner().invoke(command_line.app, arguments)
    assert (done.exit_code, "worse: old_us_per_row, new_us_per_row." in done.stdout) == (0, True)
    assert CliRunner().invoke(command_line.app, [*arguments, "--fail-if-worse"]).exit_code == 1
    assert (
        CliRunner().invoke(command_line.app, [*arguments[:2], arguments[1], "--fail-if-worse"]).exit_code == 0
    )
    assert (
        CliRunner().invoke(command_line.app, [*arguments, "--fail-if-worse", "--min-change", "30"]).exit_code
        == 0
    )
    refused = CliRunner().invoke(command_line.app, ["compare", "nothing-of-the-kind", "neither"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    told = json.loads(CliRunner().invoke(command_line.app, [*arguments, "--json"]).stdout)
    assert told["comparisons"][0]["worse"] == ["old_us_per_row", "new_us_per_row"]
    assert told["confidence"] == 0.95


def test_which_way_is_better_follows_from_unit_and_name() -> None:
    units = {"examples/s": 1, "x": 1, "us/row": -1, "s/step": -1, "MiB": -1, "MB/token": -1, "TFLOP": 0}
    assert {unit: find_direction("figure", unit) for unit in units} == units
    assert find_direction("harness_percent_slower", "%") == -1
