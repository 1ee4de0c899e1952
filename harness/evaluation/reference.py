"""What needs no language model, over the same songs: chance, the most frequent name, TF-IDF with a regression.

For similar songs, whose metrics have no natural top: what a random training song reaches, and the taught answer itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from harness.evaluation.baselines import (
    LabelledLyrics,
    Prediction,
    chance_accuracy,
    majority_predictions,
    tfidf_predictions,
)
from harness.evaluation.judging import within_a_decade
from harness.evaluation.material import Asked
from harness.evaluation.scoring import score_answer
from harness.evaluation.scoring.similar import near_by_chance
from harness.evaluation.truth import Knowledge

Baseline: TypeAlias = Literal["chance", "majority", "tfidf", "expected"]

THEME_METRICS = ("precision", "recall", "f1")
SIMILAR_METRICS = ("near", "precision_at_k")


@dataclass(frozen=True, slots=True)
class Guess:
    """A baseline's answer to one question.

    Attributes:
        baseline: Which.
        task: What was asked.
        song_id: About which song.
        values: Metric → 0 … 1; of a guess by chance what is expected of it.
        confidence: Probability that it gives its answer; None where it gives none.
    """

    baseline: Baseline
    task: str
    song_id: str
    values: Mapping[str, float]
    confidence: float | None = None


def guess_answers(
    asked: Sequence[Asked],
    training: Sequence[LabelledLyrics],
    held_out: Sequence[LabelledLyrics],
    knowledge: Knowledge,
    seed: int,
    *,
    fits: bool,
) -> list[Guess]:
    """What the baselines answer.

    Args:
        asked: The questions that count.
        training: The training songs with their labels.
        held_out: The held-out songs with theirs, of which only which tasks they are asked is used.
        knowledge: Of the training songs.
        seed: Of the regression.
        fits: Whether to fit TF-IDF with logistic regression; without it chance and majority alone.
    """
    counted = {one.key: one for one in asked if one.is_seen}
    chosen = {song_id for song_id, _ in counted}
    songs = [song for song in held_out if song.song_id in chosen]
    guesses = [guess_by_chance(one) for one in counted.values() if one.label is not None]
    guesses += [guess for one in counted.values() for guess in _suggest(one, knowledge)]
    guesses += list(_read("majority", majority_predictions(training, songs), counted))
    if fits:
        guesses += list(_read("tfidf", tfidf_predictions(training, songs, seed), counted))
    return guesses


def guess_by_chance(asked: Asked) -> Guess:
    """What a uniform guess among the names is expected to reach."""
    task, names = asked.question.task, asked.truth.names
    values = {"acc": chance_accuracy(len(names))}
    near = [within_a_decade(task, name, asked.label or "").get("within_decade") for name in names]
    if known := [value for value in near if value is not None]:
        values["within_decade"] = sum(known) / len(names)
    return Guess("chance", task, asked.question.song_id, values)


def _suggest(asked: Asked, knowledge: Knowledge) -> Iterable[Guess]:
    """For "similar", a random training song, and the answer that training would teach."""
    task, song_id, truth = asked.question.task, asked.question.song_id, asked.truth
    if task != "similar":
        return
    by_chance = near_by_chance(truth.song, truth.themes, knowledge)
    if by_chance is not None:
        yield Guess("chance", task, song_id, dict.fromkeys(SIMILAR_METRICS, by_chance))
    score = score_answer(task, truth.expected, truth, knowledge, [])
    values = {metric: score.values[metric] for metric in SIMILAR_METRICS if metric in score.values}
    yield Guess("expected", task, song_id, values)


def _read(
    baseline: Baseline,
    predictions: Mapping[str, Sequence[Prediction]],
    counted: Mapping[tuple[str, str], Asked],
) -> Iterable[Guess]:
    for task, found in predictions.items():
        for prediction in found:
            asked = counted.get((prediction.song_id, task))
            if asked is not None and task == "themes":
                yield _list_themes(baseline, asked, prediction.answers)
            elif asked is not None and asked.label is not None:
                yield _name(baseline, asked, asked.label, prediction)


def _name(baseline: Baseline, asked: Asked, label: str, prediction: Prediction) -> Guess:
    task, (name, *_) = asked.question.task, (*prediction.answers, "")
    values = {"acc": float(name == label)} | within_a_decade(task, name, label)
    return Guess(baseline, task, prediction.song_id, values, prediction.probabilities.get(name))


def _list_themes(baseline: Baseline, asked: Asked, themes: Sequence[str]) -> Guess:
    """Themes, scored as an answer that names them in the training's form is."""
    *others, last = themes or [""]
    listed = f"{', '.join(others)} and {last}" if others else last
    text = f"The main {'themes are' if others else 'theme is'} {listed}." if themes else ""
    score = score_answer("themes", text, asked.truth, None, [])
    values = {metric: score.values[metric] for metric in THEME_METRICS if metric in score.values}
    return Guess(baseline, "themes", asked.question.song_id, values)
