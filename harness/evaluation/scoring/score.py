"""The score of one answer, by its task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from preprocess.schema import Song


class Claim(Protocol):
    """A statement that the truth check found in an answer (`harness.evaluation.truth.Claim`)."""

    @property
    def verdict(self) -> Literal["supported", "contradicted", "not checkable"]:
        """What the check says of it."""


class KnownSong(Protocol):
    """A song of the training corpus by its facts (`harness.evaluation.truth.KnownSong`)."""

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def title(self) -> str | None: ...  # noqa: D102

    @property
    def artist(self) -> str | None: ...  # noqa: D102

    @property
    def genre(self) -> str | None: ...  # noqa: D102

    @property
    def year(self) -> int | None: ...  # noqa: D102

    @property
    def themes(self) -> tuple[str, ...]: ...  # noqa: D102


class Knowledge(Protocol):
    """The songs of the training corpus (`harness.evaluation.truth.Knowledge`)."""

    @property
    def songs(self) -> Mapping[str, KnownSong]:
        """By id."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a song that a question is about.

    Attributes:
        song: The song with its facts and cleaned lyrics.
        themes: Its main themes, as `preprocess.tasks.main_themes` names them.
        expected: The whole text of the answer that training would teach.
        names: The closed set of names that are asked among (artist, genre, context); empty for other tasks.
    """

    song: Song
    themes: tuple[str, ...]
    expected: str
    names: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer is worth.

    Attributes:
        values: Name of a metric → 0 … 1. A metric of which the answer has nothing to measure is missing, and does not
            count: "supported" without a checkable statement, "evidence" without a quoted word.
        answer: What was read as the answer, as the closed set (or the answer) spells it; None where none could be.
        is_refusal: Whether the answer declines to answer.
        is_empty: Whether it holds no word.
    """

    values: dict[str, float]
    answer: str | None
    is_refusal: bool
    is_empty: bool


def score_answer(
    task: str, text: str, truth: Truth, knowledge: Knowledge | None, claims: Sequence[Claim]
) -> Score:
    """Score one answer.

    Args:
        task: What was asked.
        text: The answer.
        truth: What is true of the song.
        knowledge: The training corpus, in which suggested songs are looked for; None where there is none.
        claims: What the truth check found in the answer.
    """
    raise NotImplementedError
