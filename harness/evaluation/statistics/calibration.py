"""Whether a model is right as often as it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Answers whose confidence is above `low` and at most `high`; `confidence` and `accuracy` are their means."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration error (0 … 1), Brier score (0 … 1) of the chosen answers, and the bins that hold some."""

    ece: float
    brier: float
    bins: tuple[CalibrationBin, ...]


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities of candidates from their log-likelihoods in nats."""
    raise NotImplementedError


def calibrate(
    probabilities: Sequence[float], is_right: Sequence[bool], *, num_bins: int = NUM_BINS
) -> Calibration | None:
    """Calibration of the chosen answers; None of no answers."""
    raise NotImplementedError
