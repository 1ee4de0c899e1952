"""The report's charts of memory: peaks, what state is of them, one step, and what was predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from harness.memory.case import PHASES, MemoryPlan
from harness.memory.profile import GIB, MemoryRecord, describe_peaks
from harness.memory.timeline import MemoryTimeline
from harness.report.plots import (
    NUM_SERIES_COLORS,
    Axes,
    Chart,
    LegendEntry,
    color,
    draw,
    draw_bars,
    series_role,
)

GROUPS: Mapping[str, Sequence[str]] = {
    "frozen weights": ("frozen_weights",),
    "adapters": ("lora_weights",),
    "gradients": ("gradients",),
    "masters and moments": ("master_weights", "optimizer_states"),
    "communication": ("communication",),
}
"""Parts of state that share a colour."""

THE_REST = "activations and all else"


def chart_memory(
    records: Sequence[MemoryRecord],
    timelines: Sequence[MemoryTimeline] = (),
    plans: Sequence[MemoryPlan] = (),
) -> list[Chart]:
    """Every chart that there are figures for."""
    if not records:
        return []
    charts = [
        _chart_peaks(records),
        _chart_parts(records),
        _chart_step(timelines),
        _chart_plan(records, plans),
    ]
    return [chart for chart in charts if chart is not None]


def spell(name: str) -> str:
    """Write a phase or a part for a reader."""
    return name.replace("_", " ")


def _chart_peaks(records: Sequence[MemoryRecord]) -> Chart:
    """The peak of every phase on every rank; beyond eight ranks, the highest and the lowest of them."""
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
    return draw_bars("memory", "Peak memory by phase, GiB", names, bars, f"Peak: {describe_peaks(records)}.")


def measured_bytes(record: MemoryRecord) -> int | None:
    """What a phase's tensors took at most, without what the process had before; None where it was not told.

    The allocator's peak on CUDA. On the CPU malloc has no peak: it is what was there at the phase's end.
    """
    highest = record.max.get("peak_allocated", record.max.get("allocated"))
    return None if highest is None else highest - record.base_bytes


def _chart_parts(records: Sequence[MemoryRecord]) -> Chart | None:
    """What of each rank's highest phase is state, measured on its tensors."""
    tops: dict[int, MemoryRecord] = {}
    for record in records:
        if record.parts and measured_bytes(record) is not None:
            best = tops.get(record.rank)
            if best is None or (measured_bytes(record) or 0) > (measured_bytes(best) or 0):
                tops[record.rank] = record
    if not tops:
        return None
    ranks = sorted(tops)[:16]
    heights = {
        group: np.array([sum(tops[rank].parts.get(part, 0) for part in members) / GIB for rank in ranks])
        for group, members in GROUPS.items()
    }
    state = np.sum(list(heights.values()), axis=0)
    whole = np.array([(measured_bytes(tops[rank]) or 0) / GIB for rank in ranks])
    heights[THE_REST] = np.maximum(whole - state, 0)
    shown = {group: values for group, values in heights.items() if values.any()}

    def paint(axes: Axes) -> None:
        left = np.zeros(len(ranks))
        for index, values in enumerate(shown.values()):
            axes.barh(np.arange(len(ranks)), values, 0.7, left=left, color=color(series_role(index)))
            left += values
        axes.set_yticks(range(len(ranks)), [f"rank {rank}, {spell(tops[rank].phase)}" for rank in ranks])
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(5))

    title = "Where it went: each rank's highest phase, GiB"
    legend = [LegendEntry(group, series_role(index), "box") for index, group in enumerate(shown)]
    note = "State is measured on its tensors; on a CPU the phases' ends are compared, for malloc tells of no peak."
    return Chart(title, draw("memory-parts", title, paint, 0.9 + 0.4 * len(ranks)), legend, note)


def _chart_step(timelines: Sequence[MemoryTimeline]) -> Chart | None:
    """Allocated memory within one step, layer by layer."""
    shown = [one for one in timelines if one.points][:NUM_SERIES_COLORS]
    if not shown:
        return None

    def paint(axes: Axes) -> None:
        for index, line in enumerate(shown):
            times = [point.time_s for point in line.points]
            axes.plot(
                times,
                [point.allocated / GIB for point in line.points],
                color=color(series_role(index)),
                linewidth=1.6,
            )
        axes.set_xlabel("seconds since the step's start")
        axes.set_ylim(0, 1.06 * max(line.peak.allocated for line in shown) / GIB)
        axes.yaxis.set_major_locator(MaxNLocator(6))

    first = shown[0]
    title = f"Memory within step {first.step}, GiB allocated"
    legend = [LegendEntry(f"rank {line.rank}", series_role(index)) for index, line in enumerate(shown)]
    note = f"Highest on rank {first.rank}: {first.peak.allocated / GIB:.2f} GiB at {first.peak.where}."
    return Chart(title, draw("memory-step", title, paint), legend if len(shown) > 1 else [], note)


def _chart_plan(records: Sequence[MemoryRecord], plans: Sequence[MemoryPlan]) -> Chart | None:
    """Predicted beside measured, of the rank that took the most."""
    known = {(one.rank, one.phase): size for one in records if (size := measured_bytes(one)) is not None}
    if not plans or not known:
        return None
    rank = max(known, key=lambda key: known[key])[0]
    plan = {phase.phase: phase for phase in plans[min(rank, len(plans) - 1)].phases}
    phases = [phase for phase in PHASES if phase in plan and (rank, phase) in known]
    bars = {
        "predicted": [plan[phase].total / GIB for phase in phases],
        "measured": [known[rank, phase] / GIB for phase in phases],
    }
    on_cpu = any(record.device == "cpu" for record in records)
    note = (
        "Predicted are the tensors at a phase's peak. Measured is what malloc had handed out at its end, beyond what "
        "the process had before: libraries' own buffers are in it, what a phase drops before its end is not."
        if on_cpu
        else "The allocator's peak beside the predicted one; context and slack are assumptions of the prediction."
    )
    title = f"Predicted and measured on rank {rank}, GiB"
    return draw_bars("memory-plan", title, [spell(phase) for phase in phases], bars, note)
