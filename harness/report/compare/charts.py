"""The comparison's charts: every run in its own colour, the same in all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from harness.report.bars import draw_bars, lay_bars
from harness.report.charts import PART_ROLES, spell, take
from harness.report.plots import Axes, Chart, LegendEntry, Series, color, draw, draw_lines, series_role
from harness.report.ranks import read_rank_times
from harness.report.records import RunRecords

Runs = Sequence[tuple[str, RunRecords]]

DIGITS_OF_ACCURACY = 100


def count_tokens(run: RunRecords) -> list[float]:
    """Tokens computed up to the end of each step."""
    return [float(total) for total in np.cumsum(np.nan_to_num(take(run.train, "tokens")))]


def count_minutes(run: RunRecords) -> list[float]:
    """Minutes up to the end of each step: steps, evaluations and saves."""
    apart = [sum(line.get("parts_s", {}).get(part, 0.0) for part in ("eval", "save")) for line in run.train]
    seconds = np.nan_to_num(take(run.train, "step_time_s")) + np.array(apart)
    return [float(total) for total in np.cumsum(seconds) / 60]


def count_steps(run: RunRecords) -> list[float]:
    """Numbers of the steps."""
    return take(run.train, "step")


OVER: dict[str, tuple[str, Callable[[RunRecords], list[float]]]] = {
    "step": ("step", count_steps),
    "tokens": ("tokens computed", count_tokens),
    "time": ("minutes of training", count_minutes),
}
"""What a loss is drawn over: id to the axis' words and the values of each step."""


def chart_loss_of_runs(runs: Runs) -> list[Chart]:
    """Chart train and eval loss against step, tokens and wall time, the learning rate and the gradient's norm."""
    charts = []
    for name, (label, measure) in OVER.items():
        series = [
            line for index, (title, run) in enumerate(runs) for line in _losses(title, run, measure, index)
        ]
        if series:
            title = f"Loss against {'wall time' if name == 'time' else name}; eval dashed"
            charts.append(draw_lines(f"loss-{name}", title, series, x_label=label))
    charts += _chart_key(runs, "learning_rate", "Learning rate")
    return charts + _chart_key(runs, "grad_norm", "Gradient norm before clipping")


def _losses(
    label: str, run: RunRecords, measure: Callable[[RunRecords], list[float]], index: int
) -> list[Series]:
    if not run.train:
        return []
    x = measure(run)
    lines = [Series(label, x, take(run.train, "loss"), "smooth", series_role(index))]
    by_step = dict(zip(take(run.train, "step"), x, strict=True))
    evals = [line for line in run.evals if line["step"] in by_step and line.get("loss") is not None]
    if evals:
        places = [by_step[line["step"]] for line in evals]
        lines.append(Series("", places, take(evals, "loss"), "dashed", series_role(index)))
    return lines


def _chart_key(runs: Runs, key: str, title: str) -> list[Chart]:
    lines = [
        Series(label, count_steps(run), take(run.train, key), "smooth", series_role(index))
        for index, (label, run) in enumerate(runs)
        if run.train
    ]
    return [draw_lines(key.replace("_", "-"), title, lines, from_zero=True)] if lines else []


def chart_comparison(runs: Runs) -> list[Chart]:
    """Chart the rates over steps, the time of a step by part, and peak memory."""
    charts = _chart_key(runs, "tokens_per_s", "Tokens a second, all ranks")
    charts += _chart_key(runs, "samples_per_s", "Samples (examples) a second, all ranks")
    charts += _chart_parts_of_runs(runs)
    peaks = [max((record.peak_bytes for record in run.memory), default=0) / 2**30 for _, run in runs]
    if any(peaks):
        names = [label for label, _ in runs]
        bars = {"peak": [peak or math.nan for peak in peaks]}
        charts.append(draw_bars("memory", "Peak memory of the fullest rank, GiB", names, bars, ""))
    return charts


def mean_parts_s(run: RunRecords) -> dict[str, float]:
    """Mean seconds of a step by part, over the measured steps and all ranks; {} without any."""
    times = read_rank_times(run)
    return {} if times is None else {part: float(seconds.mean()) for part, seconds in times.parts_s.items()}


def _chart_parts_of_runs(runs: Runs) -> list[Chart]:
    by_run = [(label, mean_parts_s(run)) for label, run in runs]
    parts = [part for part in PART_ROLES if any(found.get(part) for _, found in by_run)]
    if not parts:
        return []

    def paint(axes: Axes) -> None:
        left = np.zeros(len(by_run))
        for part in parts:
            widths = np.array([found.get(part, 0.0) for _, found in by_run])
            axes.barh(np.arange(len(by_run)), widths, 0.7, left=left, color=color(PART_ROLES[part]))
            left += widths
        axes.set_yticks(range(len(by_run)), [label for label, _ in by_run])
        axes.invert_yaxis()
        lay_bars(axes)
        axes.set_xlabel("seconds")

    legend = [LegendEntry(spell(part), PART_ROLES[part], "box") for part in parts]
    title = "A step's time by part, mean of ranks"
    drawing = draw("parts", title, paint, 0.95 + 0.36 * len(by_run))
    return [Chart(title, drawing, legend, "Warm-up is left out.")]


def chart_tasks_of_runs(runs: Runs) -> list[Chart]:
    """Chart every run's eval loss by task at its last evaluation, and its accuracy by task after training."""
    charts = []
    losses = {label: run.evals[-1].get("by_task") or {} for label, run in runs if run.evals}
    tasks = list(dict.fromkeys(task for found in losses.values() for task in found))
    if tasks:
        bars = {
            label: [float(found.get(task) or math.nan) for task in tasks] for label, found in losses.items()
        }
        charts.append(
            draw_bars("task-loss", "Last eval loss by task", tasks, bars, "Nats a supervised token.")
        )
    accuracies = {
        label: {one.task: one.after.accuracy for one in run.tasks if one.after} for label, run in runs
    }
    tasks = list(dict.fromkeys(task for found in accuracies.values() for task in found))
    if tasks:
        bars = {
            label: [DIGITS_OF_ACCURACY * found.get(task, math.nan) for task in tasks]
            for label, found in accuracies.items()
        }
        note = "After training. The table has the 95 % intervals."
        charts.append(draw_bars("accuracy", "Accuracy by task, %", tasks, bars, note))
    return charts
