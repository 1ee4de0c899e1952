"""Questions about a song, with answers made of what is known of it and what can be counted in it and in the corpus.

Nothing is invented: a task whose fact a song lacks yields no example. Each answer begins with its fact in a fixed
form ("The artist is …."), so that it can be checked and candidates can be ranked; then comes what shows it. A
question follows the lyrics in the prompt, and never contains what it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from preprocess.clean.leaks import names
from preprocess.errors import ConfigError
from preprocess.measure.song import Measures, measure_song
from preprocess.schema import Example, Song
from preprocess.tasks.load import DEFAULT_TASKS, OWN_TASKS, find_task, load_tasks
from preprocess.tasks.statistics import CorpusStatistics
from preprocess.tasks.task import NUM_SIMILAR, Answer, Draw, Facts, Task

__all__ = [
    "DEFAULT_TASKS",
    "TASKS",
    "answer_stem",
    "assert_no_leak",
    "leaks_label",
    "load_tasks",
    "make_examples",
    "make_examples_batch",
    "question",
    "stated_themes",
    "states_fact",
]

TASKS: tuple[str, ...] = DEFAULT_TASKS
"""Names of the tasks that are made when no others are asked for."""

_LIST_JOIN = re.compile(r",\s*(?:and\s+)?|\s+and\s+")
_LIST_END = re.compile(r"[.\n]")


def make_examples(
    song: Song,
    *,
    tasks: Iterable[str | Task] = TASKS,
    seed: int = 0,
    corpus: CorpusStatistics | None = None,
    measures: Measures | None = None,
) -> list[Example]:
    """Make the examples of one song, in the order of the tasks; none for a task whose fact the song lacks.

    An artist whom the lyrics name (`preprocess.clean.leaks`) is not asked for.

    Args:
        song: A cleaned song.
        tasks: Names of the project's tasks, or tasks as `load_tasks` gives them.
        seed: Varies phrasing and evidence; the same seed and song give the same examples anywhere.
        corpus: Statistics of the training songs; without them no example speaks of other songs.
        measures: What `measure_song` finds in the song's lyrics, where it is at hand.

    Raises:
        ConfigError: A task is not known.
    """
    return _make(Facts(song, corpus, measures), [_task(task) for task in tasks], seed)


def make_examples_batch(
    songs: Sequence[Song],
    *,
    tasks: Iterable[str | Task] = TASKS,
    seed: int = 0,
    corpus: CorpusStatistics | None = None,
    measures: Sequence[Measures] | None = None,
) -> list[list[Example]]:
    """Make the examples of some songs: the same as one by one, in less time.

    Args:
        songs: Cleaned songs.
        tasks: See `make_examples`.
        seed: See `make_examples`.
        corpus: See `make_examples`.
        measures: Of each song, where they are at hand.
    """
    chosen = [_task(task) for task in tasks]
    found = measures or [measure_song(song.lyrics, song.language) for song in songs]
    if corpus is None:
        facts = [Facts(song, None, own) for song, own in zip(songs, found, strict=True)]
    else:
        near = corpus.similar.nearest_batch(songs, [own.words for own in found], NUM_SIMILAR)
        facts = [Facts(song, corpus, own, by) for song, own, by in zip(songs, found, near, strict=True)]
    return [_make(own, chosen, seed) for own in facts]


def _make(facts: Facts, tasks: Iterable[Task], seed: int) -> list[Example]:
    made = (_make_example(task, facts, seed) for task in tasks)
    return [example for example in made if example is not None]


def _make_example(task: Task, facts: Facts, seed: int) -> Example | None:
    draw = Draw(seed, facts.song.id, task.name)
    first = draw.below(len(task.questions))
    answer, introduction = _ask(task, facts, draw)
    if answer is None:
        return None
    for text in task.questions[first:] + task.questions[:first]:
        instruction = introduction + text
        example = Example(task.name, instruction, answer.text, answer.label, task.with_lyrics)
        # An artist called "Song" would stand in most phrasings by chance.
        if not leaks_label(example):
            return example
    return None


def _ask(task: Task, facts: Facts, draw: Draw) -> tuple[Answer | None, str]:
    """The answer and what the question states before it; a task of the user's may fail, and is told by its name."""
    if task.name in OWN_TASKS:
        return task.answer(facts, draw), task.introduce(facts)
    try:
        answer, introduction = task.answer(facts, draw), task.introduce(facts)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"task {task.name!r} failed on song {facts.song.id!r}: {reason}") from error
    if not isinstance(answer, Answer | None) or not isinstance(introduction, str):
        raise ConfigError(
            f"task {task.name!r} gave {type(answer).__name__} and {type(introduction).__name__} for song "
            f"{facts.song.id!r}; expected an Answer or None, and a text to state before the question"
        )
    return answer, introduction


def leaks_label(example: Example) -> bool:
    """Whether the instruction contains the label that is asked for, as whole words, blind to case."""
    return example.label is not None and names(example.instruction, example.label)


def assert_no_leak(example: Example) -> None:
    """Assert that an example's instruction does not contain its label."""
    assert not leaks_label(example), (
        f"the question {example.instruction!r} contains its answer {example.label!r}"
    )


def question(task: str | Task, song_id: str = "", seed: int | None = None) -> str:
    """A task's question as a song gets it, or the canonical phrasing when `seed` is None.

    This is the question alone, without the facts that a task may state before it.

    Raises:
        ConfigError: The task is not known.
    """
    found = _task(task)
    if seed is None:
        return found.questions[0]
    return found.questions[Draw(seed, song_id, found.name).below(len(found.questions))]


def answer_stem(task: str | Task) -> str:
    """What a task's answers begin with, up to the fact: candidates are ranked as stem + fact + ".".

    Raises:
        ConfigError: The task is not known.
    """
    return _task(task).answer_stem


def states_fact(task: str | Task, answer: str, fact: str) -> bool:
    """Whether an answer gives exactly this fact in the task's form, blind to case and to spaces at its ends."""
    stated = f"{answer_stem(task)}{fact}.".casefold()
    text = answer.strip().casefold()
    return text.startswith(stated) and text[len(stated) :][:1].strip() == ""


def stated_themes(answer: str) -> tuple[str, ...]:
    """The themes that an answer to "themes" names up to a full stop or a line's end, case-folded.

    Empty when it has another form.
    """
    text = answer.strip().casefold()
    for stem in ("the main themes are ", "the main theme is "):
        if text.startswith(stem):
            listed = _LIST_END.split(text.removeprefix(stem), maxsplit=1)[0]
            return tuple(name for part in _LIST_JOIN.split(listed) if (name := part.strip()))
    return ()


def _task(task: str | Task) -> Task:
    return find_task(task) if isinstance(task, str) else task
