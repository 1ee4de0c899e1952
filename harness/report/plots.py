"""Charts as inline SVG whose colours are CSS variables, so that one file suits a light and a dark page.

matplotlib draws with stand-in colours, one for each role; afterwards each is replaced by the variable of
that role. Text stays text and takes the page's font. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Floats = npt.NDArray[np.float64]

Axes: TypeAlias = Any
"""A `matplotlib.axes.Axes`; the package is not typed throughout."""

NUM_SERIES_COLORS = 8
ROLES = ("ink", "muted", "grid", *(f"s{i}" for i in range(1, NUM_SERIES_COLORS + 1)))
STAND_INS = {role: f"#0{i:x}0f0{i:x}" for i, role in enumerate(ROLES, start=1)}
"""Role to the colour that matplotlib draws it with; no chart uses these colours for anything else."""

MAX_POINTS = 300
STYLE = {
    "svg.hashsalt": "lyrics-harness",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": STAND_INS["grid"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": STAND_INS["grid"],
    "grid.linewidth": 0.8,
    "axes.labelcolor": STAND_INS["muted"],
    "xtick.color": STAND_INS["grid"],
    "ytick.color": STAND_INS["grid"],
    "xtick.labelcolor": STAND_INS["muted"],
    "ytick.labelcolor": STAND_INS["muted"],
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A swatch in a series' colour with its name; the page draws it, so that it wraps on a phone."""

    label: str
    role: str
    shape: Literal["line", "box", "dash", "dot"] = "line"


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its words.

    Attributes:
        title: What is shown, with the unit.
        svg: The drawing.
        legend: Its series; empty when there is only one.
        note: A remark below, or "".
    """

    title: str
    svg: Markup
    legend: list[LegendEntry] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """A named line: steps and values of the same length, NaN where a value is missing."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    style: Literal["noisy", "smooth", "exact", "marked", "dashed"] = "noisy"
    """Noisy: a long line is pale, its running median strong. Smooth: the median alone, for one line of many. Exact: as
    it is. Marked: few points, each shown. Dashed: the same with a broken line, a second measure of the same colour."""
    role: str = ""
    """Its colour, or "" for the next one."""


def color(role: str) -> str:
    """Return the stand-in colour of a role."""
    return STAND_INS[role]


def series_role(index: int) -> str:
    """Return the role of the n-th series; colours repeat after eight."""
    return f"s{index % NUM_SERIES_COLORS + 1}"


def draw(name: str, label: str, paint: Callable[[Axes], None], height: float = 2.8) -> Markup:
    """Draw one chart.

    Args:
        name: Prefix of the drawing's ids, unique on the page.
        label: What a screen reader says.
        paint: Gets matplotlib's axes and draws on them.
        height: Of the drawing, where its width is 5.2.

    Returns:
        An <svg> element without fixed size, for the page as it is.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A name in a script that matplotlib's font lacks: the page's font has it, only the measure is off.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(5.2, height), layout="constrained")
        axes = figure.add_subplot()
        paint(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_adopt(out.getvalue(), name, label))


def _adopt(svg: str, name: str, label: str) -> str:
    """Make matplotlib's SVG file a part of the page: own ids, the page's colours and font, no metadata."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"font: ([^;\"]*?)([\d.]+px) [^;\"]*", r"font: \1\2 var(--font)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    for role, stand_in in STAND_INS.items():
        svg = svg.replace(stand_in, f"var(--{role})")
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None, "matplotlib wrote an <svg> without a viewBox"
    namespace = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {namespace} {box.group()} role="img" aria-label="{Markup.escape(label)}">'
    return head + svg[svg.index(">") + 1 :]


def thin(steps: Sequence[float], values: Sequence[float]) -> tuple[Floats, Floats]:
    """Take means over equal runs of steps, so that no line has more than `MAX_POINTS` points.

    Args:
        steps: float[n], ascending.
        values: float[n]; NaN where missing.

    Returns:
        Middle steps and means, float64[m] each with m at most `MAX_POINTS`. A run without any value is NaN.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(x) <= MAX_POINTS:
        return x, y
    bins = np.array_split(np.arange(len(x)), MAX_POINTS)
    means = [np.nanmean(y[b]) if np.isfinite(y[b]).any() else np.nan for b in bins]
    return np.array([x[b].mean() for b in bins]), np.array(means)


def smooth(values: Floats, window: int) -> Floats:
    """Return the running median over about `window` values around each; NaN is left out.

    The median, so that one slow step leaves no dent; around, so that the curve does not lag.
    """
    half = window // 2
    around = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return np.array([np.nanmedian(v) if np.isfinite(v).any() else np.nan for v in around])


def format_number(value: float, position: int | None = None) -> str:
    """Write a tick shortly: 12k, 1.5M, 0.25, 5e-05. `position` is matplotlib's and unused."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}"


def set_step_axes(axes: Axes, from_zero: bool, x_label: str = "step") -> None:
    """Label a chart over steps, or over what else grows with them: few ticks, whole steps, short numbers."""
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=x_label == "step"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=4))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(format_number))
    if from_zero:
        axes.set_ylim(bottom=0)


def draw_lines(
    name: str,
    title: str,
    series: Sequence[Series],
    from_zero: bool = False,
    x_label: str = "step",
) -> Chart:
    """Draw lines over steps; a long noisy one is pale with its running median on top.

    Args:
        name: Prefix of ids.
        title: What is shown, with the unit.
        series: At least one line.
        from_zero: Whether the value axis starts at zero (rates and times, where a cut axis exaggerates).
        x_label: What the lines are drawn over.
    """
    roles = [line.role or series_role(index) for index, line in enumerate(series)]

    def paint(axes: Axes) -> None:
        for line, role in zip(series, roles, strict=True):
            _paint_line(axes, line, color(role))
        set_step_axes(axes, from_zero, x_label)

    legend = [LegendEntry(line.label, role) for line, role in zip(series, roles, strict=True) if line.label]
    thinned = max(len(line.steps) for line in series) > MAX_POINTS
    note = f"Means of neighbouring steps, {MAX_POINTS} points a line." if thinned else ""
    return Chart(title, draw(name, title, paint), legend if len(legend) > 1 else [], note)


def _paint_line(axes: Axes, line: Series, line_color: str) -> None:
    steps, values = thin(line.steps, line.values)
    # Few points are marked: one alone between two gaps would not show as a line.
    if line.style == "dashed":
        axes.plot(steps, values, "--", color=line_color, linewidth=1.4, marker="o", markersize=3.5)
    elif line.style == "marked" or len(steps) < 12:
        axes.plot(steps, values, color=line_color, linewidth=1.6, marker="o", markersize=4)
    elif line.style == "exact" or len(steps) < 40:
        axes.plot(steps, values, color=line_color, linewidth=1.8)
    else:
        if line.style != "smooth":
            axes.plot(steps, values, color=line_color, linewidth=0.8, alpha=0.35)
        axes.plot(steps, smooth(values, max(5, len(values) // 20)), color=line_color, linewidth=1.9)
