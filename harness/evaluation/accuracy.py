"""Accuracy over a closed set of names: intervals, what guessing reaches, and whether two models differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the report reads accuracies without torch
    from harness.evaluation.questions import TaskLabels
    from harness.tuned import Version

Z_95 = 1.959963984540054
"""Quantile of the normal distribution that leaves 2.5 % above it."""

NO_ANSWER = "(no answer)"
"""Stands for an answer in which no name could be read."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of right answers, and its 95 % interval (0 … 1)."""

    correct: int
    total: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What one model chose for one song.

    Attributes:
        predicted: The likeliest name.
        margin: How far the true name is ahead of the likeliest other one, in nats (negative when it is behind);
            None where the true name is no candidate, or the only one.
    """

    predicted: str
    margin: float | None


@dataclass(frozen=True, slots=True)
class SongResult:
    """One song's answers to one task.

    Attributes:
        task: What was asked.
        song_id: The song.
        truth: The true name.
        is_seen: Whether training has seen that name, so that it is a candidate.
        before: Of the base model.
        after: With the adapter; None without one.
    """

    task: str
    song_id: str
    truth: str
    is_seen: bool
    before: Choice
    after: Choice | None


@dataclass(frozen=True, slots=True)
class TaskEvaluation:
    """One task's result over the songs whose true name training has seen.

    Attributes:
        before: Of the base model; None where no song counts.
        after: With the adapter; None without one.
        chance: Accuracy of a uniform guess.
        majority: Accuracy of always giving the most frequent training name, on these songs.
        p_value: Exact sign test of before against after; None without an adapter.
        num_candidates: Names that were ranked.
        unseen: Songs left out of the accuracy, since training never saw their true name.
        not_asked: Songs whose true name is known but for which the data set has no such question.
        confusion: True name to predicted name to songs, for each model.
    """

    before: Accuracy | None
    after: Accuracy | None
    chance: float
    majority: float | None
    p_value: float | None
    num_candidates: int
    unseen: int
    not_asked: int
    confusion: dict[Version, dict[str, dict[str, int]]]


def choose(names: Sequence[str], scores: Sequence[float], truth: str) -> Choice:
    """The likeliest name, and how far the true one is ahead of the others."""
    by_name = dict(zip(names, scores, strict=True))
    others = [score for name, score in by_name.items() if name != truth]
    margin = by_name[truth] - max(others) if truth in by_name and others else None
    return Choice(max(by_name, key=by_name.__getitem__), margin)


def summarize_task(songs: Sequence[SongResult], labels: TaskLabels, not_asked: int) -> TaskEvaluation:
    """A task's figures over its songs; those whose true name training never saw are counted apart."""
    seen = [song for song in songs if song.is_seen]
    before = [song.before.predicted == song.truth for song in seen]
    after = [song.after.predicted == song.truth for song in seen if song.after is not None]
    confusion: dict[Version, dict[str, dict[str, int]]] = {
        "before": count_answers((song.truth, song.before.predicted) for song in songs)
    }
    tuned = [(song.truth, song.after.predicted) for song in songs if song.after is not None]
    if tuned:
        confusion["after"] = count_answers(tuned)
    return TaskEvaluation(
        before=measure_accuracy(before),
        after=measure_accuracy(after),
        chance=1 / len(labels.train_counts),
        majority=sum(song.truth == labels.majority for song in seen) / len(seen) if seen else None,
        p_value=sign_test(before, after) if after else None,
        num_candidates=len(labels.train_counts),
        unseen=len(songs) - len(seen),
        not_asked=not_asked,
        confusion=confusion,
    )


def count_answers(pairs: Iterable[tuple[str, str | None]]) -> dict[str, dict[str, int]]:
    """True name to given name to songs, both in the order of the alphabet.

    Args:
        pairs: The true name and the one that was given; None where no name could be read.
    """
    counts: dict[str, Counter[str]] = {}
    for truth, given in pairs:
        counts.setdefault(truth, Counter())[NO_ANSWER if given is None else given] += 1
    return {truth: dict(sorted(counts[truth].items())) for truth in sorted(counts)}


def measure_accuracy(is_right: Sequence[bool]) -> Accuracy | None:
    """The share of right answers with its interval, or None of no answers."""
    if not is_right:
        return None
    correct, total = sum(is_right), len(is_right)
    low, high = wilson_interval(correct, total)
    return Accuracy(correct, total, correct / total, low, high)


def wilson_interval(correct: float, total: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927), which stays inside 0 … 1 and is sound for few songs.

    Args:
        correct: Right answers; an answer that is right in part counts in part.
        total: Answers, at least one.
    """
    share, z2 = correct / total, Z_95**2
    center = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, center - half), min(1.0, center + half)


def sign_test(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Two-sided exact sign test on the songs that one model gets right and the other wrong (McNemar's, exact).

    Returns:
        The probability of a split at least as uneven if both models were equally good; 1 where they never differ.
    """
    gained = sum(b < a for b, a in zip(before, after, strict=True))
    lost = sum(b > a for b, a in zip(before, after, strict=True))
    differing = gained + lost
    tail = sum(comb(differing, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << differing))
