from __future__ import annotations

import json
from pathlib import Path

import pytest

from preprocess.errors import ConfigError, DataError
from preprocess.read.columns import parse_columns, read_artist, recognise_schema, song_from_row
from preprocess.read.songs import ReadOptions, open_sources, read_songs
from preprocess.read.values import read_language, read_list, read_lyrics, read_text, read_year, strip_stamps
from preprocess.schema import Song


def song_of(row: dict[str, object]) -> Song:
    return song_from_row(row, recognise_schema(list(row)), "s")


@pytest.mark.parametrize(
    ("row", "name", "expected"),
    [
        (
            {
                "Instruction": "Generate a song verse in the style of abba in the genre of pop.",
                "Label": "words",
            },
            "5M-Songs-Lyrics pair",
            {"artist": "abba", "genre": "Pop", "tag": "pop"},
        ),
        (
            {
                "title": "No Scrubs",
                "tag": "rb",
                "artist": "TLC",
                "year": 1999,
                "views": 5,
                "features": '{"Lil Wayne",SWV}',
                "lyrics": "words",
                "id": 7,
                "language_cld3": "en",
                "language_ft": "en",
                "language": "en",
            },
            "Genius",
            {
                "title": "No Scrubs",
                "artist": "TLC",
                "genre": "R&B",
                "year": 1999,
                "id": "7",
                "language": "en",
                "tag": "rb",
            },
        ),
        (
            {"artist": "ABBA", "song": "Waterloo", "link": "/a/x", "text": "words"},
            "Spotify",
            {"artist": "ABBA", "title": "Waterloo"},
        ),
        (
            {
                "index": "0",
                "song": "ego-remix",
                "year": "2009",
                "artist": "beyonce-knowles",
                "genre": "Pop",
                "lyrics": "words",
            },
            "MetroLyrics",
            {"artist": "beyonce-knowles", "title": "ego-remix", "year": 2009, "genre": "Pop", "tag": "Pop"},
        ),
        (
            {
                "artist_name": "Sia",
                "genres_list": "['australian dance', 'dance pop']",
                "release_date": "2014-07-04",
                "is_english": True,
                "lyrics": "words",
            },
            "brunokreiner",
            {
                "artist": "Sia",
                "genre": "Pop",
                "year": 2014,
                "language": "en",
                "tag": "australian dance, dance pop",
            },
        ),
        (
            {
                "name": "Hey",
                "artist_name": "Pixies",
                "album_name": "Doolittle",
                "plain_lyrics": "words",
                "synced_lyrics": None,
            },
            "LRCLIB",
            {"title": "Hey", "artist": "Pixies", "album": "Doolittle"},
        ),
        ({"text": "words"}, "text alone", {}),
        (
            {"author": "李清照", "paragraphs": ["常記溪亭日暮、", "沉醉不知歸路。"], "rhythmic": "如夢令"},
            "chinese-poetry",
            {"artist": "李清照", "title": "如夢令", "lyrics": "常記溪亭日暮、\n沉醉不知歸路。"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_known_shape_gives_its_facts_and_no_other(
    row: dict[str, object], name: str, expected: dict[str, object]
) -> None:
    assert recognise_schema(list(row)).name == name
    song = song_of(row)
    facts = ("title", "artist", "genre", "year", "album", "language", "tag")
    assert {fact: getattr(song, fact) for fact in facts} == {
        **dict.fromkeys(facts),
        **{fact: value for fact, value in expected.items() if fact in facts},
    }
    assert song.lyrics == expected.get("lyrics", "words")
    assert song.id == expected.get("id", song.id)


def test_synced_lyrics_stand_in_for_missing_ones_without_their_stamps() -> None:
    synced = "[ar:Pixies]\n[00:01.20]Hey\n[00:03.00] been trying\n\n[01:02][02:03.4]to meet you\n[Chorus]"
    row: dict[str, object] = {"name": "Hey", "artist_name": "P", "plain_lyrics": "", "synced_lyrics": synced}
    assert song_of(row).lyrics == "Hey\nbeen trying\n\nto meet you\n[Chorus]"
    assert song_of({**row, "plain_lyrics": "plain [00:01.20]"}).lyrics == "plain [00:01.20]"
    assert song_of({"artist_name": "P", "synced_lyrics": synced}).lyrics.startswith("Hey")
    assert strip_stamps("<00:01.00> a <00:02.00>b\r\nc") == "a b\nc"


def test_columns_are_told_by_the_user_before_they_are_recognised() -> None:
    named = parse_columns(["lyrics=body, artist=singer", "title="])
    assert named == {"lyrics": "body", "artist": "singer", "title": ""}
    schema = recognise_schema(["body", "Singer", "title", "artist", "lyrics", "tag"], named)
    assert schema.columns == {"lyrics": "body", "artist": "Singer", "genre": "tag"}
    assert schema.ignored == ("title", "artist", "lyrics")


def test_the_pair_keeps_its_genre_when_another_column_has_the_artist() -> None:
    row = {
        "Instruction": "Generate a song verse in the style of x in the genre of rap",
        "Label": "w",
        "who": "Y",
    }
    schema = recognise_schema(list(row), {"artist": "who"})
    song = song_from_row(row, schema, "s")
    assert (song.artist, song.genre) == ("Y", "Hip-Hop")


def test_text_among_strange_columns_is_taken_when_the_user_says_so() -> None:
    with pytest.raises(DataError, match="sentiment"):
        recognise_schema(["text", "sentiment"])
    assert recognise_schema(["text", "sentiment"], {"lyrics": "text"}).columns == {"lyrics": "text"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lyrics", "expected fact=column"),
        ("lyric=x", "did you mean 'lyrics'"),
        ("mood=x", "Known: lyrics, title"),
        ("artist=x,artist=y", "given twice"),
        ("", "expected fact=column"),
    ],
)
def test_columns_that_are_told_wrongly_are_an_error(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_columns([text])


def test_a_named_column_that_is_missing_is_an_error_with_the_nearest() -> None:
    with pytest.raises(
        DataError, match=r"'lyrcs', which is not there\. Found: lyrics, id\. Did you mean 'lyrics'"
    ):
        recognise_schema(["lyrics", "id"], {"lyrics": "lyrcs"})


def test_a_json_row_may_leave_out_a_named_column_and_a_file_may_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"body": "x"}, {"body": "y", "singer": "S"}, {"singer": "S"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rejects: list[str] = []
    options = ReadOptions(columns={"lyrics": "body", "artist": "singer"})
    songs = list(read_songs([path], on_reject=lambda *reject: rejects.append(reject[2]), options=options))
    assert [song.artist for song in songs] == [None, "S"]
    assert rejects == ["columns not recognised"]
    with pytest.raises(DataError, match=r"a\.jsonl: .*Did you mean 'singer'"):
        open_sources([path], ReadOptions(columns={"lyrics": "body", "artist": "singers"}))


def test_a_json_row_without_its_artist_is_still_of_its_file_s_shape(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"artist": "A", "song": "S", "text": "x"}, {"song": "T", "text": "y"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    songs = list(read_songs([path], on_reject=lambda *_: None))
    assert [(song.title, song.artist) for song in songs] == [("S", "A"), ("T", None)]


def test_languages_are_codes_and_a_no_to_english_is_none() -> None:
    told = ["en", "EN-us", "pt_BR", "iw", "English", "und", "", None, 3, "simplified chinese", "zh-Latn"]
    assert [read_language(value) for value in told] == [
        "en",
        "en",
        "pt",
        "he",
        "en",
        None,
        None,
        None,
        None,
        None,
        "zh",
    ]
    assert [read_language(None, value) for value in (True, "True", 1, False, "False", None)] == ["en"] * 3 + [
        None
    ] * 3
    assert read_language("de", is_english=True) == "de"


def test_years_are_read_from_dates_and_not_from_decades_or_spans() -> None:
    years = ["May 1, 1999", "01/05/1999", "1.5.1999", "1999/05/01", "1999-05-01T10:00:00Z", "1999."]
    assert [read_year(value) for value in years] == [1999] * 6
    assert [
        read_year(value) for value in ["1990s", "1990-1995", "-1999", "915148800", "19999", "c. 1999?"]
    ] == [None] * 6


def test_artists_in_postgres_arrays_are_read_and_empty_ones_are_none() -> None:
    assert read_list('{"Lil \\"Wayne\\"",SWV, "A, B"}') == ['Lil "Wayne"', "SWV", "A, B"]
    assert read_artist('{"Lil Wayne",SWV}') == "Lil Wayne & SWV"
    assert [read_artist(value) for value in ("{}", "[]", "None", "N/A", " ", None, float("nan"))] == [
        None
    ] * 7
    assert read_artist('{"name": "x"}') == '{"name": "x"}'


def test_a_number_of_ten_thousand_digits_is_no_text() -> None:
    assert read_text(10**10_000) is None
    assert read_text(10**20) == "1" + "0" * 20


def test_lyrics_that_are_nan_are_none() -> None:
    with pytest.raises(ValueError, match="no lyrics"):
        read_lyrics(float("nan"))
