"""Planted leaks are found, each by its name; a clean set has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.evaluation.leakage import LeakageAudit, Prompted, audit_leakage
from preprocess.clean.song import CleanSettings, clean_song
from preprocess.corpus.songwriter import generate_songs
from preprocess.schema import Song
from preprocess.tasks.instruct import make_examples

LYRICS = "\n".join(
    f"The {word} of morning runs along the {word} road {i}" for i, word in enumerate("abcdefghij")
)
SONG = Song(
    "s", f"[Verse 1]\n{LYRICS}", "Slow Burn", "Ada Vale", "Rock", 1987, themes=("love",), language="en"
)
LABELS = {"artist": "Ada Vale", "genre": "Rock", "context": "1980s"}


def ask(task: str, song: Song = SONG) -> Prompted:
    questions = {
        "artist": "Name the artist behind these lyrics.",
        "genre": "Classify these lyrics by genre.",
        "context": "Which decade is this song from?",
    }
    question = questions.get(task, "What are these lyrics about?")
    return Prompted(song, task, song.lyrics, question, LABELS.get(task))


def head(line: str) -> Callable[[Prompted], Prompted]:
    """Put a line over the lyrics."""
    return lambda asked: replace(asked, lyrics=f"{line}\n{asked.lyrics}")


def state(text: str) -> Callable[[Prompted], Prompted]:
    """State something before the question."""
    return lambda asked: replace(asked, question=f"{text} {asked.question}")


PLANTED: list[tuple[str, Callable[[Prompted], Prompted], set[str]]] = [
    ("artist", state("These lyrics are by ada vale."), {"artist in prompt", "answer in question"}),
    ("artist", head("[Verse: Ada Vale]"), {"artist in prompt", "label in heading"}),
    ("artist", head("Ada Vale is in the house"), {"artist in prompt"}),
    ("artist", head("The artist is Ada Vale."), {"artist in prompt", "answer in lyrics"}),
    ("artist", head("Title: Slow Burn"), {"title in prompt"}),
    ("artist", head("Slow Burn Lyrics"), {"title in prompt"}),
    ("artist", head("[Slow Burn]"), {"title in prompt"}),
    ("genre", state('The song is called "Slow Burn".'), {"title in prompt"}),
    ("genre", state("About these lyrics is known: Rock."), {"answer in question"}),
    ("genre", head("[Rock Verse]"), {"label in heading"}),
    ("genre", head("Genre: rock"), {"label in heading"}),
    ("genre", head("The genre is Rock."), {"answer in lyrics"}),
    ("context", head("Year: 1983"), {"label in heading"}),
    ("context", head("[Chorus, 1980s version]"), {"label in heading"}),
    ("context", state("It is known to be from the 1980s."), {"answer in question"}),
]


@pytest.mark.parametrize(("task", "plant", "kinds"), PLANTED)
def test_a_planted_leak_is_found(task: str, plant: Callable[[Prompted], Prompted], kinds: set[str]) -> None:
    audit = audit_leakage([ask("themes"), plant(ask(task))], [("other", "la la la")])
    assert {leak.kind for leak in audit.findings} == kinds
    assert audit.excluded == {("s", task)}
    assert audit.num_checked == 2


@pytest.mark.parametrize(
    ("task", "plant"),
    [
        ("artist", head("We rock and we slow burn, ada is valiant")),
        ("artist", head("Slow burn, the line that is sung")),
        ("genre", head("Let us rock in the country")),
        ("genre", state("These lyrics are by Ada Vale.")),
        ("context", head("In 1983 and in the 1980s I was young")),
        ("context", head("Year: 1979")),
        ("analysis", state("These lyrics are by Ada Vale (Rock, 1987).")),
        ("genre", head("[Rocking Verse]")),
    ],
)
def test_what_gives_no_answer_away_is_no_leak(task: str, plant: Callable[[Prompted], Prompted]) -> None:
    assert audit_leakage([plant(ask(task))], []) == LeakageAudit((), 1, frozenset())


def test_a_title_that_is_a_word_of_the_question_is_no_leak() -> None:
    song = replace(SONG, title="Decade")
    assert audit_leakage([ask("context", song)], []).findings == ()
    stated = replace(ask("context", song), question="Its title is Decade. Which decade is this song from?")
    assert [leak.kind for leak in audit_leakage([stated], []).findings] == ["title in prompt"]


@pytest.mark.parametrize(
    ("train_id", "lyrics", "kind", "said"),
    [
        ("t", f"[Chorus]\n{LYRICS.upper()}", "copy in training", "a copy of"),
        ("t", LYRICS.replace("road 3", "street").replace("road 7", "lane"), "copy in training", "near-duplicate"),
        ("t", "\n".join(LYRICS.split("\n")[:4]), "copy in training", "a part of"),
        ("s", "la la la", "song in training", "its id"),
    ],
)  # fmt: skip
def test_a_song_that_was_trained_on_leaves_out_all_of_its_questions(
    train_id: str, lyrics: str, kind: str, said: str
) -> None:
    other = replace(
        SONG,
        id="clean",
        lyrics="Nothing of this is like the other one\nNot a line of it at all",
        artist="X Y",
    )
    questions = [ask("artist"), ask("themes"), replace(ask("genre", other))]
    audit = audit_leakage(questions, [("far", "something else is sung here and there"), (train_id, lyrics)])
    assert [(leak.song_id, leak.task, leak.kind) for leak in audit.findings] == [("s", "all", kind)]
    assert said in audit.findings[0].detail
    assert audit.excluded == {("s", "artist"), ("s", "themes")}
    assert audit.to_json()["num_excluded"] == 2


def test_the_projects_own_questions_over_made_up_songs_have_no_leak() -> None:
    songs = [clean_song(song, CleanSettings()).song for song in generate_songs(120, seed=5)]
    questions = [
        Prompted(song, example.task, song.lyrics, example.instruction, example.label)
        for song in songs[:40]
        for example in make_examples(song)
    ]
    training = [(song.id, song.lyrics) for song in songs[40:]]
    audit = audit_leakage(questions, training)
    copies = {leak.song_id for leak in audit.findings if leak.kind == "copy in training"}
    assert [leak for leak in audit.findings if leak.song_id not in copies] == []
    assert audit.num_checked == len(questions) > 150
    leaked = [
        replace(question, lyrics=f"[{question.song.artist}]\n{question.lyrics}") for question in questions
    ]
    found = audit_leakage(leaked, training)
    assert {key for key in found.excluded if key[1] == "artist"} >= {
        (question.song.id, "artist") for question in questions if question.task == "artist"
    }
