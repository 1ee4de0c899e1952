"""What needs no language model: a guess, the most frequent name, and TF-IDF with logistic regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LabelledLyrics:
    """A song as a classifier sees it.

    Attributes:
        song_id: Its id.
        lyrics: Its lyrics as the shards hold them.
        labels: Task ("artist", "genre", "context") → the name that its answer gives, of the tasks that it is asked.
        themes: The themes that its answer names, in lower case; None where it is not asked for them.
    """

    song_id: str
    lyrics: str
    labels: Mapping[str, str]
    themes: tuple[str, ...] | None = None


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


def read_training_lyrics(data: Path) -> list[LabelledLyrics]:
    """The training songs of a data set with the very labels that training teaches, out of its shards."""
    raise NotImplementedError


def read_labelled_lyrics(data: Path, split: str) -> list[LabelledLyrics]:
    """As `read_training_lyrics`, of any split."""
    raise NotImplementedError


def tfidf_predictions(
    train: Sequence[LabelledLyrics], held_out: Sequence[LabelledLyrics], seed: int = 0
) -> dict[str, list[Prediction]]:
    """Task → predictions for the held-out songs that are asked it, in their order."""
    raise NotImplementedError
