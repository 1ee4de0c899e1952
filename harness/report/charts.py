"""The report's charts: which of a run's figures are drawn, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.ticker import PercentFormatter

from harness.evaluation.accuracy import Accuracy
from harness.json_lines import JsonObject
from harness.report.bars import draw_bars, draw_stack
from harness.report.plots import Axes, Chart, LegendEntry, Series, color, draw, draw_lines
from harness.report.records import RunRecords, TaskResult

PART_ROLES = {
    "data": "s2",
    "forward": "s1",
    "forward_loss": "s1",
    "loss": "s4",
    "backward": "s7",
    "wait": "s8",
    "communication": "s3",
    "optimizer": "s5",
    "other": "s6",
}
"""Part of a step to its colour, the same in every chart. ("forward_loss" is what older runs have.)"""


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
    if run.evals:
        charts += _chart_eval_by_task(run)
    if trained := _train_series_by_task(run):
        charts.append(draw_lines("train-task-loss", "Train loss by task", trained))
    if run.train:
        rate = Series("", steps, take(run.train, "learning_rate"), style="exact")
        norm = Series("", steps, take(run.train, "grad_norm"))
        charts.append(draw_lines("learning-rate", "Learning rate", [rate], from_zero=True))
        charts.append(draw_lines("grad-norm", "Gradient norm before clipping", [norm], from_zero=True))
    return charts


def _eval_series(run: RunRecords) -> Series:
    return Series("eval", take(run.evals, "step"), take(run.evals, "loss"), style="marked")


def _chart_eval_by_task(run: RunRecords) -> list[Chart]:
    """Eval loss by task: lines, or bars where there was one evaluation."""
    series = _eval_series_by_task(run)
    if not series:
        return []
    if len(run.evals) > 1:
        return [draw_lines("task-loss", "Eval loss by task", series)]
    names = [line.label for line in series]
    bars = {"eval": [float(line.values[0]) for line in series]}
    note = f"Nats a supervised token, at step {run.evals[0]['step']:,}."
    return [draw_bars("task-loss", "Eval loss by task", names, bars, note)]


def _train_series_by_task(run: RunRecords) -> list[Series]:
    tables = [line.get("by_task") or {} for line in run.train]
    tasks = dict.fromkeys(task for table in tables for task in table)
    steps = take(run.train, "step")
    found = {task: take([table.get(task) or {} for table in tables], "loss") for task in tasks}
    return [
        Series(task, steps, losses, "smooth") for task, losses in found.items() if np.isfinite(losses).any()
    ]


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
    lines = [line["parts_s"] for line in timed]
    parts = [part for part in PART_ROLES if any(part in line for line in lines)]
    layers = {spell(part): take(lines, part) for part in parts}
    roles = [PART_ROLES[part] for part in parts]
    charts = [
        draw_lines("tokens-per-s", "Tokens a second, all ranks", [tokens, supervised], from_zero=True),
        draw_lines("samples-per-s", "Samples (examples) a second, all ranks", [samples], from_zero=True),
        *chart_tokens_per_example(run),
        *chart_utilization(run),
    ]
    if layers:
        title = "Seconds of a step by part, rank 0"
        charts.append(draw_stack("parts", title, take(timed, "step"), layers, roles))
    return charts


def chart_tokens_per_example(run: RunRecords) -> list[Chart]:
    """Chart the tokens that the model computed for one example: fewer where examples share a prefix."""
    examples, tokens = take(run.train, "examples"), take(run.train, "tokens")
    ratios = [t / e if e else math.nan for t, e in zip(tokens, examples, strict=True)]
    if not np.isfinite(ratios).any():
        return []
    line = Series("", take(run.train, "step"), ratios)
    return [draw_lines("tokens-per-example", "Tokens computed for one example", [line], from_zero=True)]


UTILIZATION = {
    "mfu": "MFU, of the peak",
    "hfu": "HFU, of the peak",
    "mfu_of_ceiling": "MFU, of the measured ceiling",
}


def chart_utilization(run: RunRecords) -> list[Chart]:
    """Chart the share of the cards' speed that the model's FLOPs make use of, where it was measured."""
    steps = take(run.train, "step")
    lines = [
        Series(label, steps, [100 * share for share in take(run.train, key)])
        for key, label in UTILIZATION.items()
        if any(line.get(key) is not None for line in run.train)
    ]
    note = (
        "MFU counts the FLOPs that the model needs, HFU the recomputed ones too. The peak is the card's data sheet's, "
        "the ceiling a matrix product's on this machine before the run."
    )
    title = "Share of the hardware's speed in use, %"
    return [replace(draw_lines("mfu", title, lines, from_zero=True), note=note)] if lines else []


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
