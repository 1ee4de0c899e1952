"""Questions about a song, with answers made of what is known of it and what can be counted in it.

Nothing is invented: a task whose fact a song lacks yields no example. Each answer begins with its fact in a fixed
form ("The artist is …."), so that it can be checked and candidates can be ranked; then comes what shows it. A
question follows the lyrics in the prompt, and never contains what it asks for.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from preprocess.clean.leaks import names
from preprocess.errors import ConfigError
from preprocess.schema import Example, Song
from preprocess.tasks import answers
from preprocess.tasks.answers import Answer, Facts


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of question.

    Attributes:
        questions: Phrasings; the first is the canonical one.
        answer_stem: What every answer begins with, up to the fact; "" when it has no fixed form.
        answer: Gives the answer, or None for a song that lacks the fact. The number varies the evidence.
        introduce: States before the question what the answer may use.
    """

    questions: tuple[str, ...]
    answer_stem: str
    answer: Callable[[Facts, int], Answer | None]
    introduce: Callable[[Song], str] = lambda _: ""


_TASKS: dict[str, Task] = {
    "artist": Task(
        questions=(
            "Which artist most likely performs this song?",
            "Based on these lyrics, which artist are they most likely by?",
            "Name the artist behind these lyrics.",
            "Whose song is this? Give the artist and what in the lyrics fits.",
        ),
        answer_stem="The artist is ",
        answer=answers.answer_artist,
    ),
    "genre": Task(
        questions=(
            "What genre does this song belong to, and what shows it?",
            "Classify these lyrics by genre.",
            "Which genre are these lyrics from?",
            "Name the genre of this song and a feature of its lyrics.",
        ),
        answer_stem="The genre is ",
        answer=answers.answer_genre,
    ),
    "themes": Task(
        questions=(
            "What themes are expressed in these lyrics?",
            "Name the main themes of this song and the words that show them.",
            "What are these lyrics about?",
            "Which themes does this song explore?",
        ),
        answer_stem="The main themes are ",
        answer=answers.answer_themes,
    ),
    "context": Task(
        questions=(
            "Which decade is this song from?",
            "Place these lyrics in their time: which decade do they come from?",
            "From which decade are these lyrics?",
            "When was this song written? Name the decade first.",
        ),
        answer_stem="The song is from the ",
        answer=answers.answer_context,
    ),
    "analysis": Task(
        questions=(
            "Analyze them: artist style, genre elements, lyrical themes, cultural context and structure.",
            "Give an analysis: Artist Style, Genre Elements, Lyrical Themes, Cultural Context, Structure.",
            "Write a short analysis: style, genre, themes, context, structure.",
        ),
        answer_stem="**Artist Style**: ",
        answer=answers.answer_analysis,
        introduce=answers.introduce_analysis,
    ),
}

TASKS: tuple[str, ...] = tuple(_TASKS)
"""Names of the tasks."""


def make_examples(song: Song, *, tasks: Iterable[str] = TASKS, seed: int = 0) -> list[Example]:
    """Make the examples of one song, in the order of the tasks; none for a task whose fact the song lacks.

    An artist whom the lyrics name (`preprocess.clean.leaks`) is not asked for.

    Args:
        song: A cleaned song.
        tasks: Names out of `TASKS`.
        seed: Varies phrasing and evidence; the same seed and song give the same examples anywhere.

    Raises:
        ConfigError: A task is not known.
    """
    facts = Facts(song)
    made = (_make_example(name, _find_task(name), facts, seed) for name in tasks)
    return [example for example in made if example is not None]


def _make_example(name: str, task: Task, facts: Facts, seed: int) -> Example | None:
    pick = _pick(name, facts.song.id, seed)
    answer = task.answer(facts, pick)
    if answer is None:
        return None
    first = pick % len(task.questions)
    for text in task.questions[first:] + task.questions[:first]:
        example = Example(name, task.introduce(facts.song) + text, *answer)
        # An artist called "Song" would stand in most phrasings by chance.
        if not leaks_label(example):
            return example
    return None


def leaks_label(example: Example) -> bool:
    """Whether the instruction contains the label that is asked for, as whole words, blind to case."""
    return example.label is not None and names(example.instruction, example.label)


def assert_no_leak(example: Example) -> None:
    """Assert that an example's instruction does not contain its label."""
    assert not leaks_label(example), (
        f"the question {example.instruction!r} contains its answer {example.label!r}"
    )


def question(task: str, song_id: str = "", seed: int | None = None) -> str:
    """A task's question as a song gets it, or the canonical phrasing when `seed` is None.

    For "analysis" this is the question alone, without the facts that `make_examples` states before it.

    Raises:
        ConfigError: The task is not known.
    """
    questions = _find_task(task).questions
    return questions[0] if seed is None else questions[_pick(task, song_id, seed) % len(questions)]


def answer_stem(task: str) -> str:
    """What a task's answers begin with, up to the fact: candidates are ranked as stem + fact + ".".

    Raises:
        ConfigError: The task is not known.
    """
    return _find_task(task).answer_stem


def states_fact(task: str, answer: str, fact: str) -> bool:
    """Whether an answer gives exactly this fact in the task's form, blind to case and to spaces at its ends."""
    stated = f"{answer_stem(task)}{fact}.".casefold()
    text = answer.strip().casefold()
    return text.startswith(stated) and text[len(stated) :][:1].strip() == ""


def stated_themes(answer: str) -> tuple[str, ...]:
    """The themes that an answer to "themes" names, case-folded; empty when it has another form."""
    text = answer.strip().casefold()
    for stem in ("the main themes are ", "the main theme is "):
        if text.startswith(stem):
            listed = text.removeprefix(stem).partition(".")[0]
            return tuple(name.strip() for part in listed.split(", ") for name in part.split(" and "))
    return ()


def _find_task(name: str) -> Task:
    if name not in _TASKS:
        near = difflib.get_close_matches(name, _TASKS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_TASKS)}"
        raise ConfigError(f"task {name!r} is not known; {hint}")
    return _TASKS[name]


def _pick(task: str, song_id: str, seed: int) -> int:
    """A number that depends on task, song and seed alone, the same in every process."""
    digest = hashlib.sha256(f"{seed}\x1f{song_id}\x1f{task}".encode()).digest()
    return int.from_bytes(digest[:8])
