"""Ratios between the rates of two runs, with intervals that allow for neighbouring steps being alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.report.plots import Floats

NUM_SAMPLES = 1000
LEAST_STEPS = 5
"""With fewer there is no interval."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio to the baseline with its 95 % interval; the bounds are None where too few steps were measured."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """As in "1.24x (1.20 to 1.28)"."""
        if self.low is None or self.high is None:
            return f"{self.value:.3g}x"
        return f"{self.value:.2f}x ({self.low:.2f} to {self.high:.2f})"

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def compare_rates(run: tuple[Floats, Floats], baseline: tuple[Floats, Floats]) -> Ratio | None:
    """The ratio of two runs' rates.

    A moving-block bootstrap (Künsch 1989): blocks of about the square root of n neighbouring steps are drawn with
    replacement from each run on its own, so that slow spells stay together. The same steps give the same interval.

    Args:
        run: Amounts and seconds of its steps, float64[n] each.
        baseline: The same of the baseline.

    Returns:
        None where a run has no rate, or a rate of nothing.
    """
    first, second = _rate(*run), _rate(*baseline)
    if first is None or not second:
        return None
    value = first / second
    if min(len(run[0]), len(baseline[0])) < LEAST_STEPS:
        return Ratio(value)
    draws = np.random.default_rng(0)
    ratios = _resample(run, draws) / _resample(baseline, draws)
    low, high = np.percentile(ratios[np.isfinite(ratios)], [2.5, 97.5]).tolist()
    return Ratio(value, min(low, value), max(high, value))


def _rate(amounts: Floats, seconds: Floats) -> float | None:
    total = float(seconds.sum())
    return float(amounts.sum()) / total if total > 0 else None


def _resample(steps: tuple[Floats, Floats], draws: np.random.Generator) -> Floats:
    """float64[NUM_SAMPLES]: rates of the resampled run."""
    n = len(steps[0])
    block = max(1, round(n**0.5))
    starts = draws.integers(0, n - block + 1, (NUM_SAMPLES, -(-n // block)))
    sums = [_sums_of_blocks(values, block)[starts].sum(axis=1) for values in steps]
    return np.asarray(sums[0] / np.where(sums[1] > 0, sums[1], np.nan))


def _sums_of_blocks(values: Floats, block: int) -> Floats:
    """float64[n - block + 1]: the sum of every run of `block` neighbours."""
    running = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(running[block:] - running[:-block])
