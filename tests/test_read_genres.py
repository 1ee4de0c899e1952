from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from preprocess.errors import ConfigError
from preprocess.read.genres import load_genres
from preprocess.schema import GENRES


@pytest.mark.parametrize(
    ("genre", "words"),
    [
        ("Hip-Hop", ["rap", "hip hop", "Hip-Hop/Rap", "TRAP", "hiphop"]),
        ("Rock", ["rock", "indie rock", "heavy metal", "Metal", "Rock & Roll", "punk", "country rock"]),
        ("Pop", ["pop", "dance-pop", "synth pop", "K pop".replace("K", "art"), "folk pop"]),
        ("Country", ["country", "alt-country", "Alt. Country", "bluegrass"]),
        ("R&B", ["rb", "R&B", "rnb", "R & B", "soul", "Neo-Soul", "Rhythm and Blues"]),
        ("Electronic", ["edm", "electronic", "House", "drum & bass"]),
        ("Folk", ["folk", "Folk, World, & Country", "indie folk"]),
        (None, ["misc", "Other", "Not Available", "", "n/a", "???", "null"]),
    ],
)
def test_words_of_many_collections_stand_for_the_project_s_genres(
    genre: str | None, words: list[str]
) -> None:
    table = load_genres()
    assert {word: table.map_word(word) for word in words} == dict.fromkeys(words, genre)
    assert genre in (*GENRES, None)


def test_words_that_are_none_of_the_project_s_genres_stay_with_capitals() -> None:
    table = load_genres()
    told = ["jazz", "blues", "reggae", "gospel", "indie", "k-pop", "hymn", "música popular", "フォーク"]
    assert [table.map_word(word) for word in told] == [
        *("Jazz", "Blues", "Reggae", "Gospel", "Indie", "K-Pop", "Hymn", "Música Popular", "フォーク")
    ]


def test_every_shipped_entry_is_a_genre_of_the_project_or_none() -> None:
    assert set(load_genres().names.values()) == {*GENRES, None}


def test_the_word_is_kept_as_it_stands_beside_the_genre() -> None:
    table = load_genres()
    assert table.map_cell(" misc ") == ("misc", None)
    assert table.map_cell("HIP  hop") == ("HIP hop", "Hip-Hop")
    assert table.map_cell(["jazz", "canadian pop", "rock"]) == ("jazz, canadian pop, rock", "Rock")
    assert table.map_cell("['jazz', 'bop']") == ("jazz, bop", "Jazz")
    nothing: list[object] = [None, "", [], "[]", float("nan"), True]
    assert [table.map_cell(value) for value in nothing] == [(None, None)] * 6


def test_a_user_s_entries_go_before_the_shipped_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("jazz: Pop\nrock & roll: null\nフォーク: Folk\nschlager: Schlager\n", encoding="utf-8")
    table = load_genres(path)
    told = ["JAZZ", "Rock and Roll", "フォーク", "Schlager", "rap", "rock"]
    assert [table.map_word(word) for word in told] == ["Pop", None, "Folk", "Schlager", "Hip-Hop", "Rock"]
    assert load_genres().map_word("jazz") == "Jazz"
    assert pickle.loads(pickle.dumps(table)).map_word("jazz") == "Pop"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: Pop\nb: [Pop]\n", "line 2: expected one genre"),
        ("a: Pop\n\nb: Rok\n", "line 3: the genre 'Rok' is not known; did you mean 'Rock'"),
        ("a: hip hop\n", "line 1.*did you mean 'Hip-Hop'"),
        ("a: Pop\nA!: Rock\n", "line 2: 'A!' stands there twice"),
        ("'!!': Pop\n", "line 1: a spelling without a letter"),
        ("a: ''\n", "line 1: an empty genre"),
        ("- a\n", "line 1: expected lines of the form"),
        ("a: b: c\n", "not valid YAML.*line 1"),
        (None, "No such file"),
    ],
)
def test_a_table_with_a_mistake_is_an_error_that_names_the_line(
    tmp_path: Path, content: str | None, told: str
) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=told) as error:
        load_genres(path)
    assert str(path) in str(error.value)
