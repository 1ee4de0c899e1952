"""How far one set of measurements lies from another, with a confidence interval that holds for few values too.

Estimates are Hodges and Lehmann's (1963): the median of all differences between two samples, or of all means of two
values of one. Their intervals invert the rank tests (Moses 1965; Hollander and Wolfe, Nonparametric Statistical
Methods, ch. 3 and 4): no spike moves them far, and they hold for any distribution. Where so few values reach no such
interval, Student's and Welch's are taken. There is no bootstrap: of three pairs it spans just these, and leaves zero
out in one of four measurements of equal things (`tests/test_bench_intervals.py`).

Times of steps one after another are not independent: `block` first takes medians over blocks that are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from bench.record import Figure

Floats = npt.NDArray[np.float64]
Sample = Sequence[float] | Floats

MIN_BLOCKS, MAX_BLOCKS = 6, 40
EXACT_PAIRS = 900
"""Up to so many differences the rank test's distribution is counted, above it is normal."""
EXACT_PAIRED = 40


@dataclass(frozen=True, slots=True)
class Interval:
    """A location or a shift.

    Attributes:
        estimate: The likeliest value.
        low: Lower end of the interval.
        high: Upper end; infinite ends where nothing can be said.
        method: How it was found, in a few words.
        n: Values (blocks, where there are any) on each side.
    """

    estimate: float
    low: float
    high: float
    method: str
    n: tuple[int, int]


def locate(values: Sample, confidence: float) -> Interval:
    """Around what independent values lie (differences of pairs, say).

    Args:
        values: float[n], n at least 1, symmetric around the middle under the hypothesis of no difference.
        confidence: As 0.95.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    rows, columns = np.triu_indices(n)
    walsh = np.sort((x[rows] + x[columns]) / 2)
    estimate = float(np.median(walsh))
    rank = find_rank(signed_rank_weights(n), signed_rank_moments(n), confidence, exact=n <= EXACT_PAIRED)
    if rank >= 1:
        return Interval(estimate, float(walsh[rank - 1]), float(walsh[-rank]), "paired, signed ranks", (n, n))
    if n < 2:
        return Interval(estimate, -math.inf, math.inf, "one value: no interval", (n, n))
    half = student_quantile(n - 1, confidence) * float(x.std(ddof=1)) / math.sqrt(n)
    mean = float(x.mean())
    return Interval(mean, mean - half, mean + half, "paired, Student's t", (n, n))


def shift(a: Sample, b: Sample, confidence: float) -> Interval:
    """How much higher `b` lies than `a`, of independent values.

    Args:
        a: float[n].
        b: float[m].
        confidence: As 0.95.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    n, m = len(x), len(y)
    differences = np.sort((y[:, None] - x[None, :]).ravel())
    estimate = float(np.median(differences))
    is_exact = n * m <= EXACT_PAIRS
    weights = rank_sum_weights(n, m) if is_exact else np.ones(1)
    rank = find_rank(weights, (n * m / 2, n * m * (n + m + 1) / 12), confidence, exact=is_exact)
    if rank >= 1:
        return Interval(
            estimate, float(differences[rank - 1]), float(differences[-rank]), "rank sums", (n, m)
        )
    if min(n, m) < 2:
        return Interval(estimate, -math.inf, math.inf, "one value: no interval", (n, m))
    errors = (float(x.var(ddof=1)) / n, float(y.var(ddof=1)) / m)
    return _welch(float(y.mean() - x.mean()), errors, (n - 1, m - 1), confidence, "Welch's t", (n, m))


def shift_of_summaries(a: Figure, b: Figure, confidence: float, *, log: bool) -> Interval:
    """The same from medians and percentiles alone, taking values to be normal: an approximation, made wide.

    The deviation is the distance between the percentiles over what it is on average for n normal values; the
    median's error is 1.2533 times the mean's; and the degrees of freedom are halved, as percentiles tell less.

    Args:
        a: A figure without values.
        b: Another.
        confidence: As 0.95.
        log: Whether to compare logarithms; the figures are positive then.
    """
    middles, errors, freedoms = [], [], []
    for figure in (a, b):
        low, middle, high = (
            math.log(value) if log else value for value in (figure.p20, figure.median, figure.p80)
        )
        if figure.n < 2:
            return _no_interval(a, b, log=log)
        deviation = (high - low) / expected_spread(figure.n)
        middles.append(middle)
        errors.append(1.2533**2 * deviation**2 / figure.n)
        freedoms.append(max(1.0, (figure.n - 1) / 2))
    method = "Welch's t from percentiles, approximate"
    return _welch(
        middles[1] - middles[0],
        (errors[0], errors[1]),
        (freedoms[0], freedoms[1]),
        confidence,
        method,
        (a.n, b.n),
    )


def _no_interval(a: Figure, b: Figure, *, log: bool) -> Interval:
    middle = math.log(b.median / a.median) if log else b.median - a.median
    return Interval(middle, -math.inf, math.inf, "one value: no interval", (a.n, b.n))


def _welch(
    middle: float,
    errors: tuple[float, float],
    freedoms: tuple[float, float],
    confidence: float,
    method: str,
    n: tuple[int, int],
) -> Interval:
    """Welch's interval (1947) from the two squared standard errors and their degrees of freedom."""
    total = sum(errors)
    if total == 0:
        return Interval(middle, middle, middle, method, n)
    freedom = total**2 / sum(error**2 / f for error, f in zip(errors, freedoms, strict=True))
    half = student_quantile(freedom, confidence) * math.sqrt(total)
    return Interval(middle, middle - half, middle + half, method, n)


def block(values: Sample) -> Floats:
    """Medians over blocks of neighbours so long that the medians hardly depend on each other.

    A block is four times the time over which the values remember (integrated autocorrelation time, Sokal 1997), and
    four values at least where there are 32 or more, as that time is hard to tell from few; there are `MAX_BLOCKS`
    at most, and `MIN_BLOCKS` at least where there are as many values.

    Args:
        values: float[n] in order of time.
    """
    x = np.asarray(values, dtype=np.float64)
    shortest = max(1, min(4, len(x) // 8), math.ceil(len(x) / MAX_BLOCKS))
    length = max(math.ceil(4 * (correlation_time(x) - 1)), shortest)
    num_blocks = max(len(x) // length, min(MIN_BLOCKS, len(x)))
    return np.array([np.median(part) for part in np.array_split(x, num_blocks)])


def correlation_time(values: Floats) -> float:
    """Integrated autocorrelation time, 1 + 2 * sum of the autocorrelations up to Sokal's window; at least 1.

    Ranks stand for the values, so that a spike does not hide the rest.
    """
    n = len(values)
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)
    ranks -= ranks.mean()
    variance = float(ranks @ ranks)
    if n < 8 or np.ptp(values) == 0:
        return 1.0
    total = 1.0
    for lag in range(1, n // 3):
        # 1/n: what the autocorrelation of independent values is below zero on average.
        total += 2 * (float(ranks[:-lag] @ ranks[lag:]) / variance + 1 / n)
        if lag >= 5 * total:
            break
    return max(total, 1.0)


def find_rank(weights: Floats, moments: tuple[float, float], confidence: float, *, exact: bool) -> int:
    """Which smallest value ends the interval (1 is the least); 0 where not even the least reaches the confidence.

    Args:
        weights: Probability of each value of the statistic, from 0 up; used when `exact`.
        moments: Its mean and variance, for the normal approximation.
        confidence: As 0.95.
        exact: Whether to count.
    """
    tail = (1 - confidence) / 2
    if exact:
        return int(np.searchsorted(np.cumsum(weights), tail * (1 + 1e-9), side="right"))
    mean, variance = moments
    return max(0, math.floor(mean + NormalDist().inv_cdf(tail) * math.sqrt(variance)))


def signed_rank_weights(n: int) -> Floats:
    """Distribution of Wilcoxon's signed-rank statistic of n values, float[n(n+1)/2 + 1]."""
    weights = np.ones(1)
    for rank in range(1, min(n, EXACT_PAIRED) + 1):
        weights = (np.pad(weights, (0, rank)) + np.pad(weights, (rank, 0))) / 2
    return weights


def signed_rank_moments(n: int) -> tuple[float, float]:
    """Its mean and variance."""
    return n * (n + 1) / 4, n * (n + 1) * (2 * n + 1) / 24


def rank_sum_weights(n: int, m: int) -> Floats:
    """Distribution of Mann and Whitney's statistic of n and m values, float[n m + 1].

    Its counts are the coefficients of the Gaussian binomial, built row by row: those of (i, j) come from (i - 1, j)
    moved by j, and from (i, j - 1).
    """
    row = [np.ones(1) for _ in range(m + 1)]
    for i in range(1, n + 1):
        below = [np.ones(1)]
        for j in range(1, m + 1):
            counts = np.zeros(i * j + 1)
            counts[j:] += row[j] * (i / (i + j))
            counts[: i * (j - 1) + 1] += below[j - 1] * (j / (i + j))
            below.append(counts)
        row = below
    return row[m]


def student_quantile(freedom: float, confidence: float) -> float:
    """What Student's t stays under in absolute value with a probability; degrees of freedom may be fractions.

    With t = sqrt(f) tan(u) the density is cos(u)^(f-1): it is summed on a grid.
    """
    if freedom > 200:
        return NormalDist().inv_cdf((1 + confidence) / 2)
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = float(np.interp(confidence, total / total[-1], angles))
    return math.sqrt(freedom) * math.tan(angle)


def expected_spread(n: int) -> float:
    """80th less 20th percentile (linear between neighbours) of n standard normal values, on average (Blom 1958)."""
    normal = NormalDist()
    ordered = [normal.inv_cdf((i - 0.375) / (n + 0.25)) for i in range(1, n + 1)]
    low, high = np.percentile(ordered, [20, 80])
    return float(high - low)
