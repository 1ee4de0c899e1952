"""Sample answers of models to the same question, side by side, with the truth check's marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.demo.items import Mark, Stretch, split_marked
from harness.demo.wording import describe_confidence
from harness.report.records import RunRecords
from harness.report.samples import SampleAnswer


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer.

    Attributes:
        label: Whose.
        text: What it says; None where that model was not asked.
        claims: Its claims with their verdicts.
        confidence: As `describe_confidence` puts it, or "".
    """

    label: str
    text: str | None
    claims: tuple[Mark, ...] = ()
    confidence: str = ""

    @property
    def pieces(self) -> list[Stretch]:
        """The text in order, cut at the claims."""
        return list(split_marked(self.text or "", self.claims))

    @property
    def contradictions(self) -> list[str]:
        """Why its contradicted claims are, each reason once."""
        return list(dict.fromkeys(one.why for one in self.claims if one.verdict == "contradicted"))


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a song.

    Attributes:
        title: Of the song, or None.
        artist: Or None.
        lyrics_excerpt: Some of its lines.
        question: As the models got it.
        expected: The right answer, or None.
        answers: What each model says.
        note: Whether and when the answers were stored, or "".
    """

    title: str | None
    artist: str | None
    lyrics_excerpt: str
    question: str
    expected: str | None
    answers: tuple[Answer, ...]
    note: str = ""

    @property
    def has_claims(self) -> bool:
        """Whether a claim of an answer was checked."""
        return any(answer.claims for answer in self.answers)


def list_questions(run: RunRecords) -> list[Question]:
    """One run's sample answers, before and after."""
    return [_ask(one, (answer_before(one), answer_after(one, "After"))) for one in run.demo]


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
                answer_before(one),
                *(answer_after(answered[_key(one)], label) for label, answered in by_run),
            ),
        )
        for one in shared
    ]


def answer_before(one: SampleAnswer) -> Answer:
    """The base model's answer."""
    confidence = describe_confidence(one.confidence_before, one.likeliest_before)
    return Answer("Before", one.before, one.claims_before, confidence)


def answer_after(one: SampleAnswer, label: str) -> Answer:
    """The answer with the adapter."""
    confidence = describe_confidence(one.confidence_after, one.likeliest_after)
    return Answer(label, one.after, one.claims_after, confidence)


def _key(answer: SampleAnswer) -> tuple[str | None, str, str]:
    return (answer.title, answer.lyrics_excerpt, answer.question)


def _ask(one: SampleAnswer, answers: tuple[Answer, ...]) -> Question:
    when = f" on {one.date}" if one.date else ""
    note = f"Stored answers, given{when or ' earlier'}." if one.is_stored else ""
    return Question(one.title, one.artist, one.lyrics_excerpt, one.question, one.expected, answers, note)
