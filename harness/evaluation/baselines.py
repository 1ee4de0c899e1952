"""What needs no language model: a guess, the most frequent name, and TF-IDF with logistic regression.

The classifier learns what the language model is taught and nothing else: the training songs that are asked a task,
with the names that their answers give. Word 1- and 2-grams, sublinear term frequencies (Manning, Raghavan & Schütze
2008, ch. 6), multinomial logistic regression without class weights; the strength of the regularisation, and for themes
the threshold, are chosen on a fifth of the training songs, then all of them are learned. The held-out songs are only
predicted.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.evaluation.labelled_lyrics import (
    THEMES,
    LabelledLyrics,
    read_labelled_lyrics,
    read_training_lyrics,
)
from preprocess.tasks.main_themes import MAX_THEMES

__all__ = [
    "LabelledLyrics",
    "Prediction",
    "chance_accuracy",
    "majority_predictions",
    "read_labelled_lyrics",
    "read_training_lyrics",
    "tfidf_predictions",
]

STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse strengths of the regularisation (C) that are tried."""

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Probabilities from which a theme is named that are tried."""

MAX_FEATURES = 50_000
"""Word 1- and 2-grams that are kept, the most frequent: fewer where there are many names, see `MAX_WEIGHTS`."""

MAX_WEIGHTS = 4_000_000
"""Names times features: the solver holds about 25 copies of these weights, 0.8 GiB."""

TUNING_PART = 5
MIN_TUNING_SONGS = 20
MAX_CHOOSING_SONGS = 2_500
"""Settings are chosen on this many training songs at most, a fifth of them predicted from the others: with hundreds of
names a fit of all songs takes minutes."""
_MAX_STEPS = 1_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a baseline answers about one song.

    Attributes:
        song_id: The song.
        answers: The name; for themes any number of them.
        probabilities: Name → probability; those of themes do not sum to 1.
    """

    song_id: str
    answers: tuple[str, ...]
    probabilities: Mapping[str, float]


def chance_accuracy(num_names: int) -> float:
    """The expected accuracy of a uniform guess among names."""
    return 1 / num_names


def majority_predictions(
    train: Sequence[LabelledLyrics], held_out: Sequence[LabelledLyrics]
) -> dict[str, list[Prediction]]:
    """Task → what training saw most often, for every held-out song.

    Of themes it names as many of the most frequent ones as have the best mean F1 on the training songs.
    """
    found = {}
    for task in _tasks_of(train):
        songs = [song for song in train if _names_of(song, task)]
        counts = Counter(name for song in songs for name in _names_of(song, task))
        ranked = sorted(counts, key=lambda name: (-counts[name], name))
        answers = max(
            (tuple(ranked[:number]) for number in range(1, MAX_THEMES + 1)),
            key=lambda names: mean_f1([names] * len(songs), [_names_of(song, task) for song in songs]),
        )
        shares = {name: counts[name] / len(songs) for name in sorted(counts)}
        found[task] = [
            Prediction(song.song_id, answers if task == THEMES else answers[:1], shares)
            for song in held_out
            if _names_of(song, task)
        ]
    return found


def mean_f1(answers: Sequence[Sequence[str]], truths: Sequence[Sequence[str]]) -> float:
    """The mean F1 of sets of names, none of them empty; at least one pair."""
    pairs = [(set(answer), set(truth)) for answer, truth in zip(answers, truths, strict=True)]
    return sum(2 * len(answer & truth) / (len(answer) + len(truth)) for answer, truth in pairs) / len(pairs)


def tfidf_predictions(
    train: Sequence[LabelledLyrics], held_out: Sequence[LabelledLyrics], seed: int = 0
) -> dict[str, list[Prediction]]:
    """Task → predictions for the held-out songs that are asked it, in their order.

    Args:
        train: Songs to learn from, in any order. Only they decide anything: vocabulary, weights, regularisation,
            threshold.
        held_out: Songs to predict. Of their labels only which tasks they are asked is used.
        seed: Of the fifth of `train` that the settings are chosen on.

    Returns:
        The tasks that both have; a task with a single name in training predicts it with probability 1.
    """
    found = {}
    for task in _tasks_of(train):
        songs = sorted((song for song in train if _names_of(song, task)), key=lambda song: song.song_id)
        asked = [song for song in held_out if _names_of(song, task)]
        if asked:
            found[task] = (
                _classify_themes(songs, asked, seed)
                if task == THEMES
                else _classify_names(songs, asked, task, seed)
            )
    return found


def _tasks_of(songs: Sequence[LabelledLyrics]) -> list[str]:
    tasks = dict.fromkeys(task for song in songs for task in song.labels)
    return [*tasks, *([THEMES] if any(song.themes for song in songs) else [])]


def _names_of(song: LabelledLyrics, task: str) -> tuple[str, ...]:
    if task == THEMES:
        return song.themes or ()
    return (song.labels[task],) if task in song.labels else ()


def _classify_names(
    songs: Sequence[LabelledLyrics], asked: Sequence[LabelledLyrics], task: str, seed: int
) -> list[Prediction]:
    names = np.array([song.labels[task] for song in songs])
    learned, tuned = _part(len(songs), seed)
    best = max(
        STRENGTHS,
        key=lambda strength: _score_names(songs, names, learned, tuned, strength) if len(tuned) else 0,
    )
    classes, probabilities = _fit_names(songs, names, asked, best)
    return [_name_prediction(song, classes, row) for song, row in zip(asked, probabilities, strict=True)]


def _name_prediction(song: LabelledLyrics, classes: Sequence[str], row: Floats) -> Prediction:
    return Prediction(
        song.song_id, (classes[int(row.argmax())],), dict(zip(classes, row.tolist(), strict=True))
    )


def _score_names(
    songs: Sequence[LabelledLyrics],
    names: npt.NDArray[np.str_],
    learned: npt.NDArray[np.int64],
    tuned: npt.NDArray[np.int64],
    strength: float,
) -> tuple[float, float]:
    """Accuracy on the tuning songs; among equals the probability of the true names (its mean logarithm)."""
    some = [songs[i] for i in learned.tolist()]
    others = [songs[i] for i in tuned.tolist()]
    classes, probabilities = _fit_names(some, names[learned], others, strength)
    place = {name: i for i, name in enumerate(classes)}
    true = np.array([place.get(name, -1) for name in names[tuned].tolist()])
    is_right = probabilities.argmax(1) == true
    own = np.where(true >= 0, probabilities[np.arange(len(true)), true], 0)
    return float(is_right.mean()), float(np.log(own + 1e-12).mean())


def _fit_names(
    songs: Sequence[LabelledLyrics],
    names: npt.NDArray[np.str_],
    asked: Sequence[LabelledLyrics],
    strength: float,
) -> tuple[list[str], Floats]:
    """The names and their probabilities, float64[len(asked), names]."""
    classes: list[str] = np.unique(names).tolist()
    if len(classes) == 1:
        return classes, np.ones((len(asked), 1))
    own, other = _count_words(songs, asked, len(classes))
    model = _fit(own, names, strength)
    return [str(name) for name in model.classes_], model.predict_proba(other)


def _classify_themes(
    songs: Sequence[LabelledLyrics], asked: Sequence[LabelledLyrics], seed: int
) -> list[Prediction]:
    """One classifier a theme; the threshold is the one with the best mean F1 on the tuning songs."""
    learned, tuned = _part(len(songs), seed)
    best, threshold = STRENGTHS[0], THRESHOLDS[0]
    if len(tuned):
        some, others = [songs[i] for i in learned.tolist()], [songs[i] for i in tuned.tolist()]
        tried = {strength: _fit_themes(some, others, strength) for strength in STRENGTHS}
        best, threshold = max(
            ((strength, limit) for strength in STRENGTHS for limit in THRESHOLDS),
            key=lambda pair: _score_themes(others, *tried[pair[0]], pair[1]),
        )
    classes, probabilities = _fit_themes(songs, asked, best)
    return [
        Prediction(
            song.song_id,
            _choose_themes(classes, row, threshold),
            dict(zip(classes, row.tolist(), strict=True)),
        )
        for song, row in zip(asked, probabilities, strict=True)
    ]


def _fit_themes(
    songs: Sequence[LabelledLyrics], asked: Sequence[LabelledLyrics], strength: float
) -> tuple[list[str], Floats]:
    """The themes and their probabilities, float64[len(asked), themes]."""
    classes = sorted({theme for song in songs for theme in song.themes or ()})
    own, other = _count_words(songs, asked, len(classes))
    columns = []
    for theme in classes:
        has = np.array([theme in (song.themes or ()) for song in songs])
        if has.all():
            columns.append(np.ones(len(asked)))
        else:
            columns.append(_fit(own, has, strength).predict_proba(other)[:, 1])
    return classes, np.stack(columns, axis=1)


def _choose_themes(classes: Sequence[str], row: Floats, threshold: float) -> tuple[str, ...]:
    """The likeliest theme, and those from the threshold on, as many as an answer may name."""
    order = np.argsort(-row, kind="stable")[:MAX_THEMES].tolist()
    return tuple(classes[i] for number, i in enumerate(order) if not number or row[i] >= threshold)


def _score_themes(
    songs: Sequence[LabelledLyrics], classes: Sequence[str], probabilities: Floats, threshold: float
) -> float:
    chosen = [_choose_themes(classes, row, threshold) for row in probabilities]
    return mean_f1(chosen, [song.themes or () for song in songs])


def _part(num_songs: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Songs to learn from and songs to choose settings on; none of the latter where the songs are too few."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(num_songs)[:MAX_CHOOSING_SONGS]
    num_tuned = len(order) // TUNING_PART
    if num_tuned < MIN_TUNING_SONGS:
        num_tuned = 0
    return order[num_tuned:], order[:num_tuned]


def _count_words(
    songs: Sequence[LabelledLyrics], asked: Sequence[LabelledLyrics], num_names: int
) -> tuple[Any, Any]:
    """Sparse TF-IDF matrices of both, songs x features."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2),
        token_pattern=r"(?u)\b\w+(?:'\w+)*\b",
        sublinear_tf=True,
        max_features=max(1_000, min(MAX_FEATURES, MAX_WEIGHTS // num_names)),
    )
    own = vectorizer.fit_transform([song.lyrics for song in songs])
    return own, vectorizer.transform([song.lyrics for song in asked])


def _fit(rows: Any, names: npt.NDArray[Any], strength: float) -> Any:  # noqa: ANN401 - scikit-learn ships no types
    """A logistic regression that has learned the name of each row."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # It takes names for numbers where there are half as many as songs.
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        return LogisticRegression(C=strength, max_iter=_MAX_STEPS).fit(rows, names)
