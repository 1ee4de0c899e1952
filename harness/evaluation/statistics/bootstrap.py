"""95 % intervals of a mean over songs, by drawing songs anew (Efron & Tibshirani 1993, ch. 13; Cohen 1995 for pairs).

The questions about one song share its lyrics, so songs are drawn and not questions: a song's values come and go
together. The interval is the percentile one. Where every song has the same mean (all 0, all 1, a single song) there is
no spread to draw from, and a bootstrap would be sure of anything: Wilson's interval over the songs stands instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np
import numpy.typing as npt

from harness.evaluation.accuracy import wilson_interval

NUM_SAMPLES = 10_000
"""Samples of songs: the ends of an interval are sure to about a twentieth of its width."""

_DRAWS_AT_ONCE = 4_000_000

_SAME = 1e-12
"""Means of songs that differ by less are the same, rounded in another order."""

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
    """The mean of values of 0 … 1 that belong to songs, with its interval; None of no values.

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
    low, high = rate_interval(sums, counts, seed=seed, num_samples=num_samples)
    return Interval(float(sums.sum() / counts.sum()), low, high, len(values))


def rate_interval(
    sums: Floats, counts: Floats, *, seed: int = 0, num_samples: int = NUM_SAMPLES
) -> tuple[float, float]:
    """95 % interval of a ratio of sums over songs.

    Args:
        sums: float64[songs], what is counted of each song, at most its `counts`; at least one song.
        counts: float64[songs], out of how much, more than 0.
        seed: Of the draws.
        num_samples: See `bootstrap`.
    """
    if _has_spread(sums, counts):
        return _percentiles(sums, counts, seed, num_samples)
    return wilson_interval(float(sums.sum() / counts.sum()) * len(sums), len(sums))


def _has_spread(sums: Floats, counts: Floats) -> bool:
    return float(np.ptp(sums / counts)) > _SAME


def bootstrap_difference(
    before: Sequence[float],
    after: Sequence[float],
    song_ids: Sequence[str],
    *,
    seed: int = 0,
    num_samples: int = NUM_SAMPLES,
) -> Interval | None:
    """The mean of after - before, of the same questions, with its interval; None of no values.

    Both values of a question are drawn together, so that what makes a song hard for both cancels. Where all songs
    differ by as much, or none does, it is a share of songs that one side gains and of none that the other gains, each
    with Wilson's interval, put together by square-and-add (Newcombe 1998).

    Args:
        before: Of each question, 0 … 1.
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
    value = float(sums.sum() / counts.sum())
    if _has_spread(sums, counts):
        low, high = _percentiles(sums, counts, seed, num_samples)
    else:
        low, high = _same_difference(value, len(sums))
    return Interval(value, low, high, len(before))


def _same_difference(value: float, num_songs: int) -> tuple[float, float]:
    """Newcombe's interval of a difference that is the same for every song, inside -1 … 1."""
    share, sign = abs(value), -1 if value < 0 else 1
    low, high = wilson_interval(share * num_songs, num_songs)
    _, none = wilson_interval(0, num_songs)
    nearer, further = sign * (share - hypot(share - low, none)), sign * high
    return min(nearer, further), max(nearer, further)


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
