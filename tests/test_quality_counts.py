"""Counting songs for the quality report: what is counted, and that parts merge to what one pass gives."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import numpy as np
import pytest

from preprocess.quality import tallies
from preprocess.quality.counts import (
    FACTS,
    MAX_LENGTH_CHARS,
    NUM_QUALITY_BINS,
    TRUNCATED,
    QualityCounts,
    percentiles,
)
from preprocess.quality.tallies import (
    SAMPLES_PER_REASON,
    PairTally,
    Reasons,
    Sample,
    Tally,
    first_line,
    shorten,
)
from preprocess.schema import Song, Traits

PLAIN = Traits(is_explicit=False, is_truncated=False, quality=1.0)

SONGS = [
    Song("1", "[Verse]\nla la love\nla", "T", "Ann", "Rock", 1994, "Album", ("love",), "en", "rock"),
    Song("2", "la, la!", "T", "Bob", "Rock", 1999, language="en", tag="alt rock"),
    Song("3", "other words here", None, "Bob", "Pop", None, language="fr", tag="pop"),
    Song("4", "words of nobody", None, None, None, 2001, language="und"),
]


def count(songs: Sequence[Song], traits: Traits = PLAIN) -> QualityCounts:
    counts = QualityCounts()
    for song in songs:
        counts.add(song, traits)
    return counts


def test_songs_are_counted_by_length_language_genre_decade_and_lack() -> None:
    counts = count(SONGS)
    assert counts.num_songs == counts.num_rows == 4
    assert counts.lengths == {21: 1, 7: 1, 16: 1, 15: 1}
    assert counts.languages.counts == {"en": 2, "fr": 1, "und": 1}
    assert counts.genres.ranked() == [("Rock", 2), ("", 1), ("Pop", 1)]
    assert counts.decades.counts == {"1990s": 2, "": 1, "2000s": 1}
    assert counts.genre_decades.ranked()[0] == ("Rock", "1990s", 2)
    assert counts.tag_genres.ranked() == [("alt rock", "Rock", 1), ("pop", "Pop", 1), ("rock", "Rock", 1)]
    assert counts.missing == {"title": 2, "artist": 1, "genre": 1, "year": 1, "album": 3, "themes": 3}
    assert counts.num_with_headings == 1


def test_what_was_judged_is_counted_and_shown() -> None:
    counts = QualityCounts()
    counts.add(SONGS[0], Traits(True, True, 0.31, ("all capitals", "one line only")))
    counts.add(SONGS[2], Traits(True, False, 0.0, ("all capitals",)))
    counts.add(SONGS[3], PLAIN)
    assert (counts.num_explicit, counts.num_truncated, counts.num_suspect) == (2, 1, 2)
    assert counts.explicit_genres.counts == {"Rock": 1, "Pop": 1}
    assert counts.suspicions.tally.counts == {"all capitals": 2, "one line only": 1}
    assert counts.suspicions.samples["all capitals"][0] == Sample("T", "Ann", "la la love")
    assert counts.truncated.samples[TRUNCATED] == [Sample("T", "Ann", "la la love")]
    assert [n for n, num in enumerate(counts.qualities) if num] == [0, 6, NUM_QUALITY_BINS - 1]


def test_rejected_rows_dropped_songs_and_disagreements_are_counted_with_samples() -> None:
    counts = QualityCounts()
    for line in range(1, 9):
        counts.reject("/data/a.csv", line, "no lyrics", '{"lyrics": ""}')
    counts.drop(SONGS[1], "too short")
    counts.disagree("year", 1999, 2000, SONGS[1])
    assert (counts.num_rejected, counts.num_dropped, counts.num_songs, counts.num_rows) == (8, 1, 0, 9)
    kept = counts.rejected.samples["no lyrics"]
    assert [sample.note for sample in kept] == [f"a.csv:{line}" for line in range(1, SAMPLES_PER_REASON + 1)]
    assert kept[0].line == '{"lyrics": ""}'
    assert counts.dropped.samples["too short"] == [Sample("T", "Bob", "la, la!")]
    assert counts.disagreements.samples["year"][0].note == "row: 1999; metadata file: 2000"


def feed(counts: QualityCounts, events: Sequence[tuple[str, int]]) -> QualityCounts:
    """Tell of made-up songs and rows; each kind and number gives one event."""
    for kind, n in events:
        song = Song(
            str(n),
            "la " * (n % 40 + 1) + str(n),
            f"Title {n}" if n % 3 else None,
            f"Artist {n % 7}",
            f"Genre {n % 23}" if n % 5 else None,
            1950 + n % 70 if n % 4 else None,
            language=("en", "fr", "und", None)[n % 4],
            tag=f"tag {n % 31}",
        )
        if kind == "add":
            suspicions = tuple(f"suspicion {k}" for k in range(n % 3))
            counts.add(song, Traits(n % 6 == 0, n % 11 == 0, n % 101 / 100, suspicions))
        elif kind == "reject":
            counts.reject("rows.jsonl", n, f"reason {n % 19}")
        elif kind == "drop":
            counts.drop(song, f"reason {n % 4}")
        else:
            counts.disagree(("year", "genre")[n % 2], n, n + 1, song)
    return counts


def make_events(num: int, seed: int = 3) -> list[tuple[str, int]]:
    chance = random.Random(seed)
    return [
        (chance.choice(["add"] * 5 + ["reject", "drop", "disagree"]), chance.randrange(5000))
        for _ in range(num)
    ]


def merge_in_parts(events: Sequence[tuple[str, int]], size: int) -> QualityCounts:
    whole = QualityCounts()
    for start in range(0, len(events), size):
        part = feed(QualityCounts(), events[start : start + size])
        whole.merge(QualityCounts.from_state(json.loads(json.dumps(part.to_state()))))
    return whole


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_parts_merged_in_order_are_the_same_as_one_pass(size: int) -> None:
    events = make_events(3000)
    assert merge_in_parts(events, size).to_state() == feed(QualityCounts(), events).to_state()


def test_parts_merged_out_of_order_show_other_samples() -> None:
    events = make_events(300)
    backwards = feed(QualityCounts(), events[150:])
    backwards.merge(feed(QualityCounts(), events[:150]))
    assert backwards.to_state() != feed(QualityCounts(), events).to_state()
    assert backwards.num_rows == feed(QualityCounts(), events).num_rows


@pytest.mark.parametrize("size", [1, 8])
def test_parts_are_the_same_as_one_pass_when_there_are_more_names_than_are_told_apart(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "MAX_NAMES", 8)
    events = make_events(2000)
    whole = feed(QualityCounts(), events)
    assert whole.genres.num_other > 0
    assert len(whole.rejected.samples) == 8
    assert merge_in_parts(events, size).to_state() == whole.to_state()


def test_counts_do_not_grow_with_the_songs() -> None:
    counts = QualityCounts()
    for n in range(3 * tallies.MAX_NAMES):
        counts.add(Song(str(n), "x" * (n % 900), genre=f"{n} " + "g" * 500, tag="t" * 300 + str(n)), PLAIN)
        counts.reject("a.csv", n, f"{n} fields instead of 8")
    counts.add(Song("long", "la " * 10**6), PLAIN)
    assert max(counts.lengths) == MAX_LENGTH_CHARS
    assert len(counts.genres.counts) == len(counts.rejected.tally.counts) == tallies.MAX_NAMES
    assert counts.genres.total == 3 * tallies.MAX_NAMES + 1
    assert counts.rejected.tally.total == 3 * tallies.MAX_NAMES
    assert max(map(len, counts.genres.counts)) <= tallies.MAX_NAME_CHARS
    assert max(map(len, counts.tag_genres.tally.counts)) <= tallies.MAX_NAME_CHARS


def test_rankings_break_ties_by_name_and_sum_up_the_rest() -> None:
    tally = Tally()
    for name in ("b", "a", "c", "c", "d"):
        tally.add(name)
    assert tally.ranked() == [("c", 2), ("a", 1), ("b", 1), ("d", 1)]
    assert tally.ranked(2) == [("c", 2), ("a", 1), (tallies.OTHER, 2)]


def test_pairs_keep_their_two_names_apart() -> None:
    pairs = PairTally()
    for first, second in (("", "Rock"), ("a b", ""), ("a", "b"), ("x" * 200, "y" * 200)):
        pairs.add(first, second)
    told = pairs.ranked()
    assert {(first, second) for first, second, _ in told} >= {("", "Rock"), ("a b", ""), ("a", "b")}
    assert [first[:1] + second[:1] for first, second, _ in told].count("xy") == 1


def test_samples_are_only_made_when_they_are_kept() -> None:
    made: list[int] = []

    def make() -> Sample:
        made.append(1)
        return Sample(None, None, "")

    reasons = Reasons()
    for _ in range(50):
        reasons.add("r", make)
    assert len(made) == SAMPLES_PER_REASON


def test_the_first_sung_line_is_shown_and_cut() -> None:
    assert first_line("\n[Chorus: Ann]\n\nHello  there\nmore") == "Hello there"
    assert first_line("[Chorus]") == "[Chorus]"
    assert first_line("") == ""
    assert len(first_line("la " * 500)) == tallies.MAX_NAME_CHARS


def test_names_that_are_no_unicode_can_be_written() -> None:
    counts = QualityCounts()
    counts.reject("/data/\udcff.csv", 1, "bad \udce9 byte")
    assert json.dumps(counts.to_state(), ensure_ascii=False).encode("utf-8")
    assert counts.rejected.samples[shorten("bad \udce9 byte")][0].note == "?.csv:1"


def test_percentiles_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).integers(0, 500, 997)
    counts = dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))
    expected = np.percentile(values, [0, 5, 25, 50, 75, 95, 100], method="inverted_cdf")
    assert list(percentiles(counts).values()) == expected.tolist()
    assert percentiles({}) == {}
    assert percentiles({7: 1}, [50]) == {50: 7}


def test_all_facts_of_the_report_are_facts_of_a_song() -> None:
    assert all(hasattr(SONGS[0], fact) for fact in FACTS)
