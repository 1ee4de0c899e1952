"""Several runs on one page: overlaid curves, figures beside the first run's, settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.json_lines import JsonObject, replace_text
from harness.report.answers import compare_questions
from harness.report.compare.charts import chart_comparison, chart_loss_of_runs, chart_tasks_of_runs
from harness.report.compare.differences import list_differences, tabulate_differences
from harness.report.compare.figures import compare_cards, list_figures, tabulate_figures, to_json
from harness.report.page import Page, Section, render_page
from harness.report.plots import NUM_SERIES_COLORS
from harness.report.records import RunRecords
from preprocess.errors import ConfigError

__all__ = ["COMPARISON_FILE", "compare_runs", "label_runs", "write_comparison"]

COMPARISON_FILE = "comparison.html"


def label_runs(run_dirs: Sequence[Path]) -> list[str]:
    """A short name for each run: its folder's, with as many parents as tell it from the others.

    Raises:
        ConfigError: A folder is given twice, or there are more than a chart has colours for.
    """
    paths = [path.resolve() for path in run_dirs]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise ConfigError(f"{twice} is given twice; name each run once")
    if len(paths) > NUM_SERIES_COLORS:
        raise ConfigError(
            f"got {len(paths)} runs, expected at most {NUM_SERIES_COLORS}: a chart has no more colours. "
            "Compare fewer at a time"
        )
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            break
    return labels


def compare_runs(runs: Sequence[tuple[str, RunRecords]]) -> tuple[Page, JsonObject]:
    """The page of several runs, the first being the baseline, and its figures as plain values.

    Args:
        runs: Labels and runs, two at least.
    """
    figures = list_figures(runs)
    page = Page(
        title=" and ".join([", ".join(label for label, _ in runs[:-1]), runs[-1][0]]),
        kind="Comparison of training runs",
        cards=compare_cards(figures, [label for label, _ in runs]),
        warnings=list_differences(runs),
        sections=[
            Section("figures", "Side by side", chart_tasks_of_runs(runs), tabulate_figures(figures, runs)),
            Section("training", "Training", chart_loss_of_runs(runs), []),
            Section("throughput", "Throughput", chart_comparison(runs), []),
            Section("settings", "What differs", [], tabulate_differences(runs)),
        ],
        questions=compare_questions(runs),
        configs={f"{label}: config.yaml": run.config for label, run in runs if run.config},
        missing=[f"{label}: {sentence}" for label, run in runs for sentence in run.missing],
    )
    return page, to_json(figures, runs)


def write_comparison(
    run_dirs: Sequence[Path], runs: Sequence[RunRecords], output: Path | None = None
) -> tuple[Path, JsonObject]:
    """Write the page of several runs.

    Args:
        run_dirs: Their folders, the baseline's first.
        runs: What they hold.
        output: The file, or None for comparison.html in the first folder.

    Returns:
        Path of the file, and what it says as plain values.

    Raises:
        ConfigError: A folder is given twice, or too many are.
    """
    page, figures = compare_runs(list(zip(label_runs(run_dirs), runs, strict=True)))
    path = output or run_dirs[0] / COMPARISON_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, render_page(page))
    return path, {**page.to_json(), **figures}
