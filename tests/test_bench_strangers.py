"""`python -m bench strangers`: who is held out, how many songs are learned from, and that no clue gives no answer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bench.strangers import ask_probe, ask_tfidf, count_even, hold_out, keep_some, label_songs
from preprocess.corpus import generate_songs, list_artists
from preprocess.schema import GENRES

SONGS = list(generate_songs(600, 0, length="short"))
LABELLED = label_songs(SONGS)
ARTISTS = [[artist.name for artist in list_artists() if artist.genre == genre] for genre in GENRES]


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("seen", [1, 3, 5])
def test_no_song_of_an_asked_artist_is_learned_from(seen: int, *, even: bool) -> None:
    turn = hold_out(SONGS, ARTISTS, 4, seen, even=even)
    asked = {SONGS[i].artist for i in turn.asked}
    learned = {SONGS[i].artist for i in turn.learned}
    assert asked == {names[4] for names in ARTISTS}
    assert len(learned) == seen * len(GENRES)
    assert not asked & learned


def test_every_genre_is_learned_from_as_many_songs_however_many_artists_are_seen() -> None:
    counts = [
        Counter(SONGS[i].genre for i in hold_out(SONGS, ARTISTS, 0, seen, even=True).learned)
        for seen in range(1, 6)
    ]
    assert counts[0] == dict.fromkeys(GENRES, count_even(SONGS, ARTISTS))
    assert all(count == counts[0] for count in counts)


def test_the_control_asks_about_new_songs_of_artists_it_has_learned_well() -> None:
    turn = hold_out(SONGS, ARTISTS, 2, 5)
    control = keep_some(SONGS, turn)
    assert sorted(control.learned + control.asked) == sorted(turn.learned)
    learned = Counter(SONGS[i].artist for i in control.learned)
    for artist, asked in Counter(SONGS[i].artist for i in control.asked).items():
        assert learned[artist] > 2 * asked


def test_tfidf_tells_genres_of_known_artists_and_not_of_strangers() -> None:
    turn = hold_out(SONGS, ARTISTS, 1, 5)
    assert ask_tfidf(LABELLED, keep_some(SONGS, turn)) > 0.9
    assert ask_tfidf(LABELLED, turn) < 0.4


def test_a_probe_finds_what_the_features_hold_and_nothing_in_noise() -> None:
    turn = hold_out(SONGS, ARTISTS, 0, 5)
    noise = np.random.Generator(np.random.Philox(0)).standard_normal((len(SONGS), 32)).astype(np.float32)
    told = noise.copy()
    told[np.arange(len(SONGS)), [GENRES.index(str(song.genre)) for song in SONGS]] += 12
    assert ask_probe(SONGS, told, turn) > 0.95
    assert ask_probe(SONGS, noise, turn) < 0.3
