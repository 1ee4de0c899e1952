"""Charts of bars and of stacked layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from harness.report.plots import (
    Axes,
    Chart,
    LegendEntry,
    color,
    draw,
    format_number,
    series_role,
    set_step_axes,
    thin,
)


def lay_bars(axes: Axes) -> None:
    """Give a chart of lying bars its axes."""
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlim(left=0)


def draw_stack(
    name: str,
    title: str,
    steps: Sequence[float],
    layers: Mapping[str, Sequence[float]],
    roles: Sequence[str],
) -> Chart:
    """Draw quantities that add up, over steps.

    A step far above the rest (the first, as a rule) would flatten all others: the axis ends at twice the
    median total, and the note says what lies above it.

    Args:
        name: Prefix of ids.
        title: What is shown, with the unit.
        steps: float[n].
        layers: Label to float[n], from the bottom up.
        roles: Colour of each layer.
    """
    x = thin(steps, steps)[0]
    heights = [np.nan_to_num(thin(steps, values)[1]) for values in layers.values()]
    totals = np.sum(heights, axis=0)
    top = 2 * float(np.median(totals))
    is_cut = 0 < top < totals.max()

    def paint(axes: Axes) -> None:
        colors = [color(role) for role in roles]
        if len(x) < 3:
            for i, height in enumerate(heights):
                axes.bar(x, height, bottom=sum(heights[:i], np.zeros(len(x))), color=colors[i], width=0.5)
        else:
            axes.stackplot(x, *heights, colors=colors, alpha=0.9, linewidth=0)
        set_step_axes(axes, from_zero=True)
        if is_cut:
            axes.set_ylim(0, top)

    legend = [LegendEntry(label, role, "box") for label, role in zip(layers, roles, strict=True)]
    note = f"The axis is cut: the highest total is {format_number(float(totals.max()))}." if is_cut else ""
    return Chart(title, draw(name, title, paint), legend, note)


def draw_bars(
    name: str, title: str, groups: Sequence[str], bars: Mapping[str, Sequence[float]], note: str
) -> Chart:
    """Draw groups of horizontal bars, the first group on top.

    Args:
        name: Prefix of ids.
        title: What is shown, with the unit.
        groups: n names down the axis.
        bars: Label to float[n], NaN where there is no bar.
        note: Remark below the drawing.
    """

    def paint(axes: Axes) -> None:
        width = 0.8 / len(bars)
        for index, lengths in enumerate(bars.values()):
            offset = (index - (len(bars) - 1) / 2) * width
            axes.barh(np.arange(len(groups)) + offset, lengths, width * 0.9, color=color(series_role(index)))
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
        lay_bars(axes)

    legend = [LegendEntry(label, series_role(i), "box") for i, label in enumerate(bars)]
    height = 0.7 + len(groups) * 0.4
    return Chart(title, draw(name, title, paint, height), legend if len(bars) > 1 else [], note)
