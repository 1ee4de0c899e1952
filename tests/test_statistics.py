from __future__ import annotations

import hashlib
import math
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from preprocess.corpus import generate_songs
from preprocess.measure.song import Measures, measure_song
from preprocess.schema import Song
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.main_themes import main_themes
from preprocess.tasks.neighbours import is_telling
from preprocess.tasks.statistics import (
    MIN_RATIO,
    MIN_SONGS_OF_ARTIST,
    MIN_Z,
    PRIOR_WEIGHT,
    CorpusStatistics,
    Group,
    log_odds_z,
)

SONGS = [
    replace(song, genre=None if n % 17 == 0 else song.genre) for n, song in enumerate(generate_songs(500, 4))
]
SONGS += [
    Song(
        f"de{n}",
        "Die Nacht war lang und ich war allein\nDie Sterne sind so kalt",
        artist="Nacht",
        genre="Pop",
    )
    for n in range(9)
]
MEASURES = {song.id: measure_song(song.lyrics, song.language) for song in SONGS}


def count(songs: Sequence[Song], max_songs: int = 100_000, pool_size: int = 100) -> CorpusCounts:
    counts = CorpusCounts(max_songs, pool_size)
    for song in songs:
        counts.add(song, MEASURES[song.id])
    return counts


def groups_of(statistics: CorpusStatistics) -> dict[object, Group | None]:
    """Every group that the statistics know, in a form that can be compared."""
    keys = {(song.artist, song.genre) for song in SONGS}
    found: dict[object, Group | None] = {"all": statistics.everything}
    found |= {key: statistics.artist(*key) for key in keys}
    found |= {key: statistics.genre(key) for _, key in keys}
    return found | {song.decade: statistics.decade(song.decade) for song in SONGS}


STATISTICS = CorpusStatistics(count(SONGS))


def measured(songs: Sequence[Song]) -> list[Measures]:
    return [MEASURES[song.id] for song in songs]


def check_sums(group: Group, songs: Sequence[Song]) -> None:
    found = [measures.structure for measures in measured(songs)]
    assert group.num_songs == len(songs)
    assert group.num_english == sum(structure.is_english for structure in found)
    assert group.num_lines == sum(structure.num_lines for structure in found)
    assert group.num_words == sum(structure.num_words for structure in found)
    assert group.num_distinct == sum(structure.num_distinct_words for structure in found)
    assert group.num_with_chorus == sum(structure.has_chorus for structure in found)
    assert all(
        group.persons[who] == sum(structure.person == who for structure in found) for who in group.persons
    )
    schemes = Counter(measures.rhyme_scheme for measures in measured(songs))
    assert all(count == schemes[scheme] for scheme, count in group.schemes.items())


def test_the_sums_of_every_group_are_those_of_its_songs() -> None:
    check_sums(STATISTICS.everything, SONGS)
    for genre in {song.genre for song in SONGS} - {None}:
        group = STATISTICS.genre(genre)
        assert group is not None
        check_sums(group, [song for song in SONGS if song.genre == genre])
    decades = {song.decade: STATISTICS.decade(song.decade) for song in SONGS}
    assert sum(group is not None for group in decades.values()) >= 6
    for decade, group in decades.items():
        if group is not None:
            check_sums(group, [song for song in SONGS if song.decade == decade])


def test_telling_words_are_counted_once_a_song_in_group_and_whole() -> None:
    artists = [key for key in groups_of(STATISTICS) if isinstance(key, tuple) and STATISTICS.artist(*key)]
    assert len(artists) > 20
    for artist, genre in artists:
        group = STATISTICS.artist(artist, genre)
        assert group is not None
        whole = [song for song in SONGS if song.genre == genre]
        own = [song for song in whole if song.artist == artist]
        assert len(own) >= MIN_SONGS_OF_ARTIST
        for word, share in group.words.items():
            assert share.inside == sum(word in MEASURES[song.id].words for song in own) >= 3
            assert share.outside == sum(word in MEASURES[song.id].words for song in whole)
            assert share.inside / len(own) >= MIN_RATIO * share.outside / len(whole)
        for theme, share in group.themes.items():
            themes = [{found.theme for found in main_themes(song, MEASURES[song.id])} for song in own]
            assert share.inside == sum(theme in found for found in themes)


def test_songs_in_other_languages_count_but_their_words_do_not() -> None:
    group = STATISTICS.artist("Nacht", "Pop")
    assert group is not None
    assert (group.num_songs, group.num_english, group.words) == (9, 0, {})
    pop = STATISTICS.genre("Pop")
    assert pop is not None
    assert "nacht" not in pop.words
    assert pop.num_songs == pop.num_english + 9


def z_by_hand(inside: int, others: int, sizes: tuple[int, int], prior: float) -> float:
    """Equations 15, 19 and 22 as they stand in the paper, one word at a time."""
    total = float(PRIOR_WEIGHT)
    first = math.log((inside + prior) / (sizes[0] + total - inside - prior))
    second = math.log((others + prior) / (sizes[1] + total - others - prior))
    return (first - second) / math.sqrt(1 / (inside + prior) + 1 / (others + prior))


def test_the_log_odds_are_those_of_the_paper() -> None:
    one, other, prior = np.array([3, 0, 40]), np.array([2, 9, 40]), np.array([0.5, 2.0, 12.5])
    found = log_odds_z(one, other, (300, 900), prior)
    expected = [z_by_hand(int(a), int(b), (300, 900), p) for a, b, p in zip(one, other, prior, strict=True)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[0] > 0 > found[1]


def test_the_telling_words_of_a_genre_are_those_above_the_threshold_in_order() -> None:
    docs = {song.id: set(MEASURES[song.id].words) for song in SONGS if MEASURES[song.id].structure.is_english}
    group = STATISTICS.genre("Folk")
    assert group is not None
    assert len(group.words) > 10
    everywhere = Counter(word for words in docs.values() for word in words if is_telling(word))
    own = Counter(
        word for song in SONGS if song.genre == "Folk" for word in docs.get(song.id, ()) if is_telling(word)
    )
    sizes = own.total(), everywhere.total() - own.total()
    z = {
        word: z_by_hand(
            count, everywhere[word] - count, sizes, PRIOR_WEIGHT * everywhere[word] / everywhere.total()
        )
        for word, count in own.items()
        if count >= 5
    }
    ratio = {w: own[w] * len(docs) / (everywhere[w] * sum(s.genre == "Folk" for s in SONGS)) for w in z}
    expected = sorted(
        (w for w in z if z[w] >= MIN_Z and ratio[w] >= MIN_RATIO), key=lambda w: (-round(z[w], 6), w)
    )
    assert list(group.words) == expected[:300]
    assert [share.rank for share in group.words.values()] == list(range(len(group.words)))


def test_an_artist_is_not_told_by_its_own_name() -> None:
    songs = [
        Song(
            f"x{n}",
            "we will wander on the long long road to Wander\nand never come",
            None,
            "Wander Vale",
            "Folk",
        )
        for n in range(9)
    ]
    counts = count([song for song in SONGS if song.genre == "Folk"])
    for song in songs:
        counts.add(song, measure_song(song.lyrics))
    group = CorpusStatistics(counts).artist("Wander Vale", "Folk")
    assert group is not None
    assert "long" in group.words
    assert "wander" not in group.words


def test_pieces_add_up_to_the_same_in_any_order_and_division() -> None:
    expected = groups_of(STATISTICS)
    for seed in range(4):
        dice = random.Random(seed)
        songs = dice.sample(SONGS, len(SONGS))
        cuts = sorted(dice.sample(range(len(songs)), seed))
        pieces = [count(songs[a:b]) for a, b in zip([0, *cuts], [*cuts, len(songs)], strict=True)]
        total = CorpusCounts(pool_size=100)
        for piece in dice.sample(pieces, len(pieces)):
            total.merge(pickle.loads(pickle.dumps(piece)))
        found = CorpusStatistics(total)
        assert groups_of(found) == expected
        assert list(found.similar.songs) == list(STATISTICS.similar.songs)
    assert groups_of(CorpusStatistics(count(SONGS[1:]))) != expected


def test_past_the_limit_whole_artists_are_left_out_whatever_the_order() -> None:
    limited = CorpusStatistics(count(SONGS, max_songs=200))
    kept = {song.artist for song in SONGS if limited.artist(song.artist, song.genre)}
    assert 0 < limited.everything.num_songs <= 200
    for artist in kept:
        for genre in {song.genre for song in SONGS if song.artist == artist}:
            assert limited.artist(artist, genre) is None or (
                limited.artist(artist, genre).num_songs == STATISTICS.artist(artist, genre).num_songs  # type: ignore[union-attr]
            )
    counts = count(SONGS, max_songs=200)
    counts.table()
    assert counts.level > 0
    assert all(cell.level >= counts.level for cell in counts.cells)
    halves = count(SONGS[300:], max_songs=200)
    halves.merge(count(SONGS[:300], max_songs=200))
    assert groups_of(CorpusStatistics(halves)) == groups_of(limited)


def test_nothing_counted_is_no_statistics_of_anything() -> None:
    empty = CorpusStatistics(CorpusCounts())
    assert empty.everything.num_songs == 0
    assert empty.genre("Folk") is empty.decade("1990s") is empty.artist("A", "Folk") is None
    assert empty.similar.nearest(SONGS[0], MEASURES[SONGS[0].id].words) == ()


def test_what_travels_to_other_processes_is_small_and_whole() -> None:
    data = pickle.dumps(STATISTICS)
    assert groups_of(pickle.loads(data)) == groups_of(STATISTICS)
    assert len(pickle.dumps(count(SONGS))) < 3000 * len(SONGS)


def test_another_hash_seed_gives_the_same_statistics() -> None:
    command = (
        "import hashlib; from tests.test_statistics import STATISTICS, groups_of; "
        "print(hashlib.sha256(repr(sorted((repr(k), repr(g)) for k, g in groups_of(STATISTICS).items()))"
        ".encode()).hexdigest())"
    )
    here = repr(sorted((repr(key), repr(group)) for key, group in groups_of(STATISTICS).items()))
    path = os.pathsep.join(entry or "." for entry in sys.path)
    told = subprocess.run(
        [sys.executable, "-c", command],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == hashlib.sha256(here.encode()).hexdigest()
