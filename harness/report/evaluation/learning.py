"""Learning curves: accuracy on held-out songs at several checkpoints of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.ticker import MaxNLocator, PercentFormatter

from harness.report.evaluation.charts import find_goal
from harness.report.evaluation.learning_file import CurvePoint
from harness.report.evaluation.records import Mark
from harness.report.plots import Axes, Chart, LegendEntry, color, draw, series_role
from harness.report.tables import NOTHING, Table


def chart_curve(points: Sequence[CurvePoint], marks: Sequence[Mark] = ()) -> list[Chart]:
    """Chart accuracy over steps: a line a task, its 95 % interval as a band, its goal as a broken line."""
    tasks = list(dict.fromkeys(task for point in points for task in point.accuracy))
    if len(points) < 2 or not tasks:
        return []
    legend = [LegendEntry(task, series_role(index)) for index, task in enumerate(tasks)]
    goals = any(find_goal(marks, task) is not None for task in tasks)
    note = "Held-out songs, the likeliest of all names; step 0 is the base model. Bands: 95 % intervals." + (
        " Broken lines: goals." if goals else ""
    )
    title = "Accuracy at checkpoints"
    return [Chart(title, draw("learning", title, _paint(points, tasks, marks)), legend, note)]


def _paint(
    points: Sequence[CurvePoint], tasks: Sequence[str], marks: Sequence[Mark]
) -> Callable[[Axes], None]:
    missing = (math.nan, math.nan, math.nan)

    def paint(axes: Axes) -> None:
        steps = [point.step for point in points]
        for index, task in enumerate(tasks):
            role = color(series_role(index))
            value, low, high = zip(*(point.accuracy.get(task, missing) for point in points), strict=True)
            axes.fill_between(steps, low, high, color=role, alpha=0.13, linewidth=0)
            axes.plot(steps, value, color=role, linewidth=1.8, marker="o", markersize=4.5)
            goal = find_goal(marks, task)
            if goal is not None:
                axes.axhline(goal, color=role, linestyle="--", linewidth=1)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    return paint


def tabulate_curve(points: Sequence[CurvePoint]) -> list[Table]:
    """Tabulate accuracy by checkpoint."""
    tasks = list(dict.fromkeys(task for point in points for task in point.accuracy))
    if not tasks:
        return []
    rows = [
        [f"{point.step:,}", *(_write(point.accuracy.get(task), point.num_songs.get(task)) for task in tasks)]
        for point in points
    ]
    return [Table("Accuracy at checkpoints", ["step", *tasks], rows)]


def _write(found: tuple[float, float, float] | None, num_songs: int | None) -> str:
    if found is None:
        return NOTHING
    value, low, high = found
    return f"{value:.1%} of {num_songs:,}\n{100 * low:.1f} to {100 * high:.1f}"
