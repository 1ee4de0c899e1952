from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from preprocess.errors import ConfigError
from preprocess.measure.structure import find_words
from preprocess.schema import Example, Song
from preprocess.tasks.answers import given_themes
from preprocess.tasks.instruct import (
    TASKS,
    answer_stem,
    assert_no_leak,
    leaks_label,
    make_examples,
    question,
    stated_themes,
    states_fact,
)

LYRICS = """[Verse 1]
I left my mother's house, I took the road
My heart is heavy with the load

[Chorus]
Carry me home, river, carry me home
River, I will no longer roam

[Verse 2]
I sailed the ocean, I climbed the hill
My brother is waiting, waiting still

[Chorus]
Carry me home, river, carry me home
River, I will no longer roam"""

SONG = Song("s1", LYRICS, "Carry Me Home", "Mara Vale", "Folk", 1974)


def make(song: Song, task: str, seed: int = 0) -> Example:
    (example,) = make_examples(song, tasks=[task], seed=seed)
    return example


def test_a_whole_song_gets_every_task_in_order_with_its_labels() -> None:
    examples = make_examples(SONG, tasks=TASKS, seed=3)
    assert [example.task for example in examples] == ["artist", "genre", "themes", "context", "analysis"]
    assert [example.label for example in examples] == ["Mara Vale", "Folk", None, "1970s", None]


@pytest.mark.parametrize(
    ("lacking", "missing"),
    [
        ({"artist": None}, {"artist"}),
        ({"genre": None}, {"genre"}),
        ({"year": None}, {"context"}),
        ({"lyrics": "la la la\nla la la"}, {"themes", "analysis"}),
        ({"lyrics": LYRICS + "\nso sang Mara Vale"}, {"artist"}),
    ],
)
def test_a_lacking_fact_means_no_such_example(lacking: dict[str, str | None], missing: set[str]) -> None:
    examples = make_examples(replace(SONG, **lacking), tasks=TASKS, seed=0)  # type: ignore[arg-type]
    assert set(TASKS) - {example.task for example in examples} == missing


@pytest.mark.parametrize("seed", range(20))
def test_answers_begin_with_the_fact_and_show_something_countable(seed: int) -> None:
    artist, genre, context = (make(SONG, task, seed) for task in ("artist", "genre", "context"))
    assert artist.answer.startswith("The artist is Mara Vale. The song ")
    assert genre.answer.startswith("The genre is Folk. The song ")
    assert context.answer == "The song is from the 1970s. It dates from 1974 and its genre is Folk."


def test_every_count_in_the_answers_is_true() -> None:
    told = "\n".join(
        example.answer for seed in range(30) for example in make_examples(SONG, tasks=TASKS, seed=seed)
    )
    words = find_words(LYRICS)
    counted = set(re.findall(r'"(\w+)" (\d+) times', told))
    assert counted
    assert all(words.count(word) == int(count) for word, count in counted)
    assert "has 2 verses and a chorus that comes twice" in told
    assert 'sings the line "Carry me home, river, carry me home" twice' in told
    assert 'speaks most as "I"' in told
    assert "has 8 lines of about 7 words" in told
    assert "3 verses" not in told


def test_phrasings_vary_over_songs_and_depend_on_nothing_else() -> None:
    asked = {make(replace(SONG, id=str(n)), "genre").instruction for n in range(40)}
    assert len(asked) == 4
    assert make_examples(SONG, seed=1) == make_examples(SONG, seed=1)
    assert make_examples(SONG, tasks=["genre"], seed=1)[0] in make_examples(SONG, tasks=TASKS, seed=1)
    command = "from preprocess.tasks.instruct import question; print([question('genre', str(n), 5) for n in range(9)])"
    here = [question("genre", str(n), 5) for n in range(9)]
    told = subprocess.run(
        [sys.executable, "-c", command],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(path or "." for path in sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == str(here)


def test_the_question_for_evaluation_is_the_one_that_training_asked() -> None:
    for task in TASKS[:4]:
        assert make(SONG, task, 9).instruction == question(task, "s1", 9)
        assert question(task) == question(task, "other")
    assert make(SONG, "analysis", 9).instruction.endswith(question("analysis", "s1", 9))


def test_no_instruction_contains_its_label_and_the_check_catches_one_that_does() -> None:
    for n in range(50):
        for example in make_examples(replace(SONG, id=str(n)), tasks=TASKS, seed=n):
            assert_no_leak(example)
    leaking = Example("artist", "Is this by mara  VALE?", "The artist is Mara Vale.", "Mara Vale")
    assert leaks_label(leaking)
    with pytest.raises(AssertionError, match="contains its answer"):
        assert_no_leak(leaking)


def test_a_name_that_a_phrasing_contains_by_chance_gets_another_phrasing_or_none() -> None:
    songs = [replace(SONG, id=str(n), artist="Performs") for n in range(20)]
    examples = [make(song, "artist") for song in songs]
    assert not any("performs" in example.instruction for example in examples)
    everywhere = replace(SONG, genre="Genre")
    assert make_examples(everywhere, tasks=["genre"]) == []


def test_given_themes_go_first_and_show_only_words_of_the_lyrics() -> None:
    song = replace(SONG, themes=("Throne", "God, As King", "home", "River and Road", "time"))
    answer = make(song, "themes").answer
    assert set(stated_themes(answer)) == {"home", "river & road", "time"}
    for theme in given_themes(song):
        assert all(word in LYRICS.casefold() for word in theme.words)
    assert make(replace(SONG, themes=("Throne",)), "themes").answer == "The main theme is Throne."


def test_found_themes_are_listed_and_read_back() -> None:
    answer = make(SONG, "themes").answer
    assert "home" in stated_themes(answer)
    assert len(stated_themes(answer)) == 3
    assert stated_themes("The main themes are Art & Music, home and night life. They") == (
        "art & music",
        "home",
        "night life",
    )
    assert stated_themes("Themes: home") == ()


def test_the_analysis_has_five_headings_and_uses_only_what_its_question_states() -> None:
    example = make(SONG, "analysis")
    assert example.instruction.startswith("These lyrics are by Mara Vale (Folk, 1974). ")
    headings = re.findall(r"^\*\*(.+?)\*\*: \S", example.answer, re.MULTILINE)
    assert headings == ["Artist Style", "Genre Elements", "Lyrical Themes", "Cultural Context", "Structure"]
    bare = make(replace(SONG, artist=None, genre=None, year=None, title=None), "analysis")
    assert bare.instruction == question("analysis", "s1", 0)
    assert "Genre not given" in bare.answer
    assert "Year not given" in bare.answer
    assert not re.search(r"Mara|Folk|197", bare.answer)


def test_a_fact_is_read_strictly() -> None:
    assert states_fact("artist", "the artist is QUEEN. The song has", "Queen")
    assert states_fact("artist", "The artist is Queen.", "Queen")
    assert not states_fact("artist", "The artist is Queensryche.", "Queen")
    assert not states_fact("artist", "The artist is not Queen.", "Queen")
    assert not states_fact("artist", "It could be Queen. The artist is Prince.", "Queen")
    assert not states_fact("genre", "The genre is Rock.5", "Rock")
    assert answer_stem("context") + "1990s." == "The song is from the 1990s."


def test_an_unknown_task_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'artist'") as error:
        make_examples(SONG, tasks=["artists"])
    assert error.value.exit_code == 2


def test_a_given_theme_of_a_song_in_another_language_stays_without_words_that_only_look_alike() -> None:
    song = replace(
        SONG, lyrics="Die Nacht war lang\nIch war allein\nEs war so kalt\nWas war", themes=("war",)
    )
    assert make(song, "themes").answer == "The main theme is war."
    analysis = make(song, "analysis").answer
    assert "pronoun" not in analysis
    assert "the mood" not in analysis
    english = replace(song, lyrics=LYRICS + "\nthe war is long")
    assert 'It shows in "war"' in make(english, "themes").answer
