from __future__ import annotations

from pathlib import Path

import pytest

from preprocess.corpus import generate_songs
from preprocess.errors import ConfigError
from preprocess.schema import Song
from preprocess.tasks.generation import MAX_CHARS, cut_lyrics
from preprocess.tasks.instruct import answer_stem, make_examples, make_examples_batch, question, states_fact
from preprocess.tasks.load import DEFAULT_TASKS, OWN_TASKS, load_tasks
from preprocess.tasks.task import Draw, Task

TITLE_TASK = """
from dataclasses import dataclass

from preprocess.tasks.task import Answer, Draw, Facts, Task


@dataclass
class Title:
    text: str


def answer(facts: Facts, draw: Draw) -> Answer | None:
    if facts.song.title is None:
        return None
    return Answer(f"The title is {Title(facts.song.title).text}.", facts.song.title)


TASK = Task("title", ("What is this song called?", "Give the title."), "The title is ", answer)
"""

SONGS = list(generate_songs(12, 2))


def write(tmp_path: Path, text: str, name: str = "title_task.py") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_users_task_makes_examples_beside_the_projects_own(tmp_path: Path) -> None:
    tasks = load_tasks(DEFAULT_TASKS, [write(tmp_path, TITLE_TASK)])
    assert [task.name for task in tasks] == [*DEFAULT_TASKS, "title"]
    for song, examples in zip(SONGS, make_examples_batch(SONGS, tasks=tasks, seed=4), strict=True):
        own = [example for example in examples if example.task != "title"]
        assert own == make_examples(song, seed=4)
        (title,) = [example for example in examples if example.task == "title"]
        assert title.label == song.title
        assert title.answer == f"The title is {song.title}."
        assert title.instruction == question(tasks[-1], song.id, 4)
        assert states_fact(tasks[-1], title.answer, song.title or "")
    assert answer_stem(tasks[-1]) == "The title is "
    assert make_examples(Song("x", "la la la"), tasks=tasks[-1:]) == []


def test_a_users_task_stands_where_it_is_named(tmp_path: Path) -> None:
    tasks = load_tasks(["title", "genre"], [str(write(tmp_path, TITLE_TASK))])
    assert [task.name for task in tasks] == ["title", "genre"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"title_task\.py: has no TASK"),
        ("TASK = 'title'", r"title_task\.py: TASK is a str"),
        ("import os\n\nimport no_such_module", r"title_task\.py, line 3: ModuleNotFoundError"),
        ("x = 1\ny = x / 0\n", r"title_task\.py, line 2: ZeroDivisionError"),
        ("def f():\n    return 1 +\n", r"title_task\.py, line 2: SyntaxError"),
        (TITLE_TASK.replace('"title"', '"genre"'), "the name 'genre' is taken"),
        (
            TITLE_TASK.replace('("What is this song called?", "Give the title.")', "()"),
            "one question or more",
        ),
        (
            TITLE_TASK.replace('("What is this song called?", "Give the title.")', '"What?"'),
            "one question or more",
        ),
        (TITLE_TASK.replace('"title"', '""'), "needs a name"),
    ],
)
def test_a_bad_task_file_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_tasks(DEFAULT_TASKS, [write(tmp_path, text)])
    assert error.value.exit_code == 2


def test_a_missing_file_a_file_of_another_kind_and_the_same_name_twice_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_tasks((), [tmp_path / "none.py"])
    with pytest.raises(ConfigError, match=r"must end in \.py"):
        load_tasks((), [write(tmp_path, TITLE_TASK, "title.txt")])
    files = [write(tmp_path, TITLE_TASK, name) for name in ("a.py", "b.py")]
    with pytest.raises(ConfigError, match=r"b\.py: the name 'title' is taken"):
        load_tasks((), files)


def test_the_name_of_a_users_task_is_proposed_for_a_misspelt_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'title'"):
        load_tasks(["titel"], [write(tmp_path, TITLE_TASK)])


def test_the_example_in_the_documentation_works(tmp_path: Path) -> None:
    import preprocess.tasks.task as module

    doc = (module.__doc__ or "").split("::\n", 1)[1].split("\nName the file", 1)[0]
    text = "\n".join(line.removeprefix("    ") for line in doc.split("\n"))
    (task,) = load_tasks((), [write(tmp_path, text)])
    (example,) = make_examples(SONGS[0], tasks=[task])
    assert example.answer == f"The title is {SONGS[0].title}."


def test_the_projects_tasks_are_named_as_their_modules() -> None:
    assert all(isinstance(task, Task) and name == task.name for name, task in OWN_TASKS.items())
    assert [task.name for task in OWN_TASKS.values() if not task.default] == ["generation"]


def test_lyrics_to_write_are_cut_at_the_end_of_a_stanza() -> None:
    stanza = "[Verse]\n" + "\n".join(f"line {n} of a long stanza that goes on" for n in range(12))
    lyrics = "\n\n".join([stanza] * 5)
    cut = cut_lyrics(lyrics)
    assert len(cut) <= MAX_CHARS
    assert cut == "\n\n".join([stanza] * (cut.count("[Verse]")))
    assert cut.count("[Verse]") == 2
    assert cut_lyrics(stanza) == stanza
    lines = [f"line {n}" for n in range(400)]
    kept = cut_lyrics("\n".join(lines)).split("\n")
    assert kept == lines[: len(kept)]
    assert len("\n".join(lines[: len(kept) + 1])) > MAX_CHARS
    assert cut_lyrics("x" * 2000) == ""
    assert cut_lyrics("a line\n[Chorus]\nmore than fits", 18) == "a line"


def test_choices_depend_on_seed_song_and_task_and_are_even() -> None:
    def draws(*key: object) -> list[int]:
        draw = Draw(int(str(key[0])), str(key[1]), str(key[2]))
        return [draw.below(6) for _ in range(20)]

    assert draws(1, "s", "genre") == draws(1, "s", "genre")
    assert (
        len({tuple(draws(*key)) for key in ((1, "s", "a"), (2, "s", "a"), (1, "t", "a"), (1, "s", "b"))}) == 4
    )
    counts = [0] * 6
    for n in range(600):
        for chosen in draws(n, "s", "genre"):
            counts[chosen] += 1
    assert min(counts) > 1800
    items = list(range(9))
    assert sorted(Draw(0, "s", "t").shuffled(items)) == items
    assert len(set(Draw(0, "s", "t").some_of(items, 4))) == 4
    assert Draw(0, "s", "t").some_of([], 4) == []
