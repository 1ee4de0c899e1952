"""The report's charts of memory: peaks by phase, what a rank holds, one step's timeline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.memory.case import PARTS_OF_STATE, PHASES, Phase
from harness.memory.profile import GIB, MemoryRecord, describe_peaks
from harness.memory.timeline import MemoryTimeline
from harness.report.bars import draw_bars, lay_bars
from harness.report.charts import spell
from harness.report.plots import (
    NUM_SERIES_COLORS,
    Axes,
    Chart,
    LegendEntry,
    color,
    draw,
    format_number,
    series_role,
)

STEP_PHASES: tuple[Phase, ...] = ("forward", "loss", "backward", "optimizer")

REST = "the rest of the step's peak"
UNUSED = "reserved, not in use"
BASE = "Python and its libraries"

UNITS = (("GiB", GIB), ("MiB", 2**20))


def choose_unit(num_bytes: float) -> tuple[str, int]:
    """The unit to draw an axis of so many bytes in, and its bytes."""
    return next(((name, size) for name, size in UNITS if num_bytes >= size / 2), UNITS[-1])


def chart_memory(records: Sequence[MemoryRecord]) -> list[Chart]:
    """Chart the peak of every phase on every rank; beyond eight ranks, the highest and the lowest of them."""
    if not records:
        return []
    phases = [phase for phase in PHASES if any(record.phase == phase for record in records)]
    peaks = {(record.rank, record.phase): record.peak_bytes / GIB for record in records}
    ranks = sorted({record.rank for record in records})
    by_rank = {rank: [peaks.get((rank, phase), math.nan) for phase in phases] for rank in ranks}
    bars = {f"rank {rank}": heights for rank, heights in by_rank.items()}
    if len(ranks) > NUM_SERIES_COLORS:
        stacked = np.array(list(by_rank.values()))
        highest, lowest = np.nanmax(stacked, axis=0).tolist(), np.nanmin(stacked, axis=0).tolist()
        bars = {f"highest of {len(ranks)} ranks": highest, "lowest": lowest}
    names = [spell(phase) for phase in phases]
    note = f"Peak: {describe_peaks(records)}."
    return [draw_bars("memory", "Peak memory by phase, GiB", names, bars, note)]


def stack_of_rank(records: Sequence[MemoryRecord], timeline: MemoryTimeline | None) -> dict[str, int]:
    """What one rank's memory is made of at a step's peak, in bytes from the bottom up.

    Args:
        records: The rank's.
        timeline: The rank's; on the CPU, where a phase has no peak of its own, the highest point of it counts too.
    """
    within = [record for record in records if record.phase in STEP_PHASES and record.parts]
    if not within:
        return {}
    parts = max((record.parts for record in within), key=lambda held: sum(held.values()))
    seen = [record.max.get("peak_allocated", record.max.get("allocated", 0)) for record in within]
    peak = max([*seen, timeline.peak.allocated if timeline else 0])
    base = within[0].base_bytes
    stack = {spell(part): parts.get(part, 0) for part in PARTS_OF_STATE}
    stack[REST] = max(0, peak - base - sum(parts.values()))
    stack[UNUSED] = max(0, max(record.max.get("peak_reserved", 0) for record in within) - peak)
    stack[BASE] = base
    return stack


def chart_parts(records: Sequence[MemoryRecord], timelines: Sequence[MemoryTimeline]) -> list[Chart]:
    """Chart what each rank's memory is made of at a step's peak; beyond eight ranks, of the fullest ones."""
    by_rank = {line.rank: line for line in timelines}
    stacks = {
        rank: stack_of_rank([one for one in records if one.rank == rank], by_rank.get(rank))
        for rank in sorted({record.rank for record in records})
    }
    stacks = {rank: stack for rank, stack in stacks.items() if stack}
    if not stacks:
        return []
    fullest = sorted(stacks, key=lambda rank: -sum(stacks[rank].values()))[:NUM_SERIES_COLORS]
    unit, size = choose_unit(sum(stacks[fullest[0]].values()))
    layers = [
        name for name in stacks[fullest[0]] if any(stack[name] * 1000 > size for stack in stacks.values())
    ]
    note = "State as its tensors are; the rest is activations, logits and what layers at work make and drop."
    if len(stacks) > len(fullest):
        note = f"The fullest {len(fullest)} of {len(stacks)} ranks. {note}"
    ranks = sorted(fullest)

    def paint(axes: Axes) -> None:
        left = np.zeros(len(ranks))
        for index, name in enumerate(layers):
            widths = np.array([stacks[rank][name] / size for rank in ranks])
            axes.barh(np.arange(len(ranks)), widths, 0.7, left=left, color=color(series_role(index)))
            left += widths
        axes.set_yticks(range(len(ranks)), [f"rank {rank}" for rank in ranks])
        axes.invert_yaxis()
        lay_bars(axes)

    legend = [LegendEntry(name, series_role(index), "box") for index, name in enumerate(layers)]
    title = f"What a rank's memory is made of in a step, {unit}"
    return [Chart(title, draw("memory-parts", title, paint, 0.8 + 0.4 * len(ranks)), legend, note)]


def chart_timeline(timelines: Sequence[MemoryTimeline]) -> list[Chart]:
    """Chart allocated memory within the last step that was looked at closely, on up to eight ranks, the fullest."""
    if not timelines:
        return []
    fullest = sorted(timelines, key=lambda line: -line.peak.allocated)[:NUM_SERIES_COLORS]
    lines = sorted(fullest, key=lambda line: line.rank)
    top = fullest[0]
    unit, size = choose_unit(top.peak.allocated)

    def paint(axes: Axes) -> None:
        for index, line in enumerate(lines):
            x = [point.time_s for point in line.points]
            y = [point.allocated / size for point in line.points]
            marker = "o" if len(x) <= 100 else None
            axes.plot(x, y, color=color(series_role(index)), linewidth=1.6, marker=marker, markersize=2.5)
        axes.set_xlabel("seconds since the step's start")
        axes.set_ylim(bottom=0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6))
            axis.set_major_formatter(FuncFormatter(format_number))
        _name_phases(axes, top)

    peak = top.peak
    note = (
        f"Step {top.step}, at the boundaries of layers and phases. Highest: {peak.allocated / size:,.2f} {unit}, "
        f"{peak.where}, rank {top.rank}."
    )
    legend = [LegendEntry(f"rank {line.rank}", series_role(i)) for i, line in enumerate(lines)]
    title = f"Allocated memory within one step, {unit}"
    drawing = draw("memory-timeline", title, paint, 3.2)
    return [Chart(title, drawing, legend if len(lines) > 1 else [], note)]


def _name_phases(axes: Axes, timeline: MemoryTimeline) -> None:
    """Mark where phases begin; names stand above those that are wide enough for them."""
    points = timeline.points
    starts = [point for point in points if point.where.endswith(" begins")]
    total = points[-1].time_s - points[0].time_s
    if len(starts) > 40 or not total:
        return
    ends = [point.time_s for point in starts[1:]] + [points[-1].time_s]
    for point, end in zip(starts, ends, strict=True):
        axes.axvline(point.time_s, color=color("grid"), linewidth=1.0)
        name = point.where.removesuffix(" begins")
        if (end - point.time_s) / total > 0.02 * len(name):
            axes.annotate(
                name,
                (point.time_s, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=9,
                color=color("muted"),
            )
