"""How much of what a model says is made up, and how much it has from its training lyrics word for word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np

from harness.evaluation.accuracy import wilson_interval
from harness.evaluation.results import SYSTEMS, Result
from harness.evaluation.truth import ClaimCounts

NUM_SAMPLES = 10_000


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
    low, high = rate_interval(results, seed)
    return {
        "supported": counts.supported,
        "contradicted": counts.contradicted,
        "not_checkable": counts.not_checkable,
        "hallucination_rate": counts.hallucination_rate,
        "low": low,
        "high": high,
    }


def rate_interval(
    results: Iterable[Result], seed: int, num_samples: int = NUM_SAMPLES
) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval of the hallucination rate: a ratio of sums over songs that are drawn anew.

    Where every song's claims are contradicted, or none is, every draw is the same: Wilson's interval over songs then.
    """
    by_song: dict[str, list[int]] = {}
    for result in results:
        supported, contradicted, _ = result.claims
        sums = by_song.setdefault(result.song_id, [0, 0])
        sums[0] += contradicted
        sums[1] += supported + contradicted
    sums_of_songs = np.array([sums for sums in by_song.values() if sums[1]], dtype=np.float64)
    if not len(sums_of_songs):
        return None, None
    contradicted_songs, num_songs = int((sums_of_songs[:, 0] > 0).sum()), len(sums_of_songs)
    if contradicted_songs == 0 or (sums_of_songs[:, 0] == sums_of_songs[:, 1]).all():
        return wilson_interval(contradicted_songs, num_songs)
    rng = np.random.Generator(np.random.Philox(seed))
    rates = []
    for _ in range(num_samples):  # one draw at a time: all at once would hold songs x draws
        contradicted, checkable = sums_of_songs[
            rng.integers(len(sums_of_songs), size=len(sums_of_songs))
        ].sum(0)
        rates.append(contradicted / checkable)
    low, high = np.quantile(rates, [0.025, 0.975]).tolist()
    return low, high


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
