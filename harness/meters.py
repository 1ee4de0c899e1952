"""The clock of a training run: seconds by step and by part, and the rates that follow from a step's counts.

start_step ─ data ─ forward ─ loss ─ backward ─ … ─ optimizer ─ end_step      step time
                                                    └ eval, save                taken out of it
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

Part = Literal["data", "forward", "loss", "backward", "optimizer", "eval", "save"]

STEP_PARTS: tuple[Part, ...] = ("data", "forward", "loss", "backward", "optimizer")
"""Parts of a step's time. What none of them covers is reported as "other"."""

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

    def add(self, counts: StepCounts, step_time_s: float, parts_s: Mapping[str, float]) -> None:
        self.counts += counts
        self.times_s.append(step_time_s)
        for part, seconds in parts_s.items():
            self.parts_s[part] = self.parts_s.get(part, 0.0) + seconds


class ThroughputMeter:
    """Times steps and their parts, and turns counts into rates.

    A GPU works behind the host's back: without `synchronize` the parts are host time, and a part that waits
    for the device (reading the loss, say) is charged for the work queued before it. The step as a whole is
    right as long as something in it waits.
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
        self._parts_s: dict[Part, float] = {}
        self._open_part: Part | None = None
        self._started_at: float | None = None
        self._apart_in_step_s = 0.0
        self._is_detailed = True
        self._recent: deque[tuple[float, float]] = deque(maxlen=SMOOTHING_STEPS)

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
        self._apart_in_step_s = 0.0
        self._is_detailed = detailed
        self._started_at = self._now()

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Charge the time of the block to a part. Repeated parts of a step add up; parts do not nest.

        Args:
            name: "eval" and "save" may stand outside a step, the others only inside one.

        Raises:
            ValueError: There is no such part.
            RuntimeError: Another part is open, or no step was started.
        """
        self._check_part(name)
        if name in STEP_PARTS and not self._is_detailed:
            yield
            return
        self._open_part = name
        started_at = self._now()
        try:
            yield
        finally:
            self._open_part = None
            self._charge(name, self._now() - started_at)

    def _check_part(self, name: Part) -> None:
        if name not in STEP_PARTS + APART:
            raise ValueError(f"got the part {name!r}, expected one of {', '.join(STEP_PARTS + APART)}")
        if self._open_part is not None:
            raise RuntimeError(f"part {name!r} was opened inside part {self._open_part!r}; parts do not nest")
        if name in STEP_PARTS and self._started_at is None:
            raise RuntimeError(f"part {name!r} was opened outside a step; call start_step() first")

    def _charge(self, name: Part, seconds: float) -> None:
        self._parts_s[name] = self._parts_s.get(name, 0.0) + seconds
        if name in APART:
            self._apart_s[name] += seconds
            self._apart_in_step_s += seconds

    def end_step(self, counts: StepCounts) -> StepRates:
        """End the step.

        Args:
            counts: The step's work over all ranks.

        Returns:
            Its time and rates.

        Raises:
            RuntimeError: No step was started, or a part is still open.
        """
        if self._started_at is None or self._open_part is not None:
            raise RuntimeError(f"end_step() without start_step(), or inside part {self._open_part!r}")
        step_time_s = self._now() - self._started_at - self._apart_in_step_s
        parts_s: dict[str, float] = {}
        if self._is_detailed:
            parts_s = {part: self._parts_s.get(part, 0.0) for part in STEP_PARTS}
            parts_s["other"] = max(0.0, step_time_s - sum(parts_s.values()))
        is_warmup = len(self._warmup.times_s) < self._warmup_steps
        (self._warmup if is_warmup else self._measured).add(counts, step_time_s, parts_s)
        parts_s |= {part: self._parts_s[part] for part in APART if part in self._parts_s}
        self._started_at = None
        self._parts_s.clear()
        return self._rate(counts, step_time_s, parts_s, is_warmup)

    def _rate(
        self, counts: StepCounts, step_time_s: float, parts_s: dict[str, float], is_warmup: bool
    ) -> StepRates:
        per_s = divide_counts(counts, step_time_s)
        if len(self._measured.times_s) == 1 and not is_warmup:
            self._recent.clear()
        self._recent.append((per_s["samples_per_s"], per_s["tokens_per_s"]))
        samples, tokens = zip(*self._recent, strict=True)
        return StepRates(
            step_time_s=step_time_s,
            parts_s=parts_s,
            smoothed_samples_per_s=statistics.median(samples),
            smoothed_tokens_per_s=statistics.median(tokens),
            is_warmup=is_warmup,
            **per_s,
        )

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
            tokens_per_example=divide(measured.counts.tokens, measured.counts.examples),
            step_time_median_s=p50,
            step_time_p20_s=p20,
            step_time_p80_s=p80,
            time_share_by_part={part: divide(s, detailed_s) for part, s in measured.parts_s.items()},
            eval_s=self._apart_s["eval"],
            save_s=self._apart_s["save"],
            **divide_counts(measured.counts, total_s),
        )
