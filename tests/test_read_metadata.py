from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.clean.lyrics import clean_lyrics, lyrics_hash
from preprocess.corpus import generate_songs
from preprocess.errors import DataError
from preprocess.read.chunks import RowChunk
from preprocess.read.fact_index import FactRows
from preprocess.read.matching import normalise_name
from preprocess.read.metadata import Disagreement, MetadataIndex, build_metadata_index
from preprocess.read.songs import ReadOptions, open_sources
from preprocess.schema import Song

WORDS = "[Verse 1]\nMorning comes, the river sings\nand I am on my way"
ROW = {"title": "River", "artist": "The Finns", "album": "Water", "tag": "rap", "year": 1994, "lyrics": WORDS}


def build(folder: Path, *rows: dict[str, Any], options: ReadOptions | None = None) -> MetadataIndex:
    path = folder / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sources = open_sources([path], options, needs_lyrics=False)
    return build_metadata_index(sources, folder / "index", options)


def without(*facts: str) -> dict[str, Any]:
    return {fact: value for fact, value in ROW.items() if fact not in facts}


def test_a_song_named_by_artist_and_title_gets_what_it_lacks(tmp_path: Path) -> None:
    index = build(tmp_path, without("lyrics"))
    song = Song("1", "other words", title="RIVER!", artist="finns")
    filled, disagreements = index.fill(song)
    assert disagreements == []
    assert filled == replace(song, album="Water", genre="Hip-Hop", tag="rap", year=1994)


def test_the_two_column_shape_is_found_by_its_lyrics(tmp_path: Path) -> None:
    index = build(tmp_path, ROW)
    sung = "MORNING comes the river sings and I am on my way"
    filled, disagreements = index.fill(Song("1", sung, artist="the finns", genre="Hip-Hop", tag="rap"))
    assert (filled.title, filled.year, filled.album, filled.artist) == ("River", 1994, "Water", "the finns")
    assert disagreements == []
    assert index.fill(Song("1", sung))[0].artist == "The Finns"
    assert index.fill(Song("1", "x", artist="finns"), lyrics_hash(clean_lyrics(WORDS)))[0].title == "River"


def test_a_song_that_is_not_there_stays_as_it_is(tmp_path: Path) -> None:
    index = build(tmp_path, ROW)
    song = Song("1", "other words", title="Sea", artist="The Finns")
    assert index.fill(song) == (song, [])


def test_what_differs_is_reported_and_not_overwritten(tmp_path: Path) -> None:
    index = build(tmp_path, ROW)
    song = Song(
        "1", WORDS, title="River", artist="The Finns", genre="Rock", tag="rock", year=1995, album="WATER."
    )
    filled, disagreements = index.fill(song)
    assert filled == song
    source = str(tmp_path / "facts.jsonl")
    assert disagreements == [
        Disagreement("genre", "Rock", "Hip-Hop", source),
        Disagreement("year", "1995", "1994", source),
    ]


def test_the_same_words_under_another_artist_fill_nothing_and_are_reported(tmp_path: Path) -> None:
    index = build(tmp_path, ROW)
    song = Song("1", WORDS, artist="Cover Band")
    filled, (disagreement,) = index.fill(song)
    assert filled == song
    assert (disagreement.fact, disagreement.own, disagreement.other) == ("artist", "Cover Band", "The Finns")


def test_covers_are_told_apart_by_their_artists(tmp_path: Path) -> None:
    index = build(tmp_path, ROW, {**ROW, "artist": "Cover Band", "year": 2001})
    assert index.fill(Song("1", WORDS, artist="Cover Band"))[0].year == 2001
    assert index.fill(Song("1", WORDS, artist="The Finns"))[0].year == 1994
    assert index.fill(Song("1", WORDS)) == (Song("1", WORDS), [])
    assert index.counts.num_ambiguous == 1


def test_rows_that_disagree_fill_nothing_and_are_counted(tmp_path: Path) -> None:
    facts = without("lyrics")
    index = build(tmp_path, facts, {**facts, "year": 1999}, {**facts, "title": "Sea"})
    assert index.counts.num_ambiguous == 1
    assert (index.counts.num_rows, index.counts.num_keys) == (3, 2)
    song = Song("1", "x", title="River", artist="The Finns")
    assert index.fill(song) == (song, [])
    assert index.fill(replace(song, title="Sea"))[0].year == 1994


def test_rows_that_complete_each_other_are_put_together(tmp_path: Path) -> None:
    index = build(tmp_path, without("lyrics", "year"), without("lyrics", "album", "tag"))
    filled, _ = index.fill(Song("1", "x", title="River", artist="The Finns"))
    assert (filled.year, filled.album, filled.genre) == (1994, "Water", "Hip-Hop")
    assert index.counts.num_ambiguous == 0


def test_rows_that_tell_nothing_are_counted(tmp_path: Path) -> None:
    nothing: list[dict[str, Any]] = [
        {"title": "A", "artist": "B"},
        {"title": "A", "year": 1990},
        {"artist": "B", "year": 1990},
    ]
    index = build(tmp_path, without("lyrics"), *nothing)
    assert (index.counts.num_rows, index.counts.num_rejected) == (1, 3)
    with pytest.raises(DataError, match="no row tells anything"):
        build(tmp_path, {"title": "A", "artist": "B", "year": None})
    with pytest.raises(DataError, match=r"say nothing of songs\. Found: title, year"):
        build(tmp_path, {"title": "A", "year": 1990})


def test_an_index_that_is_missing_or_cut_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no whole index"):
        MetadataIndex.open(tmp_path / "index")
    build(tmp_path, ROW)
    facts = tmp_path / "index" / "facts.arrow"
    facts.write_bytes(facts.read_bytes()[:-20])
    with pytest.raises(DataError, match="no whole index"):
        MetadataIndex.open(tmp_path / "index")


def test_an_index_is_the_same_however_the_work_is_shared_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "title": song.title,
            "artist": song.artist,
            "year": song.year,
            "genre": song.genre,
            "lyrics": song.lyrics,
        }
        for song in generate_songs(5000, seed=2)
    ]
    alone = build(tmp_path, *rows)
    sources = open_sources([tmp_path / "facts.jsonl"], needs_lyrics=False)

    def share_out(work: Callable[[RowChunk], FactRows], chunks: Iterable[RowChunk]) -> Iterable[FactRows]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(work, chunks))

    shared = build_metadata_index(sources, tmp_path / "other", run=share_out)
    assert alone.counts == shared.counts
    for name in ("keys.npy", "rows.npy", "facts.arrow", "index.json"):
        assert (tmp_path / "index" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    keys = np.load(tmp_path / "index" / "keys.npy")
    assert np.all(keys[1:] >= keys[:-1])
    for row in rows[::97]:
        filled, _ = alone.fill(Song("1", str(row["lyrics"]), artist=row["artist"]))
        assert filled.year in (row["year"], None)
    known = [alone.fill(Song("1", str(row["lyrics"]), artist=row["artist"]))[0].year for row in rows[:200]]
    assert sum(year is not None for year in known) > 150


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Beatles", "beatles"),
        ("Beyoncé", "BEYONCE"),
        ("Simon & Garfunkel", "simon and garfunkel"),
        ("Hello (feat. X)", "Hello"),
        ("Jay-Z ft. Alicia Keys", "JAY Z"),
        ("\uff21\uff22\uff22\uff21", "abba"),
    ],
)
def test_spellings_of_a_name_are_one(one: str, other: str) -> None:
    assert normalise_name(one) == normalise_name(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Hello (Live)", "Hello"), ("!!!", "???"), ("The The", "Beatles"), ("か", "が"), ("With You", "")],
)
def test_names_that_differ_stay_apart(one: str, other: str) -> None:
    assert normalise_name(one) != normalise_name(other)
