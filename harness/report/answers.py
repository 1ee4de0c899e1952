"""Sample answers of models to the same question, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.records import RunRecords, SampleAnswer


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a song.

    Attributes:
        title: Of the song, or None.
        artist: Or None.
        lyrics_excerpt: Some of its lines.
        question: As the models got it.
        expected: The right answer, or None.
        answers: Whose answer, and what it is; None where that model was not asked.
    """

    title: str | None
    artist: str | None
    lyrics_excerpt: str
    question: str
    expected: str | None
    answers: tuple[tuple[str, str | None], ...]


def list_questions(run: RunRecords) -> list[Question]:
    """One run's sample answers, before and after."""
    return [_ask(one, (("Before", one.before), ("After", one.after))) for one in run.demo]


def compare_questions(runs: Sequence[tuple[str, RunRecords]]) -> list[Question]:
    """The questions that all of several runs answered, with the first one's base model and every run's answer.

    Args:
        runs: Labels and runs.
    """
    by_run = [(label, {_key(one): one for one in run.demo}) for label, run in runs]
    shared = [one for one in runs[0][1].demo if all(_key(one) in answered for _, answered in by_run)]
    return [
        _ask(
            one,
            (
                ("Before", one.before),
                *((label, answered[_key(one)].after) for label, answered in by_run),
            ),
        )
        for one in shared
    ]


def _key(answer: SampleAnswer) -> tuple[str | None, str, str]:
    return (answer.title, answer.lyrics_excerpt, answer.question)


def _ask(one: SampleAnswer, answers: tuple[tuple[str, str | None], ...]) -> Question:
    return Question(one.title, one.artist, one.lyrics_excerpt, one.question, one.expected, answers)
