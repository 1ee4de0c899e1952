"""Gather the reports of all guardians, and decide what happens to the run.

Every guardian has a hub, which starts with its own rank alone. That of rank 0 takes in the others, which then heed it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.guard.slow import Pace, find_slow
from harness.guard.verdict import Limits, Report, StepTimes, Verdict, judge, judge_failures
from harness.guard.wire import Channel, Message

FAILURE_GRACE_S = 3.0
"""Seconds from a rank's error until the others are ended: most errors come up on all ranks, or elsewhere first."""

STOP_GRACE_S = 1.0
"""Seconds from a signal in a phase without steps until all are ended: launchers send signals when a rank has died."""

STACKS_WAIT_S = 4.0
"""Seconds until a hang is judged without the stacks that have not come."""


@dataclass(slots=True)
class Member:
    """A rank as the hub knows it.

    Attributes:
        report: What its guardian said last.
        channel: To its guardian; None for the hub's own.
        pace: How fast it is.
        failed_s: When it reported an error, or None.
    """

    report: Report
    channel: Channel | None
    pace: Pace
    failed_s: float | None = None


@dataclass(slots=True)
class Hub:
    """The guardians' common mind.

    Attributes:
        limits: When to raise an alarm.
        obey: Takes a message as if it had come from this hub.
        members: By rank.
        verdict: What was decided.
    """

    limits: Limits
    obey: Callable[[Message], None]
    members: dict[int, Member] = field(default_factory=dict)
    verdict: Verdict | None = None
    _times: StepTimes = field(default_factory=StepTimes)
    _stop: tuple[float, int, int] | None = None
    _stacks_asked_s: float | None = None
    _let_go: bool = False

    def take_in(self, rank: int, host: str, channel: Channel | None) -> None:
        """Add a rank."""
        self.members[rank] = Member(Report(rank, host), channel, Pace(host))

    def tell_all(self, message: Message) -> None:
        """Send a message to every guardian, this one last."""
        for member in self.members.values():
            if member.channel is not None:
                member.channel.send(message)
        self.obey(message)

    def hear(self, rank: int, message: Message, now_s: float) -> None:
        """Take in what a guardian says."""
        member = self.members[rank]
        member.report.silent_s = 0.0
        if message["kind"] == "report":
            self._note_report(member, message, now_s)
        elif message["kind"] == "stacks":
            member.report.where, member.report.in_collective = message["where"], message["in_collective"]
        elif message["kind"] == "stop" and message["stepping"]:
            self.tell_all({"kind": "stop", "signal": message["signal"]})
        elif message["kind"] == "stop" and self._stop is None:
            self._stop = (now_s, rank, message["signal"])

    def _note_report(self, member: Member, message: Message, now_s: float) -> None:
        for name in ("phase", "step", "beats", "waiting", "idle_s", "stopped_s", "died", "ended"):
            setattr(member.report, name, message[name])
        if member.report.ended and member.failed_s is None:
            member.failed_s = now_s
        self._times.add(message["steps_here"], message["step_s"])
        member.pace.add(message["measured_steps"], message["busy_s"], message["trip_s"])
        if member.channel is not None:
            member.channel.send({"kind": "echo", "sent_s": message["sent_s"]})

    def pass_time(self, passed_s: float) -> None:
        """Count silence; a report ends it. A guardian that is gone without its rank's farewell has died with it."""
        for rank, member in self.members.items():
            report = member.report
            report.silent_s += passed_s if rank and member.channel is not None else 0.0
            if member.channel is not None and member.channel.closed and report.ended is None:
                report.died = report.died or "is gone with its guardian"

    def decide(self, now_s: float) -> None:
        """Act on what is known: end all ranks, let them go, or tell of slow ones."""
        if self.verdict is not None or self._let_go:
            return
        reports = [member.report for member in self.members.values()]
        active = [one for one in reports if one.ended is None]
        if not active and any(one.ended for one in reports) and len({one.ended for one in reports}) == 1:
            self._let_go = True
            self.tell_all({"kind": "go"})
            return
        verdict = judge(active, self.limits, self._times.median_s)
        stands_still = (
            verdict is not None and verdict.kind == "hang" and not any(one.stopped_s for one in active)
        )
        if stands_still and not self._have_stacks(active, now_s):
            return
        verdict = verdict or self._judge_failures(reports, active, now_s) or self._judge_stop(now_s)
        if verdict is not None:
            self.verdict = verdict
            self.tell_all({"kind": "verdict", "verdict": verdict.to_json()})
            return
        self._stacks_asked_s = None
        for event in find_slow(
            {rank: one.pace for rank, one in self.members.items()}, self.limits.slow_factor, now_s
        ):
            self.obey({"kind": "slow", "event": event})

    def _have_stacks(self, active: list[Report], now_s: float) -> bool:
        """Whether every rank's stack has come, or was waited for long enough; ask for them at first."""
        if self._stacks_asked_s is None:
            self._stacks_asked_s = now_s
            for one in active:
                one.in_collective = None
            self.tell_all({"kind": "dump"})
        waited_s = now_s - self._stacks_asked_s
        return waited_s >= STACKS_WAIT_S or all(one.in_collective is not None for one in active)

    def _judge_failures(self, reports: list[Report], active: list[Report], now_s: float) -> Verdict | None:
        times = [one.failed_s for one in self.members.values() if one.failed_s is not None]
        if not times or now_s - min(times) < FAILURE_GRACE_S:
            return None
        if any(one.silent_s > 3 * self.limits.interval_s for one in active):
            return None  # a host that is being lost breaks collectives elsewhere: wait for that to be known
        return judge_failures(reports)

    def _judge_stop(self, now_s: float) -> Verdict | None:
        if self._stop is None or now_s - self._stop[0] < STOP_GRACE_S:
            return None
        _, rank, number = self._stop
        report = self.members[rank].report
        asked = f"{report.name} was asked to stop by {signal.Signals(number).name} ({report.doing})"
        text = f"{asked}; there is nothing to save yet"
        return Verdict("stopped", rank, report.host, report.phase, report.step, 0.0, 128 + number, text)
