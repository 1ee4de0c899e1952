"""The charts of the benchmark report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.record import Figure
from bench.report.chosen import History
from harness.report.plots import Axes, Chart, LegendEntry, color, draw, series_role

MAX_BARS = 16
MAX_LINES = 6
LONGEST_NAME = 34
DECADES = 1000
"""Times the least bar that the longest may be before the axis is logarithmic."""


def chart_history(history: History, name: str) -> list[Chart]:
    """Ratios, figures by unit, and how they moved over the records.

    Args:
        history: Records of one program.
        name: Prefix of ids, unique on the page.
    """
    newest = history.newest
    charts = []
    if newest.ratios:
        title = f"Times as fast as {newest.baseline}"
        charts.append(draw_figures(f"{name}-ratios", title, newest.ratios))
    for index, (unit, figures) in enumerate(group_by_unit(newest.figures).items()):
        if len(figures) > 1 and len({figure.median for figure in figures.values()}) > 1:
            charts.append(draw_figures(f"{name}-{index}", unit or "without unit", figures))
    if choose_lines(history):
        charts.append(draw_course(f"{name}-course", history))
    return charts


def group_by_unit(figures: Mapping[str, Figure]) -> dict[str, dict[str, Figure]]:
    """Figures by their unit, in order."""
    grouped: dict[str, dict[str, Figure]] = {}
    for name, figure in figures.items():
        grouped.setdefault(figure.unit, {})[name] = figure
    return grouped


def shorten(name: str) -> str:
    """A name that leaves room for its bar."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def draw_figures(name: str, title: str, figures: Mapping[str, Figure]) -> Chart:
    """Medians as bars, with a line from the 20th to the 80th percentile."""
    shown = dict(list(figures.items())[:MAX_BARS])
    groups = [shorten(key) for key in shown]
    rest = len(figures) - len(shown)
    note = "Bars are medians, lines reach from the 20th to the 80th percentile."
    note += f" {rest} more are in the table." if rest else ""
    least, most = (pick(figure.median for figure in shown.values()) for pick in (min, max))
    is_logarithmic = 0 < least < most / DECADES
    note += " The axis is logarithmic." if is_logarithmic else ""

    def paint(axes: Axes) -> None:
        places = np.arange(len(shown))
        medians = np.array([figure.median for figure in shown.values()])
        axes.barh(places, medians, 0.7, color=color("s1"))
        for place, figure in zip(places, shown.values(), strict=True):
            if figure.n > 1:
                axes.plot([figure.p20, figure.p80], [place, place], color=color("ink"), linewidth=1.4)
        axes.set_yticks(places, groups)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="x", length=0)
        if is_logarithmic:
            axes.set_xscale("log")
            axes.set_xlim(left=least / 3)

    return Chart(title, draw(name, title, paint, 0.7 + 0.34 * len(shown)), [], note)


def draw_course(name: str, history: History) -> Chart:
    """How figures moved from record to record, each against its first value."""
    lines = choose_lines(history)
    title = "Over the records, against the first"
    labels = [label_record(history, index) for index in range(len(history.records))]

    def paint(axes: Axes) -> None:
        for index, figures in enumerate(lines.values()):
            start = next(figure.median for figure in figures if figure)
            role = color(series_role(index))
            points = [(i, figure) for i, figure in enumerate(figures) if figure]
            # Side by side, so that the lines of percentiles do not hide each other.
            places = [i + 0.06 * (index - (len(lines) - 1) / 2) for i, _ in points]
            axes.plot(
                places,
                [f.median / start for _, f in points],
                color=role,
                marker="o",
                markersize=4,
                linewidth=1.6,
            )
            for place, (_, figure) in zip(places, points, strict=True):
                axes.plot([place] * 2, [figure.p20 / start, figure.p80 / start], color=role, linewidth=1.0)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.3, len(labels) - 0.7)
        axes.set_ylim(bottom=0)

    legend = [LegendEntry(key, series_role(i)) for i, key in enumerate(lines)]
    note = "By commit, oldest first; lines reach from the 20th to the 80th percentile."
    return Chart(title, draw(name, title, paint), legend, note)


def choose_lines(history: History) -> dict[str, list[Figure | None]]:
    """The ratios of the newest record, or else its figures, that an earlier record has as well."""
    newest = history.newest
    lines: dict[str, list[Figure | None]] = {}
    for key in newest.ratios or newest.figures:
        found = [(record.ratios if newest.ratios else record.figures).get(key) for record in history.records]
        known = [figure for figure in found if figure]
        if len(known) > 1 and all(figure.median > 0 for figure in known):
            lines[key] = found
    return dict(list(lines.items())[:MAX_LINES])


def label_record(history: History, index: int) -> str:
    """A record's commit, shortly."""
    commit = history.records[index].commit or "no commit"
    return commit[:7] + ("+" if commit.endswith("+") else "")
