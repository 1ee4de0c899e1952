"""The clock of a training run: seconds by step and by part, and the rates that follow from a step's counts.

start_step ─ data ─ forward ─ loss ─ backward ─ … ─ optimizer ───────────── end_step      step time
                                                    └ wait ─ communication                taken out of "optimizer"
           end_step ─ eval, save ─ stalls ─ start_step                                    in no step's time

"wait" is what the first collective at a step's end takes beyond its transfer: the time until the slowest rank is there.
"communication" is that transfer and every collective after it, as far as nothing else is done meanwhile.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from harness.metrics_file import MetricsWriter
from harness.throughput import (
    StepCounts,
    StepRates,
    TaskStep,
    ThroughputSummary,
    divide,
    divide_counts,
    name_tasks,
    print_throughput,
)

__all__ = [
    "MetricsWriter",
    "Part",
    "StepCounts",
    "StepRates",
    "TaskStep",
    "ThroughputMeter",
    "ThroughputSummary",
    "name_tasks",
    "print_throughput",
]

Part = Literal["data", "forward", "loss", "backward", "wait", "communication", "optimizer", "eval", "save"]

STEP_PARTS: tuple[Part, ...] = ("data", "forward", "loss", "backward", "wait", "communication", "optimizer")
"""Parts of a step's time. What none of them covers is reported as "other"."""

INNER: tuple[Part, ...] = ("wait", "communication")
"""Parts that may stand inside another one, whose time they are taken out of."""

APART: tuple[Part, ...] = ("eval", "save")
"""Parts that are timed but belong to no step."""

SMOOTHING_STEPS = 20
"""Steps that a smoothed rate is the median of."""


@dataclass(slots=True)
class _Totals:
    """Sums over the steps of one kind (warm-up, or measured)."""

    counts: StepCounts = field(default_factory=StepCounts)
    times_s: list[float] = field(default_factory=list)
    parts_s: dict[str, float] = field(default_factory=dict)
    num_detailed: int = 0

    def add(self, counts: StepCounts, step_time_s: float, parts_s: Mapping[str, float]) -> None:
        self.counts += counts
        self.times_s.append(step_time_s)
        self.num_detailed += bool(parts_s)
        for part, seconds in parts_s.items():
            self.parts_s[part] = self.parts_s.get(part, 0.0) + seconds


class ThroughputMeter:
    """Times steps and their parts, and turns counts into rates.

    A GPU works behind the host's back: without `synchronize` the parts are host time, and a part that waits
    for the device (reading the loss, say) is charged for the work queued before it. The step as a whole is
    right as long as something in it waits.

    Attributes:
        transfer_s: Seconds that the first collective at a step's end takes when no rank waits for another; until it is
            set, all of that collective counts as "wait".
    """

    def __init__(
        self,
        warmup_steps: int = 1,
        clock: Callable[[], float] = time.perf_counter,
        synchronize: Callable[[], None] | None = None,
    ) -> None:
        """Create a meter.

        Args:
            warmup_steps: Steps at the start that the summary keeps apart (compilation, first allocations).
            clock: Seconds from any origin, monotonic.
            synchronize: Called at the start and end of every part and step (torch.cuda.synchronize, say):
                exact parts for the price of one wait each.
        """
        self._clock = clock
        self._synchronize = synchronize
        self._warmup_steps = warmup_steps
        self._warmup = _Totals()
        self._measured = _Totals()
        self._apart_s = dict.fromkeys(APART, 0.0)
        self.transfer_s = 0.0
        self._parts_s: dict[Part, float] = {}
        self._open_part: Part | None = None
        self._inner_s = 0.0
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._apart_in_step_s = 0.0
        self._apart_between_s = 0.0
        self._stall_s = 0.0
        self._stalls_s = 0.0
        self._is_detailed = True
        self._recent: deque[dict[str, float]] = deque(maxlen=SMOOTHING_STEPS)

    def _now(self) -> float:
        if self._synchronize is not None:
            self._synchronize()
        return self._clock()

    def start_step(self, *, detailed: bool = True) -> None:
        """Start timing a step.

        Args:
            detailed: Whether by parts too. A step that is not gives its whole time alone, and waits for the device at
                its ends alone; `part` then times "eval" and "save" only.

        Raises:
            RuntimeError: A step is already being timed.
        """
        if self._started_at is not None:
            raise RuntimeError("start_step() was called twice without end_step()")
        self._is_detailed = detailed
        self._started_at = self._now()
        if self._ended_at is not None:
            self._stall_s = max(0.0, self._started_at - self._ended_at - self._apart_between_s)
            self._stalls_s += self._stall_s
        self._apart_in_step_s = 0.0

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Charge the time of the block to a part. Repeated parts of a step add up.

        Args:
            name: "eval" and "save" may stand outside a step, the others only inside one. "wait" and "communication"
                may stand inside another part, whose time goes on after them; other parts do not nest.

        Raises:
            ValueError: There is no such part.
            RuntimeError: Another part is open, or no step was started.
        """
        self._check_part(name)
        if name in STEP_PARTS and not self._is_detailed:
            yield
            return
        outer, self._open_part = self._open_part, name
        inner_before_s, self._inner_s = self._inner_s, 0.0
        started_at = self._now()
        try:
            yield
        finally:
            self._open_part = outer
            seconds = self._now() - started_at
            self._charge(name, seconds - self._inner_s)
            self._inner_s = inner_before_s + seconds

    def _check_part(self, name: Part) -> None:
        if name not in STEP_PARTS + APART:
            raise ValueError(f"got the part {name!r}, expected one of {', '.join(STEP_PARTS + APART)}")
        if self._open_part is not None and (name not in INNER or self._open_part in INNER):
            raise RuntimeError(f"part {name!r} was opened inside part {self._open_part!r}; parts do not nest")
        if name in STEP_PARTS and self._started_at is None:
            raise RuntimeError(f"part {name!r} was opened outside a step; call start_step() first")

    def _charge(self, name: Part, seconds: float) -> None:
        self._parts_s[name] = self._parts_s.get(name, 0.0) + seconds
        if name in APART:
            self._apart_s[name] += seconds
            self._apart_in_step_s += seconds
            self._apart_between_s += seconds

    def end_step(self, counts: StepCounts, *, compiled: bool = False) -> StepRates:
        """End the step.

        Args:
            counts: The step's work over all ranks.
            compiled: Whether some rank compiled code in it, which makes it a step of warm-up.

        Returns:
            Its time and rates.

        Raises:
            RuntimeError: No step was started, or a part is still open.
        """
        if self._started_at is None or self._open_part is not None:
            raise RuntimeError(f"end_step() without start_step(), or inside part {self._open_part!r}")
        self._ended_at = self._now()
        step_time_s = self._ended_at - self._started_at - self._apart_in_step_s
        parts_s = self._split(step_time_s) if self._is_detailed else {}
        is_warmup = compiled or self.num_steps < self._warmup_steps
        (self._warmup if is_warmup else self._measured).add(counts, step_time_s, parts_s)
        parts_s |= {part: self._parts_s[part] for part in APART if part in self._parts_s}
        self._started_at = None
        self._parts_s.clear()
        self._apart_between_s = 0.0
        return self._rate(counts, step_time_s, parts_s, is_warmup)

    def _split(self, step_time_s: float) -> dict[str, float]:
        """Seconds of the step by part."""
        parts_s: dict[str, float] = {part: self._parts_s.get(part, 0.0) for part in STEP_PARTS}
        transfer_s = min(parts_s["wait"], self.transfer_s)
        parts_s["wait"] -= transfer_s
        parts_s["communication"] += transfer_s
        parts_s["other"] = max(0.0, step_time_s - sum(parts_s.values()))
        return parts_s

    def _rate(
        self, counts: StepCounts, step_time_s: float, parts_s: dict[str, float], is_warmup: bool
    ) -> StepRates:
        per_s = divide_counts(counts, step_time_s)
        num_measured = len(self._measured.times_s)
        if num_measured == 1 and not is_warmup:
            self._recent.clear()
        if not (is_warmup and num_measured):
            self._recent.append(per_s)
        stall_s, self._stall_s = self._stall_s, 0.0
        return StepRates(
            step_time_s=step_time_s,
            parts_s=parts_s,
            stalls_s=stall_s,
            smoothed={name: statistics.median(one[name] for one in self._recent) for name in per_s},
            is_warmup=is_warmup,
            **per_s,
        )

    @property
    def num_steps(self) -> int:
        """Steps that have ended, warm-up and measured."""
        return len(self._warmup.times_s) + len(self._measured.times_s)

    def totals(self) -> tuple[dict[str, float], int]:
        """Seconds by part over the measured steps that were timed by parts, and how many these are.

        "eval", "save" and "stalls" are those of the whole run.
        """
        seconds = {**self._measured.parts_s, "stalls": self._stalls_s}
        seconds.update({str(part): apart_s for part, apart_s in self._apart_s.items()})
        return seconds, self._measured.num_detailed

    def summary(self) -> ThroughputSummary:
        """Summarize all steps after warm-up."""
        measured = self._measured
        total_s, detailed_s = sum(measured.times_s), sum(measured.parts_s.values())
        p20, p50, p80 = np.quantile(measured.times_s or [float("nan")], [0.2, 0.5, 0.8]).tolist()
        return ThroughputSummary(
            num_steps=len(measured.times_s),
            num_warmup_steps=len(self._warmup.times_s),
            warmup_s=sum(self._warmup.times_s),
            counts=measured.counts,
            step_time_total_s=total_s,
            real_slot_share=divide(measured.counts.tokens, measured.counts.slots),
            step_time_median_s=p50,
            step_time_p20_s=p20,
            step_time_p80_s=p80,
            time_share_by_part={part: divide(s, detailed_s) for part, s in measured.parts_s.items()},
            eval_s=self._apart_s["eval"],
            save_s=self._apart_s["save"],
            stalls_s=self._stalls_s,
            **divide_counts(measured.counts, total_s),
        )
