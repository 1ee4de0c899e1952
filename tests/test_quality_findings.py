"""What shows over all songs, compared with a plain count over lists; and the report made of it."""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console

from preprocess.choose.columns import NONE, SongColumns
from preprocess.clean.song import CleanSettings
from preprocess.quality.advice import advise, percent, plural
from preprocess.quality.counts import QualityCounts
from preprocess.quality.findings import NUM_TOP, Findings, find_all
from preprocess.quality.overview import FORMAT, QualityReport, measure_quality
from preprocess.quality.terminal import print_quality
from preprocess.schema import Int64Array, Song, Traits

GENRES = ("Folk", "Pop", "Rock", "Soul")
ALL = CleanSettings(min_chars=0)

Row = tuple[int, int, int]
"""Lyrics, artist (0 for none), genre."""


def make_columns(rows: Sequence[Row]) -> SongColumns:
    lyrics, artist, genre = np.array(rows, np.int64).reshape(-1, 3).T
    num_songs = len(rows)
    return SongColumns(
        id_hash=np.arange(num_songs, dtype=np.uint64),
        lyrics=lyrics.astype(np.uint64),
        # Hashes use all 64 bits: an order as signed numbers would show.
        artist=np.where(artist > 0, artist.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), np.uint64(0)),
        genre=genre.astype(np.int32),
        decade=np.full(num_songs, NONE, np.int32),
        language=np.zeros(num_songs, np.int32),
        num_chars=np.zeros(num_songs, np.int32),
        quality=np.ones(num_songs, np.float32),
        signature=np.zeros((num_songs, 0), np.uint8),
        genres=GENRES,
        languages=("en",),
    )


def find(rows: Sequence[Row], num_near: int | None = None) -> Findings:
    def names_of(places: Int64Array) -> list[str | None]:
        assert len(places) < 100
        return [f"A{rows[place][1]}" for place in places.tolist()]

    return find_all(make_columns(rows), names_of, num_near)


def make_rows(num: int, seed: int) -> list[Row]:
    chance = np.random.default_rng(seed)
    artists = np.minimum(chance.zipf(1.4, num), 400) - 1
    return list(
        zip(
            chance.integers(0, num * 2 // 3, num).tolist(),
            artists.tolist(),
            chance.integers(-1, len(GENRES), num).tolist(),
            strict=True,
        )
    )


def test_duplicates_are_songs_whose_lyrics_an_earlier_song_had() -> None:
    found = find([(1, 1, 0), (1, 2, 0), (1, 1, 1), (2, 1, 0), (3, 0, 0), (3, 0, 0)])
    assert found.num_duplicates == 3
    assert found.copies["2"] == found.copies["3"] == 1
    assert (found.num_shared, found.num_songs_shared) == (1, 3)
    assert found.shared[0].artists == ("A1", "A2")
    assert find([(1, 1, 0), (2, 1, 0)]).num_duplicates == 0


def test_songs_without_an_artist_are_no_artist() -> None:
    found = find([(1, 0, 0), (1, 0, 1), (2, 5, 0)])
    assert (found.num_artists, found.num_without_artist, found.num_with_one_song) == (1, 2, 1)
    assert found.num_shared == 0
    nobody = find([(1, 0, 0), (1, 0, 1)])
    assert (nobody.num_artists, nobody.num_duplicates, nobody.top, nobody.curve) == (0, 1, (), ())


def test_an_artist_of_many_genres_is_named_with_them() -> None:
    found = find([(1, 7, 0), (2, 7, 2), (3, 7, 2), (4, 7, NONE), (5, 8, 1), (6, 9, 0), (7, 9, 1), (8, 9, 2)])
    assert found.num_artists_by_genres == {2: 2, 3: 1}
    assert [(artist.name, artist.genres) for artist in found.mixed] == [
        ("A9", {"Folk": 1, "Pop": 1, "Rock": 1}),
        ("A7", {"Rock": 2, "Folk": 1}),
    ]
    assert found.top[0].num_songs == 4


@pytest.mark.parametrize("seed", range(5))
def test_findings_are_those_of_a_plain_count(seed: int) -> None:
    rows = make_rows(1500, seed)
    found = find(rows)
    songs, genres, singers = Counter[int](), defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
    for lyrics, artist, genre in rows:
        if artist:
            songs[artist] += 1
            genres[artist] |= {genre} - {NONE}
            singers[lyrics].add(artist)
    sizes = sorted(songs.values(), reverse=True)
    copies = Counter(Counter(lyrics for lyrics, _, _ in rows).values())
    assert found.num_duplicates == len(rows) - len({lyrics for lyrics, _, _ in rows})
    assert found.copies["2"] == copies[2]
    assert sum(found.copies.values()) == sum(num for size, num in copies.items() if size > 1)
    assert found.num_shared == sum(len(names) > 1 for names in singers.values())
    assert (found.num_artists, found.num_with_one_song) == (len(songs), sizes.count(1))
    assert found.num_artists_by_genres == {n: sum(len(of) >= n for of in genres.values()) for n in (2, 3)}
    assert [artist.num_songs for artist in found.top] == sizes[:NUM_TOP]
    assert sum(found.songs_per_artist.values()) == len(songs)
    assert found.songs_per_artist["3-5"] == sum(3 <= size <= 5 for size in sizes)
    assert (
        2 * sum(sizes[: found.num_artists_of_half])
        >= sum(sizes)
        > 2 * sum(sizes[: found.num_artists_of_half - 1])
    )
    assert all(sum(sizes[:rank]) == num for rank, num in found.curve)
    assert found.curve[-1] == (len(songs), sum(sizes))


def test_ties_are_broken_by_the_order_of_the_input() -> None:
    rows = [(n, n % 50 + 1, 0) for n in range(100)]
    assert [artist.name for artist in find(rows).top] == [f"A{n}" for n in range(1, NUM_TOP + 1)]
    assert [artist.name for artist in find(rows[::-1]).top] == [f"A{n}" for n in range(50, 50 - NUM_TOP, -1)]


def test_no_songs_give_no_findings() -> None:
    assert find([], 0) == Findings(num_near_duplicates=0)


SONGS = [
    Song("1", "la la love\nla", "T", "Ann", "Rock", 1994, "Album", ("love",)),
    Song("2", "[Verse 1]\nLa la LOVE, la!", "T", "Bob", "Rock", 1999),
    Song("3", "la la love la", "T", "ann", "Rock", 1999),
    Song("4", "other words here", None, "Bob", "Pop", None),
    Song("5", "words of nobody", None, None, None, 2001),
    Song("6", "words of nobody", None, None, None, 2001),
    Song("7", "", "Empty", "Bob", "Pop", 2001),
]


def test_the_serial_form_cleans_counts_and_finds() -> None:
    told = measure_quality(SONGS, ALL).to_json()
    assert told["format"] == FORMAT
    assert (told["num_songs"], told["num_rows"]) == (6, 7)
    assert told["dropped"] == {"empty": 1}
    assert told["genres"] == {"Rock": 3, "(none)": 2, "Pop": 1}
    assert told["decades"] == {"(none)": 1, "1990s": 3, "2000s": 2}
    assert told["artists"]["num"] == 2
    assert told["artists"]["top"] == {"Ann": 2, "Bob": 2}
    assert told["missing"] == {"title": 3, "artist": 2, "genre": 2, "year": 1, "album": 5, "themes": 5}
    assert (told["num_duplicates"], told["num_lyrics_under_several_artists"]) == (3, 1)
    assert told["samples"]["dropped"]["empty"][0]["title"] == "Empty"


def test_a_report_is_json_and_the_same_each_time() -> None:
    told = measure_quality(SONGS, ALL).to_json()
    assert json.loads(json.dumps(told)) == told
    assert json.dumps(measure_quality(iter(SONGS), ALL).to_json()) == json.dumps(told)
    assert QualityReport().to_json()["num_songs"] == 0


def make_report() -> QualityReport:
    counts = QualityCounts()
    for n in range(1000):
        song = Song(str(n), f"la {n}", "T", f"Artist {n}", "Rock", 1990, language="en")
        counts.add(song, Traits(n < 100, n < 2, 0.9, ("all capitals",) if n < 50 else ()))
    return QualityReport(counts, find([(n, n + 1, 0) for n in range(1000)]))


def test_what_to_look_at_is_sorted_by_weight_and_empty_for_nothing() -> None:
    advices = advise(make_report())
    assert [advice.weight for advice in advices] == sorted(
        (advice.weight for advice in advices), reverse=True
    )
    assert advices[0].what == "50 songs (5.0%) look suspicious"
    assert advices[0].level == "act"
    whats = [advice.what for advice in advices]
    assert "2 songs (0.2%) look cut off" in whats
    assert not any("repeat" in what or "rows" in what or "genre" in what for what in whats)
    assert advise(QualityReport()) == []


def test_each_kind_of_trouble_is_told() -> None:
    report = make_report()
    report.counts.reject("a.csv", 1, "no lyrics")
    report.counts.drop(SONGS[0], "too short")
    report.counts.disagree("year", 1, 2, SONGS[0])
    report.counts.add(Song("x", "la", genre="Polka", language="und"), Traits(False, False, 0.1))
    mixed = find([(1, 1, 0), (2, 1, 1), (3, 1, 2), (1, 2, 0)], num_near=1)
    told = "\n".join(advice.what for advice in advise(QualityReport(report.counts, mixed)))
    for expected in (
        "1 row (0.1%) could not be read as songs",
        "1 song (0.1%) was dropped in cleaning",
        "1 song (25.0%) repeats the words",
        "1 song (25.0%) is nearly the same",
        "under several artists",
        "1 of 2 artists has songs in three genres",
        "lacks a year",
        "quality score below 0.3",
        "have no section headings",
        "1 case the metadata file contradicts the row",
        "outside the project's 7",
        "The language of 1 song",
        "explicit words",
    ):
        assert expected in told


def test_shares_never_round_to_nothing_or_all() -> None:
    assert [percent(*pair) for pair in ((0, 9), (9, 9), (1, 10**6), (10**6 - 1, 10**6), (1, 3), (0, 0))] == [
        "0%",
        "100%",
        "<0.1%",
        ">99.9%",
        "33.3%",
        "0%",
    ]
    assert plural(1, "song") == "1 song"
    assert plural(2000, "song") == "2,000 songs"


def print_report(report: QualityReport) -> str:
    console = Console(record=True, width=110, file=io.StringIO())
    print_quality(report, console)
    return console.export_text()


def test_the_terminal_shows_figures_groups_and_what_to_look_at() -> None:
    report = make_report()
    report.counts.reject("a.csv", 1, "no lyrics")
    text = print_report(report)
    for expected in (
        "1,000",
        "of 1,001 rows",
        "English (en)",
        "1990s",
        "no lyrics",
        "!! 50 songs (5.0%) look",
    ):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 110
    assert "Nothing stands out." in print_report(QualityReport())


def test_names_that_look_like_markup_are_printed_as_they_are() -> None:
    counts = QualityCounts()
    counts.add(Song("1", "la", artist="A", genre="[/] [bold]"), Traits(False, False, 1.0, ("[red]",)))
    text = print_report(QualityReport(counts))
    assert "[/] [bold]" in text
    assert "[red]" in text
