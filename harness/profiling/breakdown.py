"""Where the time of the profiled steps went, each instant once: an operator, a collective that nothing hides, or a gap.

::

    operators    ████ ▄▄▄▄        ███      of several at once the one that started last counts: the innermost
    collectives        ░░░░░░░                what operators leave of them is exposed
    counted as   ████ ▄▄▄▄░░░░     ███
    gaps             ▔         ▔▔▔▔
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.profiling.summary import (
    CollectiveTimes,
    Gap,
    OperatorTimes,
    PartTimes,
    RankProfile,
    StepSpan,
)
from harness.profiling.trace import OTHER, Activity, Span, Trace, part_at

MAX_OPERATORS = 100
"""Operators with a line of their own."""

MAX_GAPS = 20
"""Gaps that are told, the longest."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A time in which the same one thing runs, or nothing; microseconds."""

    start: float
    end: float
    activity: Activity | None

    @property
    def length(self) -> float:
        """Microseconds."""
        return self.end - self.start


@dataclass(slots=True)
class _Sums:
    """Microseconds of a rank, by what they went to."""

    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0, 0.0]))
    operators: dict[str, dict[str, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    exposed: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    gaps: list[Gap] = field(default_factory=list)


def break_down(
    trace: Trace, *, rank: int, host: str, device: str, trace_file: str | None = None, trace_bytes: int = 0
) -> RankProfile:
    """Add up a rank's trace.

    Args:
        trace: Its steps.
        rank: Which rank.
        host: Where it ran.
        device: On what.
        trace_file: The trace's name in the profile's folder.
        trace_bytes: Its size.
    """
    sums = _Sums()
    for step in trace.steps:
        _add_step(sums, step, trace)
    operator, exposed, gap = (sum(values[kind] for values in sums.parts.values()) for kind in range(3))
    total = sum(step.end - step.start for step in trace.steps)
    return RankProfile(
        rank=rank,
        host=host,
        device=device,
        trace=trace_file,
        trace_bytes=trace_bytes,
        trace_note=None,
        steps=tuple(StepSpan(int(step.name), (step.end - step.start) / 1e6) for step in trace.steps),
        step_time_s=total / 1e6,
        operator_s=operator / 1e6,
        communication_exposed_s=exposed / 1e6,
        gap_s=gap / 1e6,
        between_steps_s=_between(trace.steps) / 1e6,
        parts=_list_parts(sums, trace.parts),
        operators=_list_operators(sums, trace, total),
        communication=_list_collectives(sums, trace),
        gaps=tuple(sorted(sums.gaps, key=lambda one: -one.time_s)[:MAX_GAPS]),
    )


def _between(steps: Sequence[Span]) -> float:
    return sum(max(0.0, after.start - before.end) for before, after in pairwise(steps))


def _add_step(sums: _Sums, step: Span, trace: Trace) -> None:
    parts = [part for part in trace.parts if part.start < step.end and part.end > step.start]
    starts = [part.start for part in parts]
    cuts = [edge for part in parts for edge in (part.start, part.end)]
    open_gap: list[Segment] = []
    last: str | None = None

    def close_gap(before: str | None) -> None:
        if open_gap:
            start = open_gap[0].start
            part = part_at(parts, starts, start)
            length = open_gap[-1].end - start
            sums.gaps.append(
                Gap(int(step.name), part, (start - step.start) / 1e6, length / 1e6, last, before)
            )
            open_gap.clear()

    for segment in cut_into_segments(trace.activities, step, cuts):
        activity, here = segment.activity, part_at(parts, starts, segment.start)
        if activity is None:
            if open_gap and here != part_at(parts, starts, open_gap[0].start):
                close_gap(None)
            open_gap.append(segment)
            sums.parts[here][2] += segment.length
            continue
        close_gap(activity.name)
        last = activity.name
        part = activity.part or here
        if activity.collective is None:
            sums.parts[part][0] += segment.length
            sums.operators[activity.name][part] += segment.length
        else:
            sums.parts[part][1] += segment.length
            sums.exposed[activity.collective] += segment.length
    close_gap(None)


def cut_into_segments(
    activities: Sequence[Activity], within: Span, cuts: Sequence[float]
) -> Iterator[Segment]:
    """What runs at each instant of a span, in order of time; together the segments are the span.

    Args:
        activities: In any order.
        within: The span.
        cuts: Further times at which a segment ends.
    """
    chosen = sorted(
        (one for one in activities if one.end > within.start and one.start < within.end),
        key=lambda one: one.start,
    )
    inside = (edge for one in chosen for edge in (one.start, one.end))
    edges = sorted(
        {within.start, within.end, *(t for t in (*inside, *cuts) if within.start < t < within.end)}
    )
    running: list[tuple[bool, float, float, int]] = []
    begun = 0
    for start, end in pairwise(edges):
        while begun < len(chosen) and chosen[begun].start <= start:
            one = chosen[begun]
            heapq.heappush(running, (one.collective is not None, -one.start, one.end, begun))
            begun += 1
        while running and running[0][2] <= start:
            heapq.heappop(running)
        yield Segment(start, end, chosen[running[0][3]] if running else None)


def _list_parts(sums: _Sums, parts: Sequence[Span]) -> tuple[PartTimes, ...]:
    """In the order in which a step has them, what is in none of them last."""
    order = list(dict.fromkeys([*(part.name for part in parts), *sums.parts]))
    order.sort(key=lambda name: name == OTHER)
    found = ((name, sums.parts[name]) for name in order if name in sums.parts)
    return tuple(PartTimes(name, sum(us) / 1e6, us[0] / 1e6, us[1] / 1e6, us[2] / 1e6) for name, us in found)


def _within_steps(trace: Trace) -> Iterator[Activity]:
    for one in trace.activities:
        if any(step.start <= one.start < step.end for step in trace.steps):
            yield one


def _list_operators(sums: _Sums, trace: Trace, total: float) -> tuple[OperatorTimes, ...]:
    calls: dict[str, int] = defaultdict(int)
    for one in _within_steps(trace):
        calls[one.name] += one.collective is None
    listed = [
        OperatorTimes(
            name,
            (us := sum(by_part.values())) / 1e6,
            us / total,
            calls[name],
            max(by_part, key=by_part.__getitem__),
        )
        for name, by_part in sums.operators.items()
    ]
    listed.sort(key=lambda one: (-one.self_s, one.name))
    rest = listed[MAX_OPERATORS:]
    if not rest:
        return tuple(listed)
    others = OperatorTimes(
        f"({len(rest)} others)",
        sum(one.self_s for one in rest),
        sum(one.share for one in rest),
        sum(one.calls for one in rest),
        OTHER,
    )
    return (*listed[:MAX_OPERATORS], others)


def _list_collectives(sums: _Sums, trace: Trace) -> tuple[CollectiveTimes, ...]:
    calls: dict[str, list[Activity]] = defaultdict(list)
    for one in _within_steps(trace):
        if one.collective is not None and one.is_call:
            calls[one.collective].append(one)
    found = [
        CollectiveTimes(
            name,
            len(calls[name]),
            sum(one.end - one.start for one in calls[name]) / 1e6,
            sums.exposed.get(name, 0.0) / 1e6,
            _add_bytes(calls[name]),
        )
        for name in dict.fromkeys([*calls, *sums.exposed])
    ]
    return tuple(sorted(found, key=lambda one: (-one.exposed_s, one.collective)))


def _add_bytes(calls: Sequence[Activity]) -> int | None:
    sizes = [one.num_bytes for one in calls if one.num_bytes is not None]
    return sum(sizes) if sizes and len(sizes) == len(calls) else None
