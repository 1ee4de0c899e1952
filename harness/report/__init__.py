"""The report of a run: one HTML file that opens anywhere, without a network, and shows all that was measured."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.json_lines import replace_text
from harness.report.charts import chart_accuracy, chart_throughput, chart_training
from harness.report.headlines import list_cards
from harness.report.incidents import list_warnings, tabulate_incidents
from harness.report.memory import chart_memory, chart_parts, chart_timeline
from harness.report.plan import chart_plan, check_plan, tabulate_plan
from harness.report.plots import Chart
from harness.report.prediction import chart_prediction, tabulate_prediction
from harness.report.ranks import chart_ranks, read_rank_times, tabulate_ranks
from harness.report.records import PLAN_FILE, RunRecords, read_run
from harness.report.setup import tabulate_ceilings, tabulate_setup
from harness.report.tables import (
    OVERVIEW,
    Table,
    tabulate_accuracy,
    tabulate_memory,
    tabulate_nested,
    tabulate_throughput,
)

__all__ = ["REPORT_FILE", "render_report", "write_report"]

REPORT_FILE = "report.html"


def write_report(run_dir: Path) -> Path:
    """Write a run's report from whatever its folder holds; what is missing is left out, with a line saying so.

    The same folder gives the same bytes.

    Args:
        run_dir: Folder of the run, with any of config.yaml, metrics.jsonl, memory.jsonl, memory_timeline.jsonl,
            memory_plan.json, evaluation.json, demo.json, quality.json, versions.json.

    Returns:
        Path of the file, `run_dir`/report.html.

    Raises:
        DataError: The folder is missing, is no run's, or holds a damaged file.
    """
    path = run_dir / REPORT_FILE
    run = read_run(run_dir)
    if run.plan:
        check_plan(run_dir / PLAN_FILE, run.plan)
    replace_text(path, render_report(run))
    return path


def render_report(run: RunRecords) -> str:
    """Render the page. Every text of the run is escaped."""
    folder = files("harness.report")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    return page.render(
        run=run,
        css=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
        cards=list_cards(run),
        warnings=list_warnings(run),
        sections=list_sections(run),
        setup=tabulate_setup(run),
    )


def list_sections(run: RunRecords) -> list[dict[str, object]]:
    """List the sections of charts and tables that have content, in the order of the page."""
    times = read_rank_times(run)
    speed = tabulate_throughput(run) + tabulate_ceilings(run)
    sections = [
        ("accuracy", "Accuracy", chart_accuracy(run.tasks), tabulate_accuracy(run)),
        ("training", "Training", chart_training(run), []),
        ("throughput", "Throughput", chart_throughput(run), speed),
        ("ranks", "Ranks", chart_ranks(times), tabulate_ranks(times)),
        ("plan", "Plan", chart_plan(run.plan), tabulate_plan(run.plan)),
        ("memory", "Memory", list_memory_charts(run), tabulate_all_memory(run)),
        ("data", "Data", [], tabulate_nested(OVERVIEW, run.quality)),
        ("events", "Events", [], tabulate_incidents(run)),
    ]
    return [
        {"id": name, "title": title, "charts": charts, "tables": tables}
        for name, title, charts, tables in sections
        if charts or tables
    ]


def list_memory_charts(run: RunRecords) -> list[Chart]:
    """Where memory went: by phase, by part, within one step, and against what was predicted."""
    return [
        *chart_memory(run.memory),
        *chart_parts(run.memory, run.timelines),
        *chart_timeline(run.timelines),
        *chart_prediction(run.memory, run.timelines, run.memory_plans),
    ]


def tabulate_all_memory(run: RunRecords) -> list[Table]:
    """Peaks by phase and rank, and predicted beside measured."""
    return tabulate_memory(run.memory) + tabulate_prediction(run.memory, run.timelines, run.memory_plans)
