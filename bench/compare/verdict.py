"""The verdict on one quantity of two sides, and what is said about a whole comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.compare.intervals import Interval

Verdict = Literal["better", "worse", "changed", "noise", "unknown"]
"""Changed: it differs, but which way is better is not known. Unknown: there is no interval."""

CONFIDENCE = 0.95
"""Of all verdicts of a family together: no better, worse or changed among quantities that are equal, so often."""

MIN_CHANGE = 0.02
"""The least change that matters: a fiftieth."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One quantity compared.

    Attributes:
        name: Of the quantity.
        unit: Of `a` and `b`.
        a: Its median on side A.
        b: Its median on side B.
        change: B against A: 0.05 is 5 % more of the quantity, whether that is good or bad. Of a part of a step, the
            part's change against the whole step; of a percentage, its change in hundredths.
        low: Lower end of the change's interval; None where there is none.
        high: Upper end; None where there is none.
        confidence: Of the interval.
        method: How it was found.
        n: Values on each side.
        verdict: See `Verdict`.
        note: What noise means here, or "".
    """

    name: str
    unit: str
    a: float
    b: float
    change: float
    low: float | None
    high: float | None
    confidence: float
    method: str
    n: tuple[int, int]
    verdict: Verdict
    note: str = ""


@dataclass(slots=True)
class Comparison:
    """Two sides compared.

    Attributes:
        title: What was compared.
        a: Where side A comes from.
        b: Where side B comes from.
        min_change: The least change that matters.
        findings: One for each quantity that both sides have.
        warnings: What differs besides what was measured.
        remarks: What else is to be told: the part that explains a slower step.
    """

    title: str
    a: str
    b: str
    min_change: float
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def names(self, verdict: Verdict) -> list[str]:
        """The quantities with a verdict."""
        return [finding.name for finding in self.findings if finding.verdict == verdict]


def family_confidence(num_quantities: int) -> float:
    """Confidence of one of several quantities, so that all together reach `CONFIDENCE` (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(1, num_quantities)


def judge(interval: Interval, direction: Literal[-1, 0, 1], min_change: float) -> tuple[Verdict, str]:
    """Verdict and note on a change: real where the interval leaves out zero, and large enough to matter.

    Args:
        interval: Of the relative change.
        direction: 1 where more is better, -1 where less is, 0 where neither is known.
        min_change: The least change that matters.
    """
    if not math.isfinite(interval.low):
        is_same = interval.estimate == 0
        return ("noise", "the same") if is_same else ("unknown", interval.method)
    if (interval.low > 0 or interval.high < 0) and abs(interval.estimate) >= min_change:
        if direction == 0:
            return "changed", ""
        return ("better" if interval.estimate * direction > 0 else "worse"), ""
    most = max(abs(interval.low), abs(interval.high))
    if most <= min_change:
        return "noise", f"equal within {min_change:.1%}"
    if interval.low > 0 or interval.high < 0:
        return "noise", f"real, but less than {min_change:.1%}"
    return "noise", f"could hide {most:.1%}"


def to_ratio(interval: Interval) -> Interval:
    """An interval of a difference of logarithms as one of the relative change."""
    low, middle, high = (
        math.expm1(min(end, 700.0)) for end in (interval.low, interval.estimate, interval.high)
    )
    if not math.isfinite(interval.low):
        low, high = -math.inf, math.inf
    return Interval(middle, low, high, interval.method, interval.n)


def scale(interval: Interval, factor: float) -> Interval:
    """An interval in another unit; `factor` is positive."""
    return Interval(
        interval.estimate * factor,
        interval.low * factor,
        interval.high * factor,
        interval.method,
        interval.n,
    )


def find_quantity(
    name: str,
    unit: str,
    medians: tuple[float, float],
    interval: Interval,
    confidence: float,
    direction: Literal[-1, 0, 1],
    min_change: float,
) -> Finding:
    """A finding out of an interval of the relative change."""
    verdict, note = judge(interval, direction, min_change)
    is_known = math.isfinite(interval.low)
    return Finding(
        name=name,
        unit=unit,
        a=medians[0],
        b=medians[1],
        change=interval.estimate,
        low=interval.low if is_known else None,
        high=interval.high if is_known else None,
        confidence=confidence,
        method=interval.method,
        n=interval.n,
        verdict=verdict,
        note=note,
    )


def list_differences(title: str, a: dict[str, object], b: dict[str, object]) -> list[str]:
    """Sentences on keys whose values differ, "title: key is X in A, Y in B"."""
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    return [f"{title} differ: {key} is {a.get(key)} in A, {b.get(key)} in B" for key in keys]


def shorten(sentences: Sequence[str], most: int = 8) -> list[str]:
    """No more than so many sentences, with the number of the rest."""
    rest = len(sentences) - most
    return [*sentences[:most], f"and {rest} more differences"] if rest > 0 else list(sentences)
