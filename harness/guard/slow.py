"""Find slow ranks: by their own work in the last steps, and by the round trip to rank 0's host."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

WINDOW_STEPS = 20
"""Measured steps that a rank's speed is the mean of."""

LEAST_STEPS = 5
"""Fewer say nothing."""

LEAST_S = 0.02
"""Differences in work or round trip below it are not told."""

LINK_FACTOR = 10.0
"""A link is slow whose round trip takes so many times the median."""

TELL_EVERY_S = 300.0
"""Seconds until the same rank is told of again."""


@dataclass(slots=True)
class Pace:
    """One rank's speed.

    Attributes:
        host: Its host.
        sums: (measured steps, seconds of own work in them), from the start of the window to now.
        round_trips_s: Of the last reports.
        told_s: When it was told of last.
    """

    host: str
    sums: deque[tuple[int, float]] = field(default_factory=deque)
    round_trips_s: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    told_s: float = float("-inf")

    def add(self, measured_steps: int, busy_s: float, round_trip_s: float | None) -> None:
        """Take note of a report."""
        if not self.sums or self.sums[-1][0] != measured_steps:
            self.sums.append((measured_steps, busy_s))
        while len(self.sums) > 2 and measured_steps - self.sums[1][0] >= WINDOW_STEPS:
            self.sums.popleft()
        if round_trip_s is not None:
            self.round_trips_s.append(round_trip_s)

    @property
    def busy_s(self) -> float | None:
        """Mean seconds of own work a step; None before there are `LEAST_STEPS`."""
        if not self.sums:
            return None
        (first, before_s), (last, now_s) = self.sums[0], self.sums[-1]
        return (now_s - before_s) / (last - first) if last - first >= LEAST_STEPS else None

    @property
    def round_trip_s(self) -> float | None:
        """The shortest of the last ones, which no busy processor has lengthened; None before there are enough."""
        return min(self.round_trips_s) if len(self.round_trips_s) >= LEAST_STEPS else None


def find_slow(paces: dict[int, Pace], slow_factor: float, now_s: float) -> list[dict[str, Any]]:
    """Slow ranks that were not told of lately, as events.

    Args:
        paces: By rank.
        slow_factor: How many times the median a rank's work must take.
        now_s: Now, on the clock of `Pace.told_s`.
    """
    found = []
    work = {rank: pace.busy_s for rank, pace in paces.items()}
    trips = {rank: pace.round_trip_s for rank, pace in paces.items() if rank}
    for what, values, factor in (("work", work, slow_factor), ("link", trips, LINK_FACTOR)):
        known = [value for value in values.values() if value is not None]
        if len(known) < 2 or len(known) < len(values):
            continue
        median = statistics.median_low(known)
        for rank, value in values.items():
            pace = paces[rank]
            is_slow = value is not None and value > factor * median and value - median > LEAST_S
            if value is not None and is_slow and now_s - pace.told_s >= TELL_EVERY_S:
                pace.told_s = now_s
                times = value / max(median, 1e-9)
                found.append(_event(rank, pace.host, what, value, median, times))
    return found


def _event(rank: int, host: str, what: str, value: float, median: float, factor: float) -> dict[str, Any]:
    if what == "work":
        text = f"own work of a step takes {value:.3g} s, {factor:.1f} times the ranks' median"
    else:
        text = f"a round trip to rank 0 takes {value * 1e3:.1f} ms, {factor:.0f} times the median"
    event = {"event": "slow rank", "rank": rank, "host": host, "what": what, "factor": factor}
    return {
        **event,
        "seconds": value,
        "median_s": median,
        "message": f"rank {rank} on {host} is slow: {text}",
    }
