"""95 % intervals of a mean over songs, by drawing songs anew (Efron & Tibshirani 1993, ch. 13; Cohen 1995 for pairs).

The questions about one song share its lyrics, so songs are drawn and not questions: a song's values come and go
together. The interval is the percentile one. A mean of zeros alone (or ones alone) has no spread to draw from, so a
metric whose values are all 0 or all 1 takes Wilson's interval over the songs, which a bootstrap of them cannot give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.evaluation.accuracy import wilson_interval

NUM_SAMPLES = 10_000
"""Samples of songs: the ends of an interval are sure to about a twentieth of its width."""

_DRAWS_AT_ONCE = 4_000_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its two-sided 95 % interval.

    Attributes:
        value: The mean of all values, in the metric's own unit.
        low: Lower end.
        high: Upper end.
        n: Values.
    """

    value: float
    low: float
    high: float
    n: int


def bootstrap(
    values: Sequence[float], song_ids: Sequence[str], *, seed: int = 0, num_samples: int = NUM_SAMPLES
) -> Interval | None:
    """The mean of values that belong to songs, with its interval; None of no values.

    The order of the values does not matter: songs are drawn in the order of their ids.

    Args:
        values: Of any number of questions.
        song_ids: The song of each.
        seed: Of the draws.
        num_samples: How often as many songs are drawn as there are.
    """
    if not len(values):
        return None
    sums, counts = _by_song(np.asarray(values, np.float64), song_ids)
    value = float(sums.sum() / counts.sum())
    if value in (0.0, 1.0) and set(np.unique(values)) <= {value}:
        low, high = wilson_interval(round(value * len(sums)), len(sums))
    else:
        low, high = _percentiles(sums, counts, seed, num_samples)
    return Interval(value, low, high, len(values))


def bootstrap_difference(
    before: Sequence[float],
    after: Sequence[float],
    song_ids: Sequence[str],
    *,
    seed: int = 0,
    num_samples: int = NUM_SAMPLES,
) -> Interval | None:
    """The mean of after - before, of the same questions, with its interval; None of no values.

    Both values of a question are drawn together, so that what makes a song hard for both cancels. Where no question
    differs the interval is a point.

    Args:
        before: Of each question.
        after: Of the same questions in the same order.
        song_ids: The song of each.
        seed: Of the draws; the same as for `bootstrap` draws the same songs.
        num_samples: See `bootstrap`.

    Raises:
        ValueError: The sequences differ in length.
    """
    if not len(before) == len(after) == len(song_ids):
        raise ValueError(
            f"{len(before)} values before, {len(after)} after, {len(song_ids)} songs; expected as many"
        )
    if not len(before):
        return None
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    sums, counts = _by_song(differences, song_ids)
    low, high = _percentiles(sums, counts, seed, num_samples)
    return Interval(float(sums.sum() / counts.sum()), low, high, len(before))


def _by_song(values: Floats, song_ids: Sequence[str]) -> tuple[Floats, Floats]:
    """float64[songs] each: the sum of a song's values and their number, in the order of the ids."""
    if len(values) != len(song_ids):
        raise ValueError(f"{len(values)} values of {len(song_ids)} songs; expected a song for each")
    ids, place = np.unique(np.asarray(song_ids, np.str_), return_inverse=True)
    # Sorted within a song, so that the sum does not depend on the order that values come in.
    order = np.lexsort((values, place))
    sums = np.bincount(place[order], values[order], len(ids)).astype(np.float64)
    return sums, np.bincount(place, minlength=len(ids)).astype(np.float64)


def _percentiles(sums: Floats, counts: Floats, seed: int, num_samples: int) -> tuple[float, float]:
    means = np.concatenate(list(_draw_means(sums, counts, seed, num_samples)))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _draw_means(sums: Floats, counts: Floats, seed: int, num_samples: int) -> Iterator[Floats]:
    """Means over samples of songs, drawn some thousands at a time."""
    rng = np.random.Generator(np.random.Philox(seed))
    num_songs = len(sums)
    at_once = max(1, _DRAWS_AT_ONCE // num_songs)
    for first in range(0, num_samples, at_once):
        drawn = rng.integers(num_songs, size=(min(at_once, num_samples - first), num_songs))
        yield sums[drawn].sum(1) / counts[drawn].sum(1)
