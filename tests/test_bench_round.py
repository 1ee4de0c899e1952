"""`python -m bench all`: every program in its turn, whatever becomes of the others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.__main__ import PROGRAMS, app
from bench.record import Outcome, make_record, summarize, to_line
from bench.round import APART

SURROUNDINGS = {"commit": "abc", "versions": {}, "machine": {"cpu": "some"}, "load_average": [0.0, 0.0, 0.0]}


def stand_in(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """A program that measures at once; `pack` fails."""
    name = command[3]
    if name == "pack":
        return subprocess.CompletedProcess(command, 1, "", "some words\nerror: two ways differ\n")
    outcome = Outcome("base", {"rate": summarize([1.0, 2.0], "rows/s")}, {"ours": summarize([2.0, 3.0], "x")})
    record = make_record(name, PROGRAMS[name], outcome, " ".join(command), SURROUNDINGS)
    return subprocess.CompletedProcess(command, 0, to_line(record) + "\n", "")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["all", *arguments])
    return result.exit_code, result.stdout


def test_a_round_keeps_every_record_goes_on_after_a_failure_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", stand_in)
    code, printed = run("--quick", "--results", str(tmp_path), "--json")
    turns = {turn["name"]: turn["problem"] for turn in json.loads(printed)["programs"]}
    assert code == 1
    assert set(turns) == set(PROGRAMS) - set(APART)
    assert {name for name, problem in turns.items() if problem} == {"pack"}
    assert turns["pack"] == "ended with 1: error: two ways differ"
    assert {path.stem for path in tmp_path.glob("*.jsonl")} == set(turns) - {"pack"}
    assert "rows/s" in (tmp_path / "report.html").read_text()


def test_a_round_of_chosen_programs_ends_well_and_an_unknown_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", stand_in)
    assert run("--only", "loader,bare", "--results", str(tmp_path))[0] == 0
    assert {path.stem for path in tmp_path.glob("*.jsonl")} == {"loader", "bare"}
    assert run("--only", "loader,nothing", "--results", str(tmp_path))[0] == 2
