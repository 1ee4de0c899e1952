"""Which questions give their answer away, found before any score.

    the artist is named where the artist is asked                    in the question, the lyrics or a heading
    the title stands before the question, or over the lyrics         it names the song, and so its artist
    the label that is asked for stands in the question               as whole words
    the label stands in a heading or in a line such as "Genre: X"    [Verse: Rock]
    the answer itself stands in the lyrics                           "The genre is Rock."
    the song, a copy, a near-duplicate or a part of it was trained   by id, and by its words

A question with a finding is left out of every score, and counted. Titles that are sung are no leak: no task asks for a
title. `preprocess` keeps all of this out of a data set; the audit does not trust it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from preprocess.choose.crossing import CrossingIndex
from preprocess.clean.leaks import names, sings_artist
from preprocess.measure.sections import find_heading
from preprocess.schema import Song
from preprocess.tasks.load import OWN_TASKS

LeakKind = Literal[
    "artist in prompt",
    "title in prompt",
    "answer in question",
    "label in heading",
    "answer in lyrics",
    "song in training",
    "copy in training",
]

ALL_TASKS = "all"
"""Stands for the task of a finding about the song itself, which leaves out all of its questions."""

_FACTS = "artist|singer|performer|performed by|title|song|track|album|genre|style|year|released?|decade|era"
_FACT_LINE = re.compile(rf"\s*(?:{_FACTS})\s*[:=]\s*\S.*", re.IGNORECASE)
_PAGE_TITLE = re.compile(
    r"\s*(?:lyrics (?:to|of|for)\s+(?P<after>.+)|(?P<before>.+?)\s+lyrics)\s*", re.IGNORECASE
)


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
    """One finding: a question that gives its answer away, and how.

    Attributes:
        song_id: The song.
        task: What is asked; `ALL_TASKS` for a finding about the song.
        kind: Which leak.
        detail: What was found, in words; it may quote the data.
    """

    song_id: str
    task: str
    kind: LeakKind
    detail: str


@dataclass(frozen=True, slots=True)
class LeakageAudit:
    """What the audit found.

    Attributes:
        findings: Leaks, in the order of the questions; those about songs last.
        num_checked: Questions that were read.
        excluded: (song id, task) of the questions that are left out of every score.
    """

    findings: tuple[Leak, ...]
    num_checked: int
    excluded: frozenset[tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        """The form of `evaluation.json`."""
        return {
            "num_checked": self.num_checked,
            "findings": [asdict(leak) for leak in self.findings],
            "num_excluded": len(self.excluded),
        }


def audit_leakage(questions: Sequence[Prompted], training: Iterable[tuple[str, str]]) -> LeakageAudit:
    """Audit the questions about held-out songs.

    Args:
        questions: All questions of a split.
        training: (song id, lyrics) of the training songs, read once.
    """
    findings = [leak for question in questions for leak in _audit_question(question)]
    excluded = {(leak.song_id, leak.task) for leak in findings}
    lyrics = {question.song.id: question.lyrics for question in questions if question.lyrics}
    known = dict.fromkeys(question.song.id for question in questions)
    crossing = list(_audit_songs(known, lyrics, training))
    leaked = {leak.song_id for leak in crossing}
    excluded |= {(question.song.id, question.task) for question in questions if question.song.id in leaked}
    return LeakageAudit((*findings, *crossing), len(questions), frozenset(excluded))


def _audit_question(question: Prompted) -> Iterator[Leak]:
    """The leaks of one question, at most one of each kind."""
    for kind, find in _FINDERS.items():
        detail = find(question)
        if detail is not None:
            yield Leak(question.song.id, question.task, kind, detail)


def _find_artist(question: Prompted) -> str | None:
    artist = question.song.artist
    if question.task != "artist" or artist is None:
        return None
    if names(question.question, artist):
        return f"the question names {artist!r}: {question.question!r}"
    if question.lyrics and sings_artist(replace(question.song, lyrics=question.lyrics)):
        return f"the lyrics name {artist!r}"
    return None


def _find_title(question: Prompted) -> str | None:
    """A title that the prompt tells, where it is not sung."""
    title = question.song.title
    if title is None or question.label is None:
        return None
    stated = introduced(question.task, question.question)
    if names(stated, title):
        return f"the question states the title {title!r}: {question.question!r}"
    for line in fact_lines(question.lyrics):
        if names(line, title):
            return f"the line {line!r} tells the title"
    return None


def _find_label(question: Prompted) -> str | None:
    if question.label is not None and names(question.question, question.label):
        return f"the question holds {question.label!r}: {question.question!r}"
    return None


def _find_heading(question: Prompted) -> str | None:
    """A label in a line that is not sung; for a decade any year of it, too."""
    if question.label is None:
        return None
    for line in fact_lines(question.lyrics):
        if names(line, question.label) or (question.task == "context" and _tells_year(line, question.label)):
            return f"the line {line!r} tells {question.label!r}"
    return None


def _tells_year(line: str, decade: str) -> bool:
    return re.search(rf"(?<!\d){decade[:3]}\d(?!\d)", line) is not None


def _find_answer(question: Prompted) -> str | None:
    """The answer in the very form that is asked for, among the lyrics."""
    if question.label is None or not question.lyrics:
        return None
    task = OWN_TASKS.get(question.task)
    answer = f"{task.answer_stem}{question.label}" if task else ""
    return f"the lyrics hold {answer!r}" if answer and names(question.lyrics, answer) else None


_FINDERS: Mapping[LeakKind, Any] = {
    "artist in prompt": _find_artist,
    "title in prompt": _find_title,
    "answer in question": _find_label,
    "label in heading": _find_heading,
    "answer in lyrics": _find_answer,
}


def introduced(task: str, question: str) -> str:
    """What a question states before it asks: everything before the task's own words. A title may be a word of those."""
    known = OWN_TASKS.get(task)
    phrasings = known.questions if known else ()
    return next((question.removesuffix(text) for text in phrasings if question.endswith(text)), question)


def fact_lines(lyrics: str) -> Iterator[str]:
    """The lines of a prompt's lyrics that are not sung: headings, "Genre: X", the title over a page of lyrics."""
    for number, line in enumerate(lyrics.split("\n")):
        line = line.strip()
        if (
            find_heading(line) is not None
            or _FACT_LINE.fullmatch(line)
            or (not number and _PAGE_TITLE.fullmatch(line))
        ):
            yield line


def _audit_songs(
    known: Mapping[str, None], lyrics: Mapping[str, str], training: Iterable[tuple[str, str]]
) -> Iterator[Leak]:
    """Held-out songs that training has: the same id, or the same words."""
    shared: list[str] = []

    def note_ids() -> Iterator[tuple[str, str]]:
        for song_id, text in training:
            if song_id in known:
                shared.append(song_id)
            yield song_id, text

    index = CrossingIndex(lyrics.items())
    found: dict[str, Leak] = {}
    for crossing in index.search(note_ids()):
        detail = (
            f"a {crossing.kind} of training song {crossing.train_id!r} (similarity {crossing.similarity:.2f}, "
            f"{crossing.containment:.0%} of the shorter one in the longer)"
        )
        found.setdefault(crossing.eval_id, Leak(crossing.eval_id, ALL_TASKS, "copy in training", detail))
    for song_id in dict.fromkeys(shared):
        yield Leak(song_id, ALL_TASKS, "song in training", "its id is among the training songs")
    yield from (found[song_id] for song_id in known if song_id in found)
