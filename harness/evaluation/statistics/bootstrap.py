"""95 % intervals of a mean over songs, by drawing songs anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NUM_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its two-sided 95 % interval, over `n` values of some songs."""

    value: float
    low: float
    high: float
    n: int


def bootstrap(
    values: Sequence[float], song_ids: Sequence[str], *, seed: int = 0, num_samples: int = NUM_SAMPLES
) -> Interval | None:
    """The mean of values that belong to songs, with its interval; None of no values."""
    raise NotImplementedError


def bootstrap_difference(
    before: Sequence[float],
    after: Sequence[float],
    song_ids: Sequence[str],
    *,
    seed: int = 0,
    num_samples: int = NUM_SAMPLES,
) -> Interval | None:
    """The mean of after - before, of the same questions, with its interval; None of no values."""
    raise NotImplementedError
