from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from preprocess.errors import ConfigError
from preprocess.measure.structure import find_words
from preprocess.schema import Example, Song
from preprocess.tasks.instruct import (
    DEFAULT_TASKS,
    TASKS,
    answer_stem,
    assert_no_leak,
    leaks_label,
    make_examples,
    make_examples_batch,
    question,
    stated_themes,
    states_fact,
)
from preprocess.tasks.load import OWN_TASKS

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
    assert [example.task for example in examples] == [
        task for task in TASKS if task not in ("similar", "style")
    ]
    labels = {example.task: example.label for example in examples if example.label}
    assert labels == {"artist": "Mara Vale", "genre": "Folk", "context": "1970s"}


def test_eight_tasks_are_made_unasked_and_lyrics_only_on_demand() -> None:
    assert len(TASKS) == len(DEFAULT_TASKS) == 8
    assert "generation" not in TASKS
    (example,) = make_examples(SONG, tasks=["generation"])
    assert example.answer == LYRICS
    assert not example.with_lyrics
    assert example.instruction.startswith("In the style of Mara Vale in the genre Folk, about ")
    assert all(other.with_lyrics for other in make_examples(SONG))


def test_every_task_has_six_phrasings_or_more_and_all_are_used() -> None:
    for task in OWN_TASKS.values():
        assert len(set(task.questions)) == len(task.questions) >= 6
        asked = {question(task, str(n), 0) for n in range(200)}
        assert asked == set(task.questions)


def test_many_songs_at_a_time_give_the_same_examples_as_one_by_one() -> None:
    songs = [replace(SONG, id=str(n), artist=f"Artist {n}") for n in range(7)]
    assert make_examples_batch(songs, seed=2) == [make_examples(song, seed=2) for song in songs]


@pytest.mark.parametrize(
    ("lacking", "missing"),
    [
        ({"artist": None}, {"artist"}),
        ({"genre": None}, {"genre", "analysis"}),  # fewer than three headings are no analysis
        ({"year": None}, {"context", "analysis"}),
        ({"lyrics": "la la la\nla la la"}, {"themes", "structure", "analysis"}),
        ({"lyrics": LYRICS + "\nso sang Mara Vale"}, {"artist"}),
    ],
)
def test_a_lacking_fact_means_no_such_example(lacking: dict[str, str | None], missing: set[str]) -> None:
    examples = make_examples(replace(SONG, **lacking), tasks=TASKS, seed=0)  # type: ignore[arg-type]
    assert set(TASKS) - {example.task for example in examples} - {"similar", "style"} == missing


@pytest.mark.parametrize("seed", range(20))
def test_answers_begin_with_the_fact_and_show_something_countable(seed: int) -> None:
    artist, genre, context = (make(SONG, task, seed) for task in ("artist", "genre", "context"))
    assert re.match(r"The artist is Mara Vale\. The (song|line|leading) ", artist.answer)
    assert re.match(r"The genre is Folk\. The (song|line|leading) ", genre.answer)
    assert context.answer == "The song is from the 1970s. Its year is 1974."


def test_every_count_in_the_answers_is_true() -> None:
    told = "\n".join(
        example.answer for seed in range(30) for example in make_examples(SONG, tasks=TASKS, seed=seed)
    )
    words = find_words(LYRICS)
    counted = set(re.findall(r'"(\w+)" (\d+) times', told))
    assert counted
    assert all(words.count(word) == int(count) for word, count in counted)
    assert "has 2 verses and a chorus that comes twice" in told
    assert 'The line "Carry me home, river, carry me home" comes twice' in told
    first_person = sum(words.count(form) for form in ("i", "me", "my", "mine", "myself"))
    assert f'The leading pronoun is "I": it comes {first_person} times with its forms' in told
    lines = [line for line in LYRICS.split("\n") if line and not line.startswith("[")]
    num_words = sum(len(line.split()) for line in lines)
    assert f"has 8 lines of {num_words / 8:.1f} words on average" in told
    assert "3 verses" not in told


def test_phrasings_vary_over_songs_and_depend_on_nothing_else() -> None:
    asked = {make(replace(SONG, id=str(n)), "genre").instruction for n in range(40)}
    assert asked == set(OWN_TASKS["genre"].questions)
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
    for task in ("artist", "genre", "themes", "context", "structure"):
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
    shown = re.findall(r'"([^"]+)"', answer.partition("show")[2])
    assert shown
    assert all(word in LYRICS.casefold() for word in shown)
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
    assert stated_themes("The main themes are love, loss, and time\nThey show.") == ("love", "loss", "time")
    assert stated_themes("Themes: home") == ()


def test_the_analysis_without_a_corpus_has_three_headings_and_uses_only_what_its_question_states() -> None:
    example = make(SONG, "analysis")
    assert example.instruction.startswith("These lyrics are by Mara Vale (Folk, 1974). ")
    headings = re.findall(r"^\*\*(.+?)\*\*: \S", example.answer, re.MULTILINE)
    assert headings == ["Genre Elements", "Lyrical Themes", "Cultural Context"]
    nameless = make(replace(SONG, artist=None), "analysis")
    assert nameless.instruction.startswith("About these lyrics is known: Folk, 1974. ")
    assert "Mara" not in nameless.answer


WITHOUT_SPACES = """\
あの日のことを覚えてる
君と見た夕焼けの空
あの日のことを覚えてる
風が歌を運んでくる

遠い町の灯りがゆれて
君の声がまだ聞こえる
あの日のことを覚えてる
春の雨が静かに降る"""


def test_nothing_is_said_of_words_where_no_spaces_part_them() -> None:
    song = replace(SONG, lyrics=WITHOUT_SPACES, language="ja")
    told = "\n".join(
        example.answer for seed in range(30) for example in make_examples(song, tasks=TASKS, seed=seed)
    )
    assert "stanzas" in told
    assert not re.search(r"\bwords?\b|sings", told)
    # The negative control: with spaces between them there is something to say.
    spaced = replace(song, lyrics=LYRICS)
    assert re.search(
        r"words", "".join(example.answer for example in make_examples(spaced, tasks=TASKS, seed=1))
    )


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
    assert 'shows in "war"' in make(english, "themes").answer
