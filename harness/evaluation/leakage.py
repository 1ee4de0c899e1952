"""Which questions give their answer away, found before any score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from preprocess.schema import Song

LeakKind = Literal[
    "artist in prompt",
    "title in question",
    "answer in question",
    "label in heading",
    "song in training",
    "copy in training",
]


@dataclass(frozen=True, slots=True)
class Prompted:
    """A held-out question as text.

    Attributes:
        song: The song with its facts.
        task: What is asked.
        lyrics: The lyrics in the prompt; "" for a question without lyrics.
        question: The question, with what it states before it.
        label: The single fact that is asked for; None for other tasks.
    """

    song: Song
    task: str
    lyrics: str
    question: str
    label: str | None


@dataclass(frozen=True, slots=True)
class Leak:
    """One finding: a question that gives its answer away, and how."""

    song_id: str
    task: str
    kind: LeakKind
    detail: str


@dataclass(frozen=True, slots=True)
class LeakageAudit:
    """What the audit found.

    Attributes:
        findings: Leaks, in the order of the questions.
        num_checked: Questions that were read.
        excluded: (song id, task) of the questions that are left out of every score.
    """

    findings: tuple[Leak, ...]
    num_checked: int
    excluded: frozenset[tuple[str, str]]


def audit_leakage(questions: Sequence[Prompted], training: Iterable[tuple[str, str]]) -> LeakageAudit:
    """Audit the questions about held-out songs.

    Args:
        questions: All questions of a split.
        training: (song id, lyrics) of the training songs, read once.
    """
    raise NotImplementedError
