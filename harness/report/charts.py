"""The report's charts: which of a run's figures are drawn, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.ticker import PercentFormatter

from harness.accuracy import Accuracy
from harness.json_lines import JsonObject
from harness.report.plots import (
    Axes,
    Chart,
    LegendEntry,
    Series,
    color,
    draw,
    draw_lines,
    draw_stack,
)
from harness.report.records import RunRecords, TaskResult

STEP_PARTS = ("data", "forward", "loss", "backward", "optimizer", "other")


def take(lines: Sequence[JsonObject], key: str) -> list[float]:
    """Return one key of every line as floats; null and missing are NaN."""
    return [math.nan if line.get(key) is None else float(line[key]) for line in lines]


def spell(name: str) -> str:
    """Write the name of a part, a phase or a key for a reader."""
    return name.replace("_", " ")


def chart_training(run: RunRecords) -> list[Chart]:
    """Chart loss, loss by task, learning rate and gradient norm."""
    steps = take(run.train, "step")
    train, evals = Series("train", steps, take(run.train, "loss")), _eval_series(run)
    charts = []
    if run.train or run.evals:
        lines = ([train] if run.train else []) + ([evals] if run.evals else [])
        charts.append(draw_lines("loss", "Loss, nats a supervised token", lines))
    by_task = _eval_series_by_task(run)
    if by_task:
        charts.append(draw_lines("task-loss", "Eval loss by task", by_task))
    if run.train:
        rate = Series("", steps, take(run.train, "learning_rate"), style="exact")
        norm = Series("", steps, take(run.train, "grad_norm"))
        charts.append(draw_lines("learning-rate", "Learning rate", [rate], from_zero=True))
        charts.append(draw_lines("grad-norm", "Gradient norm before clipping", [norm], from_zero=True))
    return charts


def _eval_series(run: RunRecords) -> Series:
    return Series("eval", take(run.evals, "step"), take(run.evals, "loss"), style="marked")


def _eval_series_by_task(run: RunRecords) -> list[Series]:
    tables = [line.get("by_task", {}) for line in run.evals]
    tasks = dict.fromkeys(task for table in tables for task in table)
    steps = take(run.evals, "step")
    return [Series(task, steps, take(tables, task), style="marked") for task in tasks]


def chart_throughput(run: RunRecords) -> list[Chart]:
    """Chart tokens and samples a second for every step, and the step's time by part."""
    if not run.train:
        return []
    steps = take(run.train, "step")
    tokens = Series("tokens", steps, take(run.train, "tokens_per_s"))
    supervised = Series("supervised tokens", steps, take(run.train, "supervised_tokens_per_s"))
    samples = Series("samples", steps, take(run.train, "samples_per_s"))
    timed = [line for line in run.train if "other" in line.get("parts_s", {})]  # on a GPU, one step in some
    parts = [line["parts_s"] for line in timed]
    layers = {spell(part): take(parts, part) for part in STEP_PARTS}
    return [
        draw_lines("tokens-per-s", "Tokens a second, all ranks", [tokens, supervised], from_zero=True),
        draw_lines("samples-per-s", "Samples (examples) a second, all ranks", [samples], from_zero=True),
        draw_stack("parts", "Seconds of a step by part", take(timed, "step"), layers),
    ]


def chart_accuracy(tasks: Sequence[TaskResult]) -> list[Chart]:
    """Chart accuracy by task before and after, with 95 % intervals and the levels of guessing."""
    if not tasks:
        return []

    def paint(axes: Axes) -> None:
        for index, task in enumerate(tasks):
            _paint_accuracy(axes, index - 0.19, task.before, "s6")
            _paint_accuracy(axes, index + 0.19, task.after, "s1")
            for level, style in ((task.chance, "--"), (task.majority, ":")):
                if level is not None:
                    axes.plot(
                        [index - 0.42, index + 0.42], [level] * 2, style, color=color("s2"), linewidth=1.8
                    )
        axes.set_xticks(range(len(tasks)), [task.task for task in tasks])
        axes.tick_params(axis="x", length=0, labelrotation=25 if len(tasks) > 5 else 0)
        axes.set_xlim(-0.6, len(tasks) - 0.4)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    legend = [
        LegendEntry("before", "s6", "box"),
        LegendEntry("after", "s1", "box"),
        LegendEntry("chance", "s2", "dash"),
        LegendEntry("most frequent answer", "s2", "dot"),
    ]
    title = "Accuracy, with 95 % intervals"
    return [Chart(title, draw("accuracy", title, paint), legend)]


def _paint_accuracy(axes: Axes, x: float, result: Accuracy | None, role: str) -> None:
    if result is None:
        return
    # Rounding may put a bound on the wrong side of the share by one unit in the last place.
    below, above = max(0.0, result.accuracy - result.low), max(0.0, result.high - result.accuracy)
    axes.bar(x, result.accuracy, 0.34, color=color(role))
    axes.errorbar(
        x, result.accuracy, [[below], [above]], color=color("ink"), capsize=3.5, linewidth=1.2, fmt="none"
    )
