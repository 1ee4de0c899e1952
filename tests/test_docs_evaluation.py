"""docs/evaluation.md and docs/demo.md kept true: their commands parse, goals and marks are those of the code."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from harness.demo.wording import SIGNS
from harness.report.evaluation.systems import HEADLINES
from tests.test_readme import commands, find_command_error

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "evaluation.md").read_text(encoding="utf-8")


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table in a section."""
    body = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize(("page", "num_commands"), [("evaluation.md", 9), ("demo.md", 9)])
def test_the_commands_of_the_page_parse(page: str, num_commands: int) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = [line for line in commands(text) if line.startswith("python -m")]
    assert len(lines) >= num_commands
    assert [error for line in lines if (error := find_command_error(line))] == []
    assert find_command_error("python -m harness evaluate --no-such-option") is not None


def test_the_goals_of_the_page_are_those_of_the_code() -> None:
    goals = {
        row[0]: int(found.group(1)) / 100
        for row in rows_of("What is measured")
        if (found := re.search(r"(\d+) %", row[2]))
    }
    assert goals == {mark.name: mark.wanted for mark in import_module("harness.evaluation.marks").MARKS}


def test_the_page_explains_every_mark_of_the_truth_check_and_every_task_with_a_headline() -> None:
    explained = {row[0]: row[1].split(":")[0] for row in rows_of("The truth check's marks")}
    assert explained == {sign: verdict for verdict, sign in SIGNS.items()}
    tasks = {task for row in rows_of("What is measured") for task in row[0].split(", ")}
    assert tasks == set(HEADLINES)
