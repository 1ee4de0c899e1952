"""How much of what a model says is made up, and how much it has from its training lyrics word for word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np

from harness.evaluation.results import SYSTEMS, Result
from harness.evaluation.statistics import rate_interval
from harness.evaluation.truth import ClaimCounts


def describe_truth(results: Sequence[Result], seed: int) -> dict[str, Any]:
    """By system: claims that are supported, contradicted and not checkable, and the rate of hallucinations."""
    written = [result for result in results if result.method == "generate"]
    found: dict[str, Any] = {}
    for system in SYSTEMS:
        own = [result for result in written if result.system == system]
        if own:
            tasks = dict.fromkeys(result.task for result in own)
            by_task = {task: count([r for r in own if r.task == task], seed) for task in tasks}
            found[system] = count(own, seed) | {"by_task": by_task}
    return found


def count(results: Sequence[Result], seed: int) -> dict[str, Any]:
    """The claims of some answers, and their rate with its interval; None where nothing is checkable."""
    counts = ClaimCounts(*(sum(result.claims[i] for result in results) for i in range(3)))
    low, high = truth_interval(results, seed) or (None, None)
    return {
        "supported": counts.supported,
        "contradicted": counts.contradicted,
        "not_checkable": counts.not_checkable,
        "hallucination_rate": counts.hallucination_rate,
        "low": low,
        "high": high,
    }


def truth_interval(results: Iterable[Result], seed: int) -> tuple[float, float] | None:
    """95 % interval of the hallucination rate, by drawing songs anew; None where nothing is checkable."""
    by_song: dict[str, tuple[int, int]] = {}
    for result in results:
        supported, contradicted, _ = result.claims
        sums = by_song.get(result.song_id, (0, 0))
        by_song[result.song_id] = sums[0] + contradicted, sums[1] + supported + contradicted
    checked = np.array([sums for sums in by_song.values() if sums[1]], np.float64)
    return rate_interval(checked[:, 0], checked[:, 1], seed=seed) if len(checked) else None


def describe_overlap(results: Iterable[Result]) -> dict[str, Any]:
    """By system: the longest run of words that a written answer has in common with a training song."""
    found: dict[str, Any] = {}
    written = [result for result in results if result.method == "generate"]
    for system in SYSTEMS:
        own = [result for result in written if result.system == system]
        if own:
            longest = max(own, key=lambda result: result.overlap_words)
            found[system] = {
                "longest_words": longest.overlap_words,
                "text": longest.overlap_text,
                "song_id": longest.overlap_song,
                "median_words": median(result.overlap_words for result in own),
            }
    return found
