"""The times of all ranks, brought together in the vector that each step adds up over ranks anyway, one step late.

step 7 ends on rank 0, 1, 2  →  each lays its times in its own row of step 8's vector  →  all know step 7 of all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.meters import APART, STEP_PARTS
from harness.throughput import StepRates

Float64Array = npt.NDArray[np.float64]

PARTS_OF_RANK: tuple[str, ...] = (*STEP_PARTS, "other", *APART)

NUM_TIMES = len(PARTS_OF_RANK) + 2
"""Seconds of each part, of the stall before the step, and of the step."""


@dataclass(frozen=True, slots=True)
class OwnTimes:
    """One rank's times of its last step, on their way to the others.

    Attributes:
        step: Optimizer steps done with it.
        by_part: Whether it was timed by parts, as it then was on every rank.
        seconds: float64[NUM_TIMES].
    """

    step: int
    by_part: bool
    seconds: Float64Array


def keep_times(step: int, rates: StepRates) -> OwnTimes:
    """A rank's times of a step, ready to travel."""
    parts = [rates.parts_s.get(part, 0.0) for part in PARTS_OF_RANK]
    seconds = np.array([*parts, rates.stalls_s, rates.step_time_s], dtype=np.float64)
    return OwnTimes(step, "other" in rates.parts_s, seconds)


def describe_ranks(step: int, times: Float64Array) -> dict[str, Any]:
    """The line of metrics.jsonl that shows a step's times on every rank.

    Args:
        step: Optimizer steps done with it.
        times: float64[ranks, NUM_TIMES].

    Returns:
        "step_time_s" and "stalls_s" by rank, and "parts_s" by part and rank; "eval" and "save" only where one of them
        took place since the step before.
    """
    columns = times.T.tolist()
    parts = dict(zip(PARTS_OF_RANK, columns, strict=False))
    return {
        "kind": "ranks",
        "step": step,
        "step_time_s": columns[-1],
        "stalls_s": columns[-2],
        "parts_s": {part: values for part, values in parts.items() if part not in APART or any(values)},
    }


def total_by_rank(totals: Sequence[tuple[Mapping[str, float], int]]) -> dict[str, Any]:
    """Seconds by part and rank over the measured steps that were timed by parts, and how many those are.

    Args:
        totals: For each rank what `ThroughputMeter.totals` gave.
    """
    parts = dict.fromkeys(part for of_rank, _ in totals for part in of_rank)
    return {
        "parts_s": {part: [of_rank.get(part, 0.0) for of_rank, _ in totals] for part in parts},
        "steps": totals[0][1],
    }
