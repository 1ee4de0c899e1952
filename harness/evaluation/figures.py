"""The figures of an evaluation out of single results: means with their intervals, by task, slice and system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.evaluation.accuracy import Choice, SongResult, count_answers, summarize_task
from harness.evaluation.material import Material
from harness.evaluation.reference import Guess
from harness.evaluation.results import SYSTEMS, Result
from harness.evaluation.statistics import (
    Interval,
    bootstrap,
    bootstrap_difference,
    calibrate,
    make_buckets,
    slice_values,
)
from harness.evaluation.truth import Knowledge
from preprocess.schema import Song

Values = dict[str, float]
"""Song → value of one metric."""

METHOD_ORDER = ("rank", "generate", "baseline")
SYSTEM_ORDER = (*SYSTEMS, "chance", "majority", "tfidf", "expected")

SLICE_SAMPLES = 2_000
"""Draws of a slice's interval: there are many slices."""

LEADING = {"themes": "f1", "similar": "precision_at_k"}
"""The metric of a task that is sliced and compared; of other tasks "acc", or "supported" where there is no name."""


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """What one row of the table measures.

    Attributes:
        metric: As in "acc".
        method: "rank", "generate" or "baseline".
        system: "before", "after", "few_shot", "chance", "majority", "tfidf" or "expected" (the taught answer).
    """

    metric: str
    method: str
    system: str


def collect_series(task: str, results: Iterable[Result], guesses: Iterable[Guess]) -> dict[Series, Values]:
    """Every metric of a task by song; a song counts where it has something to measure and its name was seen."""
    series: dict[Series, Values] = {}
    for result in results:
        if result.task == task and result.is_seen:
            for metric, value in result.values.items():
                series.setdefault(Series(metric, result.method, result.system), {})[result.song_id] = value
    for guess in guesses:
        if guess.task == task:
            for metric, value in guess.values.items():
                series.setdefault(Series(metric, "baseline", guess.baseline), {})[guess.song_id] = value
    return series


def in_order(series: Iterable[Series]) -> list[Series]:
    """Ranking first, then written answers, then baselines."""
    return sorted(series, key=lambda key: (METHOD_ORDER.index(key.method), SYSTEM_ORDER.index(key.system)))


def measure(values: Values, seed: int) -> Interval | None:
    """The mean over songs with its interval."""
    return bootstrap(list(values.values()), list(values), seed=seed)


def describe_task(
    task: str,
    material: Material,
    results: Sequence[Result],
    guesses: Sequence[Guess],
    frequency: Mapping[str, int],
    seed: int,
) -> dict[str, Any]:
    """A task's part of `evaluation.json`.

    Args:
        task: Which.
        material: What was asked.
        results: Of all tasks.
        guesses: The baselines', of all tasks.
        frequency: Training songs of each artist.
        seed: Of the bootstrap.
    """
    series = collect_series(task, results, guesses)
    return {
        **describe_ranking(task, material, results),
        "metrics": describe_metrics(series, seed),
        "differences": describe_differences(task, series, seed),
        "slices": describe_slices(
            task, series, {one.question.song_id: one.truth.song for one in material.asked}, frequency, seed
        ),
        "calibration": describe_calibration(task, results, guesses),
    }


def describe_ranking(task: str, material: Material, results: Iterable[Result]) -> dict[str, Any]:
    """Accuracy by ranking before and after, with what guessing gives; None of a task that is not ranked.

    Of a closed set whose names were not ranked the written answers' confusion is told.
    """
    labels = material.labels.get(task)
    own = [result for result in results if result.task == task]
    ranked = {(r.system, r.song_id): r for r in own if r.method == "rank"}
    if labels is None:
        return {"before": None, "after": None}
    if not ranked:
        given = {name: [(r.truth or "", r.answer) for r in own if r.system == name] for name in SYSTEMS}
        confusion = {system: count_answers(pairs) for system, pairs in given.items() if pairs}
        return {"before": None, "after": None, "confusion": confusion}
    songs = [song_id for system, song_id in ranked if system == "before"]
    pairs = [_pair(ranked["before", song_id], ranked.get(("after", song_id))) for song_id in songs]
    asked = {question.song_id for question in material.known if question.task == task}
    chosen = {question.song_id for question in material.known}
    not_asked = len((labels.truth.keys() & chosen) - asked)
    return asdict(summarize_task(pairs, labels, not_asked))


def _pair(before: Result, after: Result | None) -> SongResult:
    choices = [None if one is None else Choice(one.answer or "", one.margin) for one in (before, after)]
    assert choices[0] is not None
    return SongResult(before.task, before.song_id, before.truth or "", before.is_seen, choices[0], choices[1])


def describe_metrics(series: Mapping[Series, Values], seed: int) -> list[dict[str, Any]]:
    """A row for each metric, method and system; what is expected by chance has no interval of its own."""
    rows = []
    for key in in_order(series):
        found = measure(series[key], seed)
        if found is not None and key.system == "chance":
            found = Interval(found.value, found.value, found.value, found.n)
        if found is not None:
            rows.append({**asdict(key), **asdict(found)})
    return rows


def leading_metric(task: str, series: Mapping[Series, Values]) -> str:
    """The metric that tells most of a task."""
    metrics = {key.metric for key in series}
    return LEADING.get(task) or ("acc" if "acc" in metrics else "supported")


def describe_differences(task: str, series: Mapping[Series, Values], seed: int) -> list[dict[str, Any]]:
    """How far the tuned model is ahead of each other system, song by song; nothing where there is no tuned model."""
    metric = leading_metric(task, series)
    rows = []
    for method in ("rank", "generate"):
        own = series.get(Series(metric, method, "after"))
        if own is None:
            continue
        for key, other in series.items():
            songs = [song for song in own if song in other]
            is_other = key.metric == metric and key.method in (method, "baseline") and key.system != "after"
            if is_other and songs and key.system != "expected":
                found = bootstrap_difference(
                    [other[song] for song in songs], [own[song] for song in songs], songs, seed=seed
                )
                if found is not None:
                    rows.append(
                        {
                            "metric": metric,
                            "method": method,
                            "system": "after",
                            "against": key.system,
                            **asdict(found),
                        }
                    )
    return rows


def describe_slices(
    task: str,
    series: Mapping[Series, Values],
    songs: Mapping[str, Song],
    frequency: Mapping[str, int],
    seed: int,
) -> list[dict[str, Any]]:
    """The leading metric by genre, decade, language and how often training saw the artist, where songs differ in it."""
    metric = leading_metric(task, series)
    kinds = {
        by: len({bucket(song) for song in songs.values()}) for by, bucket in make_buckets(frequency).items()
    }
    rows = []
    for key in in_order(series):
        if key.metric != metric or key.system in ("chance", "expected"):
            continue
        values, chosen = list(series[key].values()), [songs[song_id] for song_id in series[key]]
        for found in slice_values(values, chosen, frequency, seed=seed, num_samples=SLICE_SAMPLES):
            if kinds[found.by] > 1:
                rows.append({"by": found.by, "slice": found.slice, **asdict(key), **asdict(found.interval)})
    return rows


def describe_calibration(task: str, results: Iterable[Result], guesses: Iterable[Guess]) -> dict[str, Any]:
    """Whether each system that ranks names is right as often as it is sure."""
    pairs: dict[str, list[tuple[float, bool]]] = {}
    for result in results:
        if (
            result.task == task
            and result.method == "rank"
            and result.is_seen
            and result.confidence is not None
        ):
            pairs.setdefault(result.system, []).append((result.confidence, result.values["acc"] == 1))
    for guess in guesses:
        if guess.task == task and guess.confidence is not None and "acc" in guess.values:
            pairs.setdefault(guess.baseline, []).append((guess.confidence, guess.values["acc"] == 1))
    found = {system: calibrate(*map(list, zip(*some, strict=True))) for system, some in pairs.items()}
    return {system: asdict(one) for system, one in found.items() if one is not None}


def count_artists(knowledge: Knowledge) -> dict[str, int]:
    """Training songs of each artist."""
    counts: dict[str, int] = {}
    for song in knowledge.songs.values():
        counts[song.artist or ""] = counts.get(song.artist or "", 0) + 1
    return counts
