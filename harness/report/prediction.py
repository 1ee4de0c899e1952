"""The report's comparison of memory: what was predicted for each phase beside what the run took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.memory.case import PHASES, MemoryPlan, Part, Phase, PhaseMemory
from harness.memory.profile import MemoryRecord
from harness.memory.timeline import MemoryTimeline
from harness.report.bars import draw_bars
from harness.report.charts import spell
from harness.report.memory import choose_unit
from harness.report.plots import Chart
from harness.report.tables import NOTHING, Table

LOOKED_INTO: tuple[Phase, ...] = ("forward", "loss", "backward")
"""Phases within which the CPU's memory is looked at, so that its highest point is near their peak."""

NOT_TENSORS: tuple[Part, ...] = ("context", "fragmentation")
"""Predicted parts that no tensor accounts for, so that they are not in what the allocator has handed out."""


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
