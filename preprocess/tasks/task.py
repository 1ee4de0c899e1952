"""What a task is.

A file of yours with one of these makes examples beside the project's own tasks::

    from preprocess.tasks.task import Answer, Draw, Facts, Task

    def answer(facts: Facts, draw: Draw) -> Answer | None:
        if facts.song.title is None:
            return None
        return Answer(f"The title is {facts.song.title}.", label=facts.song.title)

    TASK = Task("title", ("What is this song called?",), "The title is ", answer)

Name the file in the build's config (`task_files: [title_task.py]`). A song for which `answer` gives None gets no such
example. `facts` holds the song, what was measured in it, and what is known of the training corpus; `draw` makes
choices that depend on the seed, the song and the task alone. An answer must be true and must not stand in the question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from preprocess.measure.song import Measures, measure_song
from preprocess.measure.themes import ThemeEvidence
from preprocess.schema import Song
from preprocess.tasks.main_themes import main_themes
from preprocess.tasks.neighbours import Similar
from preprocess.tasks.statistics import CorpusStatistics

T = TypeVar("T")

NUM_SIMILAR = 2
"""Similar songs that are looked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question.

    Attributes:
        text: The whole text.
        label: The fact that was asked for when it is a single one, else None.
    """

    text: str
    label: str | None = None


class Draw:
    """Choices that depend on the seed, the song and the task alone, the same in every process."""

    def __init__(self, seed: int, song_id: str, task: str) -> None:
        digest = hashlib.sha256(f"{seed}\x1f{song_id}\x1f{task}".encode()).digest()
        self._number = int.from_bytes(digest)

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        self._number, chosen = divmod(self._number, limit)
        return chosen

    def one_of(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def some_of(self, items: Sequence[T], most: int) -> list[T]:
        """At most so many of the items, in any order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(min(most, len(left)))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All of the items, in any order."""
        return self.some_of(items, len(items))


class Facts:
    """A song, what is measured in it, and what the training corpus shows; each found once and only when asked for.

    Args:
        song: A cleaned song.
        corpus: Statistics of the training songs, or None.
        measures: What `measure_song` found in its lyrics; None measures when asked.
        similar: The nearest songs of the corpus; None looks for them when asked.

    Attributes:
        song: The song.
        corpus: The statistics.
    """

    def __init__(
        self,
        song: Song,
        corpus: CorpusStatistics | None = None,
        measures: Measures | None = None,
        similar: tuple[Similar, ...] | None = None,
    ) -> None:
        self.song = song
        self.corpus = corpus
        self._measures = measures
        self._similar = similar

    @cached_property
    def measures(self) -> Measures:
        """What is counted and found in the lyrics."""
        return self._measures or measure_song(self.song.lyrics, self.song.language)

    @cached_property
    def themes(self) -> tuple[ThemeEvidence, ...]:
        """The themes given with the song, else those that the lexicon finds; at most `MAX_THEMES`."""
        return main_themes(self.song, self.measures)

    @cached_property
    def similar(self) -> tuple[Similar, ...]:
        """The nearest songs of the training corpus, at most `NUM_SIMILAR`; none without statistics."""
        if self._similar is not None or self.corpus is None:
            return self._similar or ()
        return self.corpus.similar.nearest(self.song, self.measures.words, NUM_SIMILAR)


def introduce_nothing(facts: Facts) -> str:
    """State nothing before the question."""
    return ""


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of question.

    Attributes:
        name: As in "artist"; it stands in configs and reports.
        questions: Phrasings; the first is the canonical one.
        answer_stem: What every answer begins with, up to the fact; "" when it has no fixed form. Where an answer has
            a label, candidates are ranked as stem + label + ".".
        answer: Gives the answer, or None for a song that lacks the fact.
        introduce: States before the question what the answer may use.
        default: Whether a build makes it without being asked to.
        with_lyrics: Whether the question is about the lyrics, which then stand before it.
    """

    name: str
    questions: tuple[str, ...]
    answer_stem: str
    answer: Callable[[Facts, Draw], Answer | None]
    introduce: Callable[[Facts], str] = introduce_nothing
    default: bool = True
    with_lyrics: bool = True
