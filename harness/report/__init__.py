"""The report of a run: one HTML file that opens anywhere, without a network, and shows all that was measured."""

from __future__ import annotations

from pathlib import Path

from harness.json_lines import replace_text
from harness.report.answers import list_questions
from harness.report.charts import chart_throughput, chart_training
from harness.report.evaluation.sections import list_evaluation_sections
from harness.report.headlines import list_cards
from harness.report.incidents import list_warnings, tabulate_incidents
from harness.report.losses import tabulate_losses
from harness.report.memory import chart_memory, chart_parts, chart_timeline
from harness.report.page import Page, Section, render_page
from harness.report.plan import chart_plan, check_plan, tabulate_plan
from harness.report.plots import Chart
from harness.report.prediction import chart_prediction, tabulate_prediction
from harness.report.profile import chart_profile, tabulate_profile
from harness.report.ranks import chart_ranks, read_rank_times, tabulate_ranks
from harness.report.records import PLAN_FILE, RunRecords, read_run
from harness.report.roofline import chart_roofline, tabulate_roofline
from harness.report.setup import tabulate_ceilings, tabulate_setup
from harness.report.tables import (
    OVERVIEW,
    Table,
    tabulate_memory,
    tabulate_nested,
    tabulate_throughput,
)

__all__ = ["REPORT_FILE", "make_page", "read_whole_run", "render_report", "write_report"]

REPORT_FILE = "report.html"


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write a run's report from whatever its folder holds; what is missing is left out, with a line saying so.

    The same folder gives the same bytes.

    Args:
        run_dir: Folder of the run, with any of config.yaml, metrics.jsonl, memory.jsonl, memory_timeline.jsonl,
            memory_plan.json, ceilings.json, evaluation.json, demo.json, quality.json, versions.json, hashes.json,
            launch/attempts.jsonl.
        output: The file, or None for `run_dir`/report.html.

    Returns:
        Path of the file.

    Raises:
        DataError: The folder is missing, is no run's, or holds a damaged file.
    """
    path = output or run_dir / REPORT_FILE
    page = render_report(read_whole_run(run_dir))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, page)
    return path


def read_whole_run(run_dir: Path) -> RunRecords:
    """Read a run folder, its plan checked too.

    Raises:
        DataError: See `write_report`.
    """
    run = read_run(run_dir)
    if run.plan:
        check_plan(run_dir / PLAN_FILE, run.plan)
    return run


def render_report(run: RunRecords) -> str:
    """Render a run's page. Every text of the run is escaped."""
    return render_page(make_page(run))


def make_page(run: RunRecords) -> Page:
    """All that a run's page shows."""
    return Page(
        title=run.name,
        kind=run.kind,
        cards=list_cards(run),
        warnings=list_warnings(run),
        sections=list_sections(run),
        questions=list_questions(run),
        setup=tabulate_setup(run),
        configs={"config.yaml": run.config} if run.config else {},
        missing=run.missing,
    )


def list_sections(run: RunRecords) -> list[Section]:
    """The page's sections in order: what came of the run, how it got there, what it was made of."""
    times = read_rank_times(run)
    speed = tabulate_throughput(run) + tabulate_ceilings(run)
    return [
        *list_evaluation_sections(run),
        Section("training", "Training", chart_training(run), tabulate_losses(run)),
        Section("throughput", "Throughput", chart_throughput(run), speed),
        Section("ranks", "Ranks", chart_ranks(times), tabulate_ranks(times)),
        Section("roofline", "Roofline", chart_roofline(run), tabulate_roofline(run)),
        Section("profile", "Profile", chart_profile(run.profile), tabulate_profile(run.profile)),
        Section("plan", "Plan", chart_plan(run.plan), tabulate_plan(run.plan)),
        Section("memory", "Memory", list_memory_charts(run), tabulate_all_memory(run)),
        Section("data", "Data", [], tabulate_nested(OVERVIEW, run.quality)),
        Section("events", "Events", [], tabulate_incidents(run)),
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
