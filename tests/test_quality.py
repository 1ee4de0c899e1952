from __future__ import annotations

import io
import json

import numpy as np
from rich.console import Console

from preprocess.quality.report import QualityReport, measure_quality, percentiles, print_quality
from preprocess.schema import Song

SONGS = [
    Song("1", "la la love\nla", "T", "Ann", "Rock", 1994, "Album", ("love",)),
    Song("2", "[Verse 1]\nLa la LOVE, la!", "T", "Bob", "Rock", 1999),
    Song("3", "la la love la", "T", "ann", "Rock", 1999),
    Song("4", "other words here", None, "Bob", "Pop", None),
    Song("5", "words of nobody", None, None, None, 2001),
    Song("6", "words of nobody", None, None, None, 2001),
]


def test_songs_are_counted_by_genre_decade_artist_and_lack() -> None:
    told = measure_quality(SONGS).to_json()
    assert told["num_songs"] == 6
    assert told["genres"] == {"Rock": 3, "(none)": 2, "Pop": 1}
    assert told["decades"] == {"(none)": 1, "1990s": 3, "2000s": 2}
    assert told["artists"] == {"num": 3, "num_with_one_song": 2, "top": {"Bob": 2, "Ann": 1, "ann": 1}}
    assert told["missing"] == {"title": 3, "artist": 2, "genre": 2, "year": 1, "album": 5, "themes": 5}


def test_duplicates_and_lyrics_of_several_artists_are_found_by_their_words() -> None:
    assert measure_quality(SONGS).count_duplicates() == (3, 1)
    assert measure_quality([SONGS[0], SONGS[2]]).count_duplicates() == (1, 0)
    assert measure_quality(SONGS[3:5]).count_duplicates() == (0, 0)


def test_rejected_rows_and_dropped_songs_are_counted_by_reason() -> None:
    report = QualityReport()
    report.reject("a.csv", 3, "no lyrics")
    report.reject("a.csv", 4, "no lyrics")
    report.drop("too short")
    for n in range(500):
        report.reject("a.csv", n, f"{n} fields instead of 8")
    told = report.to_json()
    assert told["rejected"]["no lyrics"] == 2
    assert told["dropped"] == {"too short": 1}
    assert len(told["rejected"]) <= 101
    assert sum(told["rejected"].values()) == 502


def test_percentiles_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).integers(0, 500, 997)
    counts = dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))
    expected = np.percentile(values, [0, 5, 25, 50, 75, 95, 100], method="inverted_cdf")
    assert list(percentiles(counts).values()) == expected.tolist()
    assert percentiles({}) == {}
    assert percentiles({7: 1}, [50]) == {50: 7}


def test_an_empty_report_is_a_report() -> None:
    told = QualityReport().to_json()
    assert told["num_songs"] == told["num_duplicates"] == 0
    assert told["length_percentiles_chars"] == {}


def test_a_report_is_json_and_prints_as_tables() -> None:
    report = measure_quality(SONGS)
    report.reject("a", 1, "no lyrics")
    assert json.loads(json.dumps(report.to_json())) == report.to_json()
    console = Console(record=True, width=100, file=io.StringIO())
    print_quality(report, console)
    text = console.export_text()
    for expected in (
        "rejected rows: no lyrics",
        "Rock",
        "50.0%",
        "1990s",
        "3 artists, 2 of them with one song",
    ):
        assert expected in text


def test_names_that_look_like_markup_are_printed_as_they_are() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    print_quality(measure_quality([Song("1", "la", artist="[/] [bold]", genre="[red]")]), console)
    text = console.export_text()
    assert "[/] [bold]" in text
    assert "[red]" in text


def test_long_tables_are_cut_and_say_how_much() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    songs = [Song(str(n), f"la {n}", genre=f"Genre{n:02}") for n in range(20)]
    print_quality(measure_quality([*songs, Song("z", "la", genre="Genre19")]), console)
    text = console.export_text()
    assert "(5 others)" in text
    assert "Genre19" in text
