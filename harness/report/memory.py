"""The report's charts of memory: what a rank holds, one step's timeline, predicted beside measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.memory.case import PARTS_OF_STATE, PHASES, MemoryPlan, Part, Phase, PhaseMemory
from harness.memory.profile import GIB, MemoryRecord, describe_peaks
from harness.memory.timeline import MemoryTimeline
from harness.report.charts import spell
from harness.report.plots import (
    NUM_SERIES_COLORS,
    Axes,
    Chart,
    LegendEntry,
    color,
    draw,
    draw_bars,
    format_number,
    series_role,
)
from harness.report.tables import NOTHING, Table

STEP_PHASES: tuple[Phase, ...] = ("forward", "loss", "backward", "optimizer")

LOOKED_INTO: tuple[Phase, ...] = ("forward", "loss", "backward")
"""Phases within which the CPU's memory is looked at, so that its highest point is near their peak."""

NOT_TENSORS: tuple[Part, ...] = ("context", "fragmentation")
"""Predicted parts that no tensor accounts for, so that they are not in what the allocator has handed out."""

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
        _lay_bars(axes)

    legend = [LegendEntry(name, series_role(index), "box") for index, name in enumerate(layers)]
    title = f"What a rank's memory is made of in a step, {unit}"
    return [Chart(title, draw("memory-parts", title, paint, 0.8 + 0.4 * len(ranks)), legend, note)]


def _lay_bars(axes: Axes) -> None:
    """Axes of a chart of bars that lie."""
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlim(left=0)


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


def measure_phase(
    records: Sequence[MemoryRecord], timelines: Sequence[MemoryTimeline], phase: Phase
) -> float:
    """The most bytes seen allocated in a phase on any rank, beyond what was there before the run; NaN without any.

    On CUDA it is the phase's peak; on the CPU the highest of its ends and of the points within the step looked at.
    """
    points = {line.rank: highest_in(line, phase) for line in timelines}
    found = []
    for record in records:
        if record.phase == phase and "allocated" in record.max:
            seen = record.max.get("peak_allocated", record.max["allocated"])
            found.append(max(seen, points.get(record.rank, 0)) - record.base_bytes)
    return max(found, default=math.nan)


def highest_in(timeline: MemoryTimeline, phase: Phase) -> int:
    """The highest point of a timeline from a phase's beginnings to its ends."""
    highest, inside = 0, False
    for point in timeline.points:
        inside = inside or point.where == f"{phase} begins"
        if inside:
            highest = max(highest, point.allocated)
        inside = inside and point.where != f"{phase} ends"
    return highest


def predict_phase(plans: Sequence[MemoryPlan], phase: Phase) -> float:
    """The most bytes of tensors that were predicted for a phase on any rank."""
    found = [count_tensors(one) for plan in plans for one in plan.phases if one.phase == phase]
    return max(found, default=math.nan)


def count_tensors(phase: PhaseMemory) -> int:
    """The bytes of the parts that are tensors."""
    return sum(num_bytes for part, num_bytes in phase.parts.items() if part not in NOT_TENSORS)


def compare_phases(
    records: Sequence[MemoryRecord], timelines: Sequence[MemoryTimeline], plans: Sequence[MemoryPlan]
) -> dict[Phase, tuple[float, float]]:
    """Predicted and measured bytes by phase of the fullest rank; predicted is NaN where there is none."""
    both = {
        phase: (predict_phase(plans, phase), measure_phase(records, timelines, phase)) for phase in PHASES
    }
    return {phase: pair for phase, pair in both.items() if not math.isnan(pair[1])}


def chart_prediction(
    records: Sequence[MemoryRecord], timelines: Sequence[MemoryTimeline], plans: Sequence[MemoryPlan]
) -> list[Chart]:
    """Chart allocated memory by phase, with what was predicted beside it where there is a plan."""
    pairs = compare_phases(records, timelines, plans)
    if not pairs:
        return []
    unit, size = choose_unit(max(measured for _, measured in pairs.values()))
    bars: dict[str, list[float]] = {}
    if plans:
        bars["predicted"] = [predicted / size for predicted, _ in pairs.values()]
    bars["measured"] = [measured / size for _, measured in pairs.values()]
    title = f"Allocated memory by phase, {'predicted beside measured, ' if plans else ''}{unit}"
    names = [spell(phase) for phase in pairs]
    note = ON_CUDA if sees_peaks(records) else ON_CPU
    return [draw_bars("memory-plan", title, names, bars, note)]


ON_CUDA = "Tensors alone, on the fullest rank: a phase's peak."

ON_CPU = (
    "On the fullest rank. Measured: the most that malloc had handed out at the boundaries of layers and phases, beyond "
    "what it had before the run; what libraries take during the run is in it, what an optimizer step, an evaluation or "
    "a save makes and drops is not. Predicted: a phase's peak, of tensors alone."
)


def sees_peaks(records: Sequence[MemoryRecord]) -> bool:
    """Whether measured bytes are peaks of tensors, as the allocator of a GPU tells them."""
    return all(record.device.startswith("cuda") for record in records)


def tabulate_prediction(
    records: Sequence[MemoryRecord], timelines: Sequence[MemoryTimeline], plans: Sequence[MemoryPlan]
) -> list[Table]:
    """Tabulate predicted and measured bytes by phase, and how far they are apart where both are peaks."""
    pairs: Mapping[Phase, tuple[float, float]] = compare_phases(records, timelines, plans) if plans else {}
    if not pairs:
        return []
    unit, size = choose_unit(max(measured for _, measured in pairs.values()))
    compared = PHASES if sees_peaks(records) else LOOKED_INTO
    rows = []
    for phase, (predicted, measured) in pairs.items():
        is_apart = phase not in compared or math.isnan(predicted) or measured <= 0
        shown = NOTHING if math.isnan(predicted) else f"{predicted / size:,.2f}"
        off = NOTHING if is_apart else f"{predicted / measured - 1:+.1%}"
        rows.append([spell(phase), shown, f"{measured / size:,.2f}", off])
    return [Table("Predicted beside measured", [unit, "predicted", "measured", "off by"], rows)]
