"""What makes a run slower than it need be: found in the times of its steps, with the place, the factor and a remedy.

A finding needs two things, so that noise gives none: its share of the run's time is above a bound, and it is there in
most steps, clear of their scatter (a stall, which is rare by nature, has a bound on the time lost instead). The bounds
come from fifteen runs without any fault on busy machines of two cores, one to three ranks, where loading took up to 3 %
of a step; and from simulated ranks whose parts scatter by 5 to 40 %, neighbouring steps alike: of 60 runs of 60 steps
each, on 2, 3 and 8 ranks, none names a slow rank, while one of 3 whose backward pass takes twice as long is named in 80
to 100 % of runs.
"""

from __future__ import annotations

import math

import numpy as np

from harness.report.charts import spell
from harness.report.findings import Finding
from harness.report.plots import Floats
from harness.report.ranks import WAITING, RankTimes
from harness.report.tables import format_percent, format_seconds

LEAST_STEPS = 5
"""Fewer timed steps say nothing."""

LEAST_STEPS_OF_RANKS = 10
"""Fewer do not tell a slow rank from a busy moment."""

DATA_SHARE = 0.10
"""Share of a step that loading may take on a rank."""

SLOW_SHARE = 0.10
"""Share of a step by which a rank's own work, or a part of it, may exceed the other ranks' median."""

SLOW_FACTOR = 1.2
"""And how many times that median."""

PERSISTENT = 0.75
"""Share of the steps in which a slow rank is the slower one."""

STANDARD_ERRORS = 4.0
"""And by how many standard errors of the mean difference: few steps of a noisy machine name no rank."""

COMMUNICATION_SHARE = 0.25
"""Share of a step that exposed communication may take."""

STALL_FACTOR = 3.0
"""A step that takes so many times the median is a stall."""

STALLED_SHARE = 0.05
"""Share of the run's time that stalls may lose."""

ADVICE = {
    "data": "Look at the disk or network file system that the rank reads the data set from, and at what else runs on "
    "its host. Copy the data set to a local disk there.",
    "work": "Look at the host: another process, a throttled or hotter card, fewer processor cores. "
    "harness doctor compares the hosts. If it stays slow, leave the host out: every other rank waits for it.",
    "other": "That is the host's own processor: look at what else runs there.",
    "communication": "Measure the links: harness bench-link. A lower ZeRO stage or more examples a step sends less "
    "for the same work: harness plan compares them.",
    "stall": "Look at what happened at these steps in the logs: a suspended machine, a full disk, another job.",
}


def find_slowdowns(times: RankTimes | None) -> list[Finding]:
    """All slow-downs, the costliest first.

    Args:
        times: Times of the run's steps on every rank.
    """
    if times is None or len(times.steps) < LEAST_STEPS:
        return []
    loading = _find_loading(times)
    slow = _find_slow_ranks(times, told=[rank for rank, _ in loading])
    stalls = [one for part, one in _find_stalls(times) if not (part == "data" and loading)]
    found = [one for _, one in loading] + slow + _find_communication(times) + stalls
    return sorted(found, key=lambda one: -one.cost)


def _find_loading(times: RankTimes) -> list[tuple[int, Finding]]:
    """A run that waits for its data, and the rank that does so most."""
    if "data" not in times.parts_s:
        return []
    seconds, total = times.parts_s["data"], times.step_time_s
    shares = seconds.sum(axis=0) / total.sum(axis=0)
    rank = int(shares.argmax())
    share = float(shares[rank])
    often = float((seconds[:, rank] > DATA_SHARE * total[:, rank]).sum())
    if share <= DATA_SHARE or often < LEAST_STEPS:
        return []
    mean_s, step_s = float(seconds[:, rank].mean()), float(total[:, rank].mean())
    others = np.delete(seconds.mean(axis=0), rank)
    beside = f"; {compare(mean_s, float(np.median(others)), step_s)}" if len(others) else ""
    text = (
        f"Loading data holds the run up: {format_percent(share)} of a step on {times.name(rank)}, "
        f"{format_seconds(mean_s)} of {format_seconds(step_s)}{beside}. "
        f"Without it a step would be up to {step_s / max(step_s - mean_s, 1e-9):.1f} times faster."
    )
    bound = f"The bound is {DATA_SHARE:.0%} of a step."
    return [(rank, Finding(text, f"{ADVICE['data']} {bound}", cost=share, ranks=(rank,)))]


def compare(seconds: float, others: float, step_s: float) -> str:
    """How a rank's seconds stand to the other ranks', where those are more than a thousandth of a step."""
    if others <= 1e-3 * step_s:
        return "next to nothing on the others"
    return f"{seconds / others:.1f} times the others' {format_seconds(others)}"


def _find_slow_ranks(times: RankTimes, told: list[int]) -> list[Finding]:
    """Ranks that the others wait for, once for a host where all its ranks are such; and the part that is to blame.

    Args:
        times: Times of the steps.
        told: Ranks whose slow loading is told already.
    """
    if times.num_ranks < 2 or len(times.steps) < LEAST_STEPS_OF_RANKS:
        return []
    work, step_s = times.work_s, float(times.step_time_s.mean())
    slow = [rank for rank in range(times.num_ranks) if _is_slow(work, rank, step_s)]
    if 2 * len(slow) > times.num_ranks:
        return []  # the median is among them: there is no ordinary rank to compare with
    found, hosts = list[Finding](), set[str]()
    for rank in slow:
        host = times.hosts[rank]
        alike = [one for one in range(times.num_ranks) if host and times.hosts[one] == host]
        part = find_part(times, rank)
        if host in hosts or (part == "data" and rank in told):
            continue
        whole = len(alike) > 1 and set(alike) <= set(slow)
        hosts |= {host} if whole else set()
        found.append(_tell_of_rank(times, rank, part, step_s, whole_host=whole))
    return found


def find_part(times: RankTimes, rank: int) -> str:
    """The part of a rank's own work that exceeds the other ranks' median by most seconds."""
    excess = {
        part: float((seconds[:, rank] - others_median(seconds, rank)).mean())
        for part, seconds in times.parts_s.items()
        if part not in WAITING
    }
    return max(excess, key=lambda name: excess[name])


def _is_slow(seconds: Floats, rank: int, step_s: float) -> bool:
    """Whether a rank takes longer than the others' median: by how much, how many times, and in how many steps."""
    others = others_median(seconds, rank)
    own = seconds[:, rank]
    excess, factor = float(own.mean() - others.mean()), float(own.mean() / max(others.mean(), 1e-9))
    is_persistent = float((own > others).mean()) >= PERSISTENT and is_clear(own - others)
    return excess > SLOW_SHARE * step_s and factor > SLOW_FACTOR and is_persistent


def is_clear(differences: Floats) -> bool:
    """Whether the mean of a step's differences is above zero by more than `STANDARD_ERRORS` of its standard errors.

    Neighbouring steps are alike, so n of them tell as much as n (1 - r) / (1 + r) independent ones, r being the
    correlation of neighbours (of an AR(1) process); few steps show little of it, so it is taken to be 0.5 at least.
    """
    n = len(differences)
    around = differences - differences.mean()
    variance = float((around**2).mean())
    if variance == 0.0:
        return bool(differences.mean() > 0)
    r = min(0.95, max(0.5, float((around[1:] * around[:-1]).mean()) / variance))
    error = math.sqrt(variance / (n - 1) * (1 + r) / (1 - r))
    return float(differences.mean()) > STANDARD_ERRORS * error


def others_median(seconds: Floats, rank: int) -> Floats:
    """float64[n]: the median of the other ranks' seconds in each step, of float64[n, R]."""
    return np.asarray(np.median(np.delete(seconds, rank, axis=1), axis=1))


def _tell_of_rank(times: RankTimes, rank: int, part: str, step_s: float, *, whole_host: bool) -> Finding:
    own, others = (float(x.mean()) for x in (times.work_s[:, rank], others_median(times.work_s, rank)))
    seconds = times.parts_s[part]
    in_part, beside = (float(x.mean()) for x in (seconds[:, rank], others_median(seconds, rank)))
    text = (
        f"{times.name(rank)} is slow: its own work takes {format_seconds(own)} a step, {own / others:.1f} times "
        f"the other ranks' median, and they wait for it. Most of it is in {spell(part)}: "
        f"{format_seconds(in_part)}, {compare(in_part, beside, step_s)}."
    )
    text += f" So are all ranks on {times.hosts[rank]}." if whole_host else ""
    cost = (own - others) / step_s
    return Finding(text[0].upper() + text[1:], ADVICE.get(part, ADVICE["work"]), cost=cost, ranks=(rank,))


def _find_communication(times: RankTimes) -> list[Finding]:
    """A run that its links hold up; a rank whose communication differs from the others' is named."""
    seconds = times.parts_s.get("communication")
    if seconds is None or times.num_ranks < 2:
        return []
    step_s = float(times.step_time_s.mean())
    share = float(seconds.mean() / step_s)
    if share <= COMMUNICATION_SHARE:
        return []
    text = (
        f"Communication between ranks that no computation hides takes {format_percent(share)} of a step, "
        f"{format_seconds(float(seconds.mean()))} of {format_seconds(step_s)}. "
        f"Without it a step would be up to {1 / max(1 - share, 1e-9):.1f} times faster."
    )
    slow = [rank for rank in range(times.num_ranks) if _is_slow(seconds, rank, step_s)]
    if slow and 2 * len(slow) <= times.num_ranks:
        factor = seconds[:, slow[0]].mean() / max(others_median(seconds, slow[0]).mean(), 1e-9)
        text += f" {times.name(slow[0])} takes {factor:.1f} times the others' median: its link or its host is slow."
    return [Finding(text, f"{ADVICE['communication']} The bound is {COMMUNICATION_SHARE:.0%}.", cost=share)]


def _find_stalls(times: RankTimes) -> list[tuple[str, Finding]]:
    """Single steps that took several times the median, where that cost much; with the part that it was in."""
    total = times.step_time_s.max(axis=1)
    median = float(np.median(total))
    stalled = total > STALL_FACTOR * median
    lost_s = float((total[stalled] - median).sum())
    share = lost_s / float(total.sum())
    if share <= STALLED_SHARE:
        return []
    excess = {
        part: float((seconds[stalled] - np.median(seconds, axis=0)).max(axis=1).sum())
        for part, seconds in times.parts_s.items()
        if part != "wait"
    }
    part = max(excess, key=lambda name: excess[name], default="other")
    steps = times.steps[stalled]
    shown = ", ".join(f"{step:,}" for step in steps[:6]) + (" …" if len(steps) > 6 else "")
    several = f"{len(steps)} steps" if len(steps) > 1 else "One step"
    text = (
        f"{several} took more than {STALL_FACTOR:g} times the median of {format_seconds(median)} (step {shown}), the "
        f"longest {total.max() / median:.0f} times, most of it in {spell(part)}. {format_seconds(lost_s)}, "
        f"{format_percent(share)} of the steps' time, was lost."
    )
    return [(part, Finding(text, ADVICE["stall"], cost=share))]
