"""Whether a model is right as often as it is sure.

A model that gives its answer a probability of 0.8 should be right with 8 answers of 10. The expected calibration error
is the mean distance of accuracy and confidence over bins of equal width, weighted by their answers (Naeini, Cooper &
Hauskrecht 2015; Guo et al. 2017). The Brier score is the mean squared distance of the chosen answer's probability from
1 where it is right and 0 where it is wrong (Brier 1950, of that event alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The answers of some confidence.

    Attributes:
        low: Their confidence is at least this …
        high: … and below this (the last bin holds 1, too).
        confidence: Its mean.
        accuracy: Share of them that are right.
        n: Answers, at least one.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence is from accuracy.

    Attributes:
        ece: Expected calibration error, 0 … 1.
        brier: Brier score of "the answer is right", 0 … 1.
        bins: Those that hold an answer, ascending.
    """

    ece: float
    brier: float
    bins: tuple[CalibrationBin, ...]


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities of candidates from their log-likelihoods in nats; they sum to 1.

    Args:
        scores: Of at least one candidate; none of them NaN or all of them minus infinity.
    """
    values = np.asarray(scores, np.float64)
    weights = np.exp(values - values.max())
    probabilities: list[float] = (weights / weights.sum()).tolist()
    return probabilities


def calibrate(
    probabilities: Sequence[float], is_right: Sequence[bool], *, num_bins: int = NUM_BINS
) -> Calibration | None:
    """Calibration of the chosen answers; None of no answers.

    Args:
        probabilities: That the model gives each answer that it chose, 0 … 1 (a sum's rounding aside).
        is_right: Whether the answer is right.
        num_bins: Bins of equal width.

    Raises:
        ValueError: The sequences differ in length, or a probability lies outside 0 … 1.
    """
    sure, right = np.asarray(probabilities, np.float64), np.asarray(is_right, np.float64)
    if len(sure) != len(right):
        raise ValueError(f"{len(sure)} probabilities of {len(right)} answers; expected as many")
    if not len(sure):
        return None
    if not (sure.min() >= -1e-9 and sure.max() <= 1 + 1e-9):
        raise ValueError(f"probabilities from {sure.min()} to {sure.max()}; expected 0 to 1")
    sure = np.clip(sure, 0, 1)
    place = np.minimum((sure * num_bins).astype(np.int64), num_bins - 1)
    bins = tuple(
        CalibrationBin(
            low=number / num_bins,
            high=(number + 1) / num_bins,
            confidence=float(sure[place == number].mean()),
            accuracy=float(right[place == number].mean()),
            n=int((place == number).sum()),
        )
        for number in np.unique(place).tolist()
    )
    ece = sum(found.n * abs(found.accuracy - found.confidence) for found in bins) / len(sure)
    return Calibration(ece, float(((sure - right) ** 2).mean()), bins)
