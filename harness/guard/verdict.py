"""Judge a run by what its guardians report: who died, vanished, stopped or hangs. Pure, without a clock.

Guardians measure ages by their own clocks and report durations, so clocks of hosts need not agree.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from harness.guard.board import Phase

Kind = Literal["lost", "hang", "failed", "stopped"]

LOST_CODE, HANG_CODE = 6, 7

ALARM_SHARE = 0.9
"""Alarm at this share of a limit: the report has to travel, and what is promised is the limit."""

WARMUP_STEPS = 3
"""Steps until a median means something; they may compile kernels."""

LONG_PHASES: frozenset[Phase] = frozenset({"start", "load", "engine", "search", "resume", "save", "finish"})
"""Phases without steps, whose progress has the long limit. That a process stopped is seen as fast as elsewhere."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to raise an alarm; see `harness.config.GuardSettings`.

    Attributes:
        min_timeout_s: Silence, a stop, or no progress in a step for less is no alarm.
        factor: Nor is a stop or no progress for less than so many median steps.
        startup_timeout_s: For progress in phases without steps.
        slow_factor: A rank is slow when its own work takes so many times the median.
    """

    min_timeout_s: float = 30.0
    factor: float = 5.0
    startup_timeout_s: float = 1800.0
    slow_factor: float = 1.5

    @property
    def interval_s(self) -> float:
        """Seconds between two reports."""
        return min(1.0, self.min_timeout_s / 8)

    def of_stop(self, median_step_s: float | None) -> float:
        """Seconds that a process may be stopped."""
        return max(self.min_timeout_s, self.factor * (median_step_s or 0.0))

    def of_progress(self, phase: Phase, median_step_s: float | None) -> float:
        """Seconds that a rank may pass no mark.

        Args:
            phase: Where it is.
            median_step_s: None before there were `WARMUP_STEPS`.
        """
        if phase in LONG_PHASES or median_step_s is None:
            return max(self.startup_timeout_s, self.of_stop(median_step_s))
        return self.of_stop(median_step_s)


@dataclass(slots=True)
class Report:
    """What is known of one rank.

    Attributes:
        rank: Which.
        host: Its host's name.
        phase: Where it is.
        step: Optimizer steps done.
        beats: Marks passed.
        waiting: Whether it is in a collective.
        idle_s: Seconds since its last mark.
        stopped_s: Seconds since it was stopped (SIGSTOP); 0 when it runs.
        silent_s: Seconds since its guardian was heard.
        died: How it died, in words, where it did so without a word.
        ended: The exit code that it is about to end with, or None.
        where: Its innermost place in the source, where its stack was asked for.
        in_collective: Whether its stack is in a collective; None where it was not asked for.
    """

    rank: int
    host: str
    phase: Phase = "start"
    step: int = 0
    beats: int = 0
    waiting: bool = False
    idle_s: float = 0.0
    stopped_s: float = 0.0
    silent_s: float = 0.0
    died: str | None = None
    ended: int | None = None
    where: str = ""
    in_collective: bool | None = None

    @property
    def name(self) -> str:
        """As in "rank 1 on node2"."""
        return f"rank {self.rank} on {self.host}"

    @property
    def doing(self) -> str:
        """As in "in phase eval after step 40"."""
        place = f"in step {self.step + 1}" if self.phase == "step" else f"in phase {self.phase}"
        return place if self.phase == "step" or not self.step else f"{place} after step {self.step}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a run ends.

    Attributes:
        kind: "lost": a rank or a host went away; "hang": one stopped or makes no progress; "failed": one ended with an
            error; "stopped": one was asked to stop where no checkpoint can be made.
        rank: The cause; None where no rank stands out.
        host: Its host.
        phase: Where it was.
        step: Optimizer steps done there.
        after_s: Seconds from its last sign of life or progress.
        exit_code: What every rank ends with.
        message: One line for the user.
    """

    kind: Kind
    rank: int | None
    host: str | None
    phase: Phase
    step: int
    after_s: float
    exit_code: int
    message: str

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Verdict:
        """Read what `to_json` gave."""
        return cls(**values)


def judge(reports: Sequence[Report], limits: Limits, median_step_s: float | None) -> Verdict | None:
    """The verdict on a run whose ranks go on, or None when all is well.

    Args:
        reports: Of all ranks that have not said that they end.
        limits: When to raise an alarm.
        median_step_s: Of the last steps; None before there were `WARMUP_STEPS`.
    """
    for report in reports:
        if report.died is not None:
            return _lost(report, 0.0, f"{report.died}{_doing(report)}")
    silent = [one for one in reports if one.silent_s >= ALARM_SHARE * limits.min_timeout_s]
    if silent:
        return judge_silence(silent, reports)
    stopped = max(reports, key=lambda one: one.stopped_s, default=None)
    if stopped is not None and stopped.stopped_s >= ALARM_SHARE * limits.of_stop(median_step_s):
        text = f"is stopped, as by SIGSTOP, for {stopped.stopped_s:.0f} s{_doing(stopped)}"
        return _hang(stopped, stopped.stopped_s, text)
    return _judge_progress(reports, limits, median_step_s)


def judge_silence(silent: Sequence[Report], reports: Sequence[Report]) -> Verdict:
    """The verdict on ranks whose guardians are not heard, told by rank 0's host."""
    first = silent[0]
    away = {one.host for one in reports if one.rank and one.host != reports[0].host}
    hosts = sorted({one.host for one in silent})
    if len(away) > 1 and set(hosts) == away and reports[0].rank == 0:
        own = reports[0]
        text = f"hears nothing from any other host for {first.silent_s:.0f} s: it is cut off{_doing(own)}"
        return _lost(own, first.silent_s, text)
    others = f" (with {', '.join(one.name for one in silent[1:])})" if len(silent) > 1 else ""
    text = f"is not heard for {first.silent_s:.0f} s{others}: the host or its link is down{_doing(first)}"
    return _lost(first, first.silent_s, text)


def _judge_progress(reports: Sequence[Report], limits: Limits, median_step_s: float | None) -> Verdict | None:
    def is_stuck(one: Report) -> bool:
        return one.idle_s >= ALARM_SHARE * limits.of_progress(one.phase, median_step_s)

    stuck = [one for one in reports if is_stuck(one)]
    moving = [one for one in reports if not is_stuck(one)]
    behind = min((one.beats for one in moving), default=None)
    if not stuck or (behind is not None and behind <= min(one.beats for one in stuck)):
        return None  # what moves may be what the others wait for
    if moving and all(one.waiting for one in stuck):
        return None
    culprit = find_culprit(stuck)
    after_s = max(one.idle_s for one in stuck)
    if culprit is None:
        text = f"no rank makes progress for {after_s:.0f} s, and none stands out: all are {reports[0].doing}"
        return Verdict("hang", None, None, stuck[0].phase, stuck[0].step, after_s, HANG_CODE, text)
    where = f", at {culprit.where}" if culprit.where else ""
    rest = ", while the others wait for it" if len(reports) > 1 else ""
    return _hang(culprit, after_s, f"makes no progress for {after_s:.0f} s{_doing(culprit)}{where}{rest}")


def find_culprit(stuck: Sequence[Report]) -> Report | None:
    """Who has not arrived where the others wait; None where nobody stands out."""
    own = [one for one in stuck if not one.waiting] or list(stuck)
    if any(one.in_collective for one in stuck):
        own = [one for one in own if not one.in_collective] or own
    last = min(one.beats for one in own)
    behind = [one for one in own if one.beats == last]
    return behind[0] if len(behind) < len(stuck) or len(stuck) == 1 else None


def judge_failures(reports: Sequence[Report]) -> Verdict | None:
    """The verdict where some ranks end with an error and others go on, or end with another code."""
    failed = [one for one in reports if one.ended]
    # An error with a code of its own is the cause; a broken collective elsewhere is its consequence.
    cause = min(failed, key=lambda one: (one.ended == 1, one.ended or 0), default=None)
    if cause is None or cause.ended is None:
        return None
    text = f"{cause.name} ended with exit code {cause.ended}{_doing(cause)}"
    return Verdict("failed", cause.rank, cause.host, cause.phase, cause.step, 0.0, cause.ended, text)


def _doing(report: Report) -> str:
    return f" ({report.doing})"


def _lost(report: Report, after_s: float, text: str) -> Verdict:
    line = f"{report.name} {text}"
    return Verdict("lost", report.rank, report.host, report.phase, report.step, after_s, LOST_CODE, line)


def _hang(report: Report, after_s: float, text: str) -> Verdict:
    line = f"{report.name} {text}"
    return Verdict("hang", report.rank, report.host, report.phase, report.step, after_s, HANG_CODE, line)


@dataclass(slots=True)
class StepTimes:
    """The last steps' seconds, as they were seen.

    Attributes:
        last: At most 20 of them.
        step: Steps done by this process when the newest was seen.
    """

    last: list[float] = field(default_factory=list)
    step: int = 0

    def add(self, step: int, step_s: float) -> None:
        """Take note of a step unless it was seen before, or may be one that compiled kernels."""
        if step > max(self.step, WARMUP_STEPS - 1):
            self.step = step
            self.last = [*self.last[-19:], step_s]

    @property
    def median_s(self) -> float | None:
        """None before there were `WARMUP_STEPS`."""
        return statistics.median(self.last) if self.last else None
