"""The charts of an evaluation of version 2: dots with intervals, heat maps, reliability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import PercentFormatter

from harness.report.charts import spell
from harness.report.evaluation.records import (
    GENERATE,
    Mark,
    Measurement,
    Reliability,
    Scores,
    TruthRates,
)
from harness.report.evaluation.systems import (
    contestant_of,
    headline_of,
    name_briefly,
    name_metric,
    name_system,
)
from harness.report.evaluation.tables import choose_slices
from harness.report.plots import Axes, Chart, LegendEntry, color, draw, series_role

MAX_LABEL = 24


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval on a line of its own.

    Attributes:
        label: Of the line.
        value: 0 to 1.
        low: Lower end of the interval, or None.
        high: Upper end, or None.
        role: Colour.
        is_hollow: Drawn as a ring: generated, not ranked.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    role: str
    is_hollow: bool = False


def draw_dots(
    name: str,
    title: str,
    dots: Sequence[Dot],
    *,
    goal: float | None = None,
    legend: Sequence[LegendEntry] = (),
    note: str = "",
) -> Chart:
    """Draw shares as dots with their intervals, one a line, the first on top.

    Args:
        name: Prefix of ids.
        title: What is shown.
        dots: One at least.
        goal: Where a broken line stands, or None.
        legend: What the colours mean, where the lines' names do not say it.
        note: Remark below.
    """
    right = max([one.high if one.high is not None else one.value for one in dots] + [goal or 0.0])

    def paint(axes: Axes) -> None:
        for line, one in enumerate(dots):
            if one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [line, line], color=color(one.role), linewidth=2.2, alpha=0.55)
            face = "none" if one.is_hollow else color(one.role)
            axes.plot(
                one.value,
                line,
                marker="o",
                markersize=6.5,
                markerfacecolor=face,
                markeredgecolor=color(one.role),
                markeredgewidth=1.8,
                clip_on=False,
                zorder=3,
            )
        if goal is not None:
            axes.axvline(goal, color=color("ink"), linestyle="--", linewidth=1.1)
        axes.set_yticks(range(len(dots)), [shorten(one.label) for one in dots])
        axes.set_ylim(len(dots) - 0.4, -0.6)
        _lay_share_axis(axes, right)

    height = 0.75 + 0.3 * len(dots)
    return Chart(title, draw(name, title, paint, height), list(legend), note)


def _lay_share_axis(axes: Axes, right: float) -> None:
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(0, 1.0 if right > 0.4 else max(0.1, 1.15 * right))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def shorten(label: str, most: int = MAX_LABEL) -> str:
    """A label that leaves room for the drawing."""
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def chart_systems(scores: Scores, prefix: str = "") -> list[Chart]:
    """Chart each task's headline metric: every baseline and model, with intervals and the goal."""
    charts = []
    for index, task in enumerate(scores.tasks):
        metric = headline_of(task, scores.measurements)
        lines = [one for one in scores.measurements if one.task == task and one.metric == metric]
        dots = [
            Dot(
                name_briefly(contestant_of(one)),
                one.value,
                one.low,
                one.high,
                contestant_of(one).role,
                one.method == GENERATE,
            )
            for one in sorted(lines, key=contestant_of)
            if one.value is not None
        ]
        if dots:
            goal = find_goal(scores.marks, task)
            note = "" if goal is None else f"Broken line: the goal, {goal:.0%}."
            title = f"{capitalize(task)}: {name_metric(metric or '')}"
            charts.append(draw_dots(f"{prefix}systems-{index}", title, dots, goal=goal, note=note))
    return charts


def capitalize(text: str) -> str:
    """A text with its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def find_goal(marks: Sequence[Mark], task: str) -> float | None:
    """The goal of a task, or None."""
    return next((one.wanted for one in marks if one.mark == task), None)


def chart_slices(scores: Scores) -> list[Chart]:
    """Chart the headline metric of the model after training (else before) by slice, a colour a task."""
    charts = []
    chosen = [one for one in choose_slices(scores) if one.value is not None and one.method != "baseline"]
    systems = {one.system for one in chosen}
    system = next((name for name in ("after", "before") if name in systems), None)
    for index, by in enumerate(dict.fromkeys(one.by for one in chosen)):
        lines = [one for one in chosen if one.by == by and one.system == system]
        tasks = list(dict.fromkeys(one.task for one in lines))
        dots = _slice_dots(lines, tasks)
        if dots:
            legend = [LegendEntry(task, series_role(t)) for t, task in enumerate(tasks)]
            title = f"{capitalize(name_system(system or ''))}, by {spell(by)}"
            charts.append(draw_dots(f"slices-{index}", title, dots, legend=legend if len(tasks) > 1 else []))
    return charts


def _slice_dots(lines: Sequence[Measurement], tasks: Sequence[str]) -> list[Dot]:
    """A dot for each task of each slice, a slice's first one labelled."""
    ordered = [
        one
        for name in dict.fromkeys(one.slice for one in lines)
        for task in tasks
        for one in lines
        if one.slice == name and one.task == task
    ]
    return [
        Dot(
            "" if i and ordered[i - 1].slice == one.slice else one.slice,
            one.value,
            one.low,
            one.high,
            series_role(tasks.index(one.task)),
        )
        for i, one in enumerate(ordered)
        if one.value is not None
    ]


def chart_truth(scores: Scores) -> list[Chart]:
    """Chart the hallucination rate of each system over all tasks, and by task."""
    whole = [one for one in scores.truth if not one.task and one.hallucination_rate is not None]
    if not whole:
        return []
    note = "Contradicted claims among those that the catalogue can check. Less is better."
    charts = [
        draw_dots(
            "truth",
            "Hallucination rate",
            [_rate_dot(one, name_system(one.system)) for one in whole],
            note=note,
        )
    ]
    parts = [one for one in scores.truth if one.task and one.hallucination_rate is not None]
    by_task = sorted(parts, key=lambda one: one.task)
    firsts = [i == 0 or one.task != by_task[i - 1].task for i, one in enumerate(by_task)]
    dots = [_rate_dot(one, one.task if first else "") for one, first in zip(by_task, firsts, strict=True)]
    if dots:
        systems = list(dict.fromkeys(one.system for one in parts))
        legend = [LegendEntry(name_system(name), _role_of(name)) for name in systems]
        charts.append(draw_dots("truth-task", "Hallucination rate by task", dots, legend=legend))
    return charts


def _rate_dot(one: TruthRates, label: str) -> Dot:
    assert one.hallucination_rate is not None
    return Dot(label, one.hallucination_rate, one.low, one.high, _role_of(one.system))


def _role_of(system: str) -> str:
    return contestant_of(Measurement("", "", "", system, None, None, None, 0)).role


def chart_reliability(scores: Scores) -> list[Chart]:
    """Chart accuracy against confidence, one diagram for each task; on the diagonal both agree."""
    charts = []
    for index, task in enumerate(dict.fromkeys(one.task for one in scores.reliability)):
        found = [one for one in scores.reliability if one.task == task]
        legend = [LegendEntry(name_system(one.system), _role_of(one.system)) for one in found]
        errors = ", ".join(f"{name_system(one.system)} {one.ece:.3f}" for one in found)
        title = f"{capitalize(task)}: accuracy by confidence"
        note = f"Expected calibration error: {errors}. A larger dot stands for more songs."
        svg = draw(f"reliability-{index}", title, _paint_reliability(found), 3.4)
        charts.append(Chart(title, svg, legend, note))
    return charts


def _paint_reliability(found: Sequence[Reliability]) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], "--", color=color("muted"), linewidth=1)
        for one in found:
            role = color(_role_of(one.system))
            total = sum(part.n for part in one.bins) or 1
            x = [part.confidence for part in one.bins]
            y = [part.accuracy for part in one.bins]
            axes.plot(x, y, color=role, linewidth=1.4, alpha=0.7)
            sizes = [14 + 220 * part.n / total for part in one.bins]
            axes.scatter(x, y, s=sizes, color=role, alpha=0.85, linewidths=0)
        axes.grid(visible=True, axis="x")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("confidence")

    return paint
