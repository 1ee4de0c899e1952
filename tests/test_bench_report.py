"""The benchmark report: all records, escaped, self-contained, as wide as a phone; and README's tables from it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import bench.__main__ as command_line
from bench.compare.sides import RESULTS
from bench.record import Outcome, append_record, compare, make_record, summarize
from bench.report.chosen import list_doubts, read_histories
from bench.report.markdown import list_readme_lines
from bench.report.page import render_page
from harness.report.plots import STAND_INS
from preprocess.errors import DataError
from tests.test_report import CHROMIUM, PageReader, measure_width, run_chromium

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
EVIL = "<script>alert('x')</script> & \"rows\""


def add_record(results: Path, name: str, values: list[float], **more: Any) -> None:
    halves = [value / 2 for value in values]
    outcome = Outcome(
        "old",
        {"old_s": summarize(values, "s"), "new_s": summarize(halves, "s"), EVIL: summarize(values, "MiB")},
        {"new": compare(values, halves)},
        {"rows": 3, "words": EVIL},
    )
    surroundings = {
        "commit": "a" * 40,
        "versions": {"torch": "2.13.0", "datasets": None},
        "machine": {"cpu": "Some CPU", "usable_threads": 2, "ram_gib": 8.0},
        "load_average": [0.1, 0.1, 0.1],
    }
    record = make_record(name, f"How fast is {name}?", outcome, f"python -m bench {name}", surroundings)
    append_record(results / f"{name}.jsonl", record | {"load_average_at_end": [0.2, 0.1, 0.1]} | more)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program recorded three times, once on another machine; another once, by an older version."""
    folder = tmp_path_factory.mktemp("results")
    add_record(folder, "demo", [4.0, 4.1, 4.2])
    add_record(folder, "demo", [77.0], machine={"cpu": "Another CPU", "usable_threads": 64, "ram_gib": 512.0})
    add_record(folder, "demo", [3.0, 3.1, 3.25], commit="b" * 40 + "+", load_average=[9.0, 1.0, 1.0])
    add_record(folder, "single", [1.5], format_version=1)
    return folder


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    return render_page(read_histories(results))


def test_the_newest_record_of_every_machine_is_shown(page: str) -> None:
    reader = PageReader(page)
    for text in ("How fast is demo?", "How fast is single?", "3.1", "77", "Some CPU, 2 threads, 8.0 GiB"):
        assert text in reader.texts, text
    assert "4.1" not in reader.texts
    assert "Another CPU, 64 threads, 512.0 GiB" in reader.texts
    assert reader.tags.count("svg") == 3 * 2 + 1, (
        "ratios and seconds of three histories, one of which has a course"
    )
    assert "aaaaaaa" in page
    assert "bbbbbbb+" in page


def test_what_makes_a_record_doubtful_is_told_at_the_top(results: Path, page: str) -> None:
    doubts = list_doubts(read_histories(results))
    assert doubts == [
        "Made beside other work, by load average: demo (9.0).",
        "Made with files that no commit holds: demo.",
    ]
    assert set(doubts) <= set(PageReader(page).texts)


def test_the_page_is_whole_escaped_and_asks_nothing_of_a_network(page: str) -> None:
    reader = PageReader(page)
    assert "<script" not in page
    assert EVIL in reader.texts
    assert len(reader.ids) == len(set(reader.ids))
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    assert {address[1:] for address in reader.addresses if address.startswith("#")} <= set(reader.ids)
    assert not re.search(r"@import|url\((?!#)", page)
    assert not any(stand_in in page for stand_in in STAND_INS.values())
    assert "prefers-color-scheme: dark" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_opens_it_without_complaint_and_it_is_no_wider_than_a_phone(
    tmp_path: Path, page: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    assert "How fast is demo?" in run_chromium(tmp_path, "--dump-dom", path.as_uri())
    assert measure_width(tmp_path, page, 375) <= 375
    assert measure_width(tmp_path, page.replace("overflow-x: auto", ""), 375) > 375


def test_the_command_writes_the_page_and_prints_json_and_markdown(results: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(command_line.app, ["report", "--results", str(results), *arguments])
        return done.exit_code, done.stdout

    output = tmp_path / "new" / "page.html"
    assert run("--output", str(output)) == (0, f"{output}: 3 histories of 2 programs\n")
    assert output.read_text(encoding="utf-8") == render_page(read_histories(results))
    code, line = run("--json")
    told = json.loads(line)
    assert (code, len(told["programs"])) == (0, 3)
    assert [one["records"] for one in told["programs"]] == [2, 1, 1]
    code, text = run("--markdown")
    assert code == 0
    assert "| new_s | 1.55 | 1.52 to 1.595 | 3 | s |" in text.splitlines()
    assert run("--json", "--markdown")[0] == 2
    empty = CliRunner().invoke(command_line.app, ["report", "--results", str(tmp_path)])
    assert (empty.exit_code, "no records there" in empty.stderr) == (4, True)


def test_a_damaged_record_is_refused_by_line(tmp_path: Path) -> None:
    add_record(tmp_path, "demo", [1.0])
    append_record(tmp_path / "demo.jsonl", {"format_version": 1, "name": "demo"})
    with pytest.raises(DataError, match=r"demo\.jsonl#2: not a benchmark's record"):
        read_histories(tmp_path)


def test_every_row_of_readme_s_tables_is_the_report_s() -> None:
    newest = {history.newest.name: history.newest for history in read_histories(RESULTS)}
    rows = [line for line in list_readme_lines(newest) if line.startswith("|")]
    assert len(rows) == 2 * 2 + 3 + 3
    lines = README.splitlines()
    assert [row for row in rows if row not in lines] == []
    changed = README.replace("| five | 4.3, ", "| five | 4.4, ").splitlines()
    assert len([row for row in rows if row not in changed]) == 1


def test_the_recorded_results_make_a_page() -> None:
    histories = read_histories(RESULTS)
    reader = PageReader(render_page(histories))
    questions = {history.newest.question for history in histories}
    assert questions <= set(reader.texts)
    assert len(reader.ids) == len(set(reader.ids))
