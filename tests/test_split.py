from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from preprocess.choose.order import priorities, rank_within, share_out
from preprocess.choose.split import SplitSongs, code_artists, set_artists_aside, set_songs_aside


def make(num: int, artists: list[int], genres: list[int]) -> SplitSongs:
    repeated = [np.resize(np.array(values), num) for values in (artists, genres)]
    return make_songs(repeated[0], repeated[1])


def make_songs(artist: npt.ArrayLike, genre: npt.ArrayLike) -> SplitSongs:
    genres = np.asarray(genre, np.int32)
    codes, artists = code_artists(np.asarray(artist, np.uint64))
    return SplitSongs(
        np.arange(len(codes), dtype=np.uint64), codes, artists, genres, int(genres.max(initial=0)) + 1
    )


def artists_of(songs: SplitSongs, chosen: npt.NDArray[np.bool_]) -> Counter[int]:
    return Counter(songs.artists[songs.artist[chosen]].tolist())


def everything(songs: SplitSongs) -> npt.NDArray[np.bool_]:
    return np.ones(len(songs.artist), np.bool_)


def test_ranks_count_earlier_entries_of_the_same_group() -> None:
    assert rank_within(np.array([7, 7, 3, 7, 3])).tolist() == [0, 1, 0, 2, 1]
    assert rank_within(np.array([], np.int64)).tolist() == []


def test_shares_are_in_proportion_and_add_up() -> None:
    assert share_out(np.array([50, 30, 20]), 7).tolist() == [4, 2, 1]
    assert share_out(np.array([2, 1]), 99).tolist() == [2, 1]
    assert share_out(np.array([1, 1, 1]), 2).tolist() == [1, 1, 0]
    assert share_out(np.array([0, 0]), 5).tolist() == [0, 0]
    for total in range(40):
        assert share_out(np.array([13, 0, 7, 19]), total).sum() == min(total, 39)


def test_priorities_depend_on_the_seed_and_the_purpose() -> None:
    hashes = np.arange(1000, dtype=np.uint64)
    orders = {
        tuple(np.argsort(priorities(hashes, seed, purpose))[:10])
        for seed in range(3)
        for purpose in ("take", "evaluate")
    }
    assert len(orders) == 6
    assert len(np.unique(priorities(hashes, 0, "take"))) == 1000
    # Known values: a data set can be built again by the next version.
    assert priorities(np.array([1, 2], np.uint64), 0, "take").tolist() == KNOWN


KNOWN = [3905047131743525135, 6189370062896774976]


def test_songs_of_an_artist_stay_in_training() -> None:
    songs = make(12, [1, 1, 2, 2, 3, 4], [0])
    for num_left in (0, 1, 3):
        aside = set_songs_aside(songs, everything(songs), 9, num_left, seed=0)
        left = artists_of(songs, ~aside)
        assert all(
            left[artist] >= min(num_left, size)
            for artist, size in artists_of(songs, everything(songs)).items()
        )
        assert aside.sum() == min(9, sum(max(0, size - num_left) for size in (4, 4, 2, 2)))


def test_an_artist_of_two_genres_fills_the_share_of_the_second_one() -> None:
    # Artist 1 sings in both genres; all others have a single song. Each genre is to give one.
    songs = make_songs([1, 2, 3, 1, 1, 4], [0, 0, 0, 1, 1, 1])
    for seed in range(20):
        aside = set_songs_aside(songs, everything(songs), 2, 1, seed)
        assert songs.genre[aside].tolist() == [0, 1]
        assert set(artists_of(songs, aside)) == {1}


def test_songs_set_aside_already_are_neither_chosen_nor_counted() -> None:
    songs = make(40, [1, 2], [0, 0, 1, 1])
    available = songs.artists[songs.artist] != 2
    aside = set_songs_aside(songs, available, 19, 1, seed=0)
    assert aside.sum() == 19
    assert not (aside & ~available).any()


def test_songs_without_artist_may_be_set_aside_but_are_of_no_unseen_artist() -> None:
    songs = make(10, [0], [0])
    assert set_songs_aside(songs, everything(songs), 4, 1, seed=0).sum() == 4
    assert not set_artists_aside(songs, 4, seed=0).any()


def test_small_artists_are_set_aside_first_and_whole() -> None:
    songs = make(1000, [1] * 70 + list(range(100, 130)), [0, 1])
    sizes = artists_of(songs, everything(songs))
    aside = set_artists_aside(songs, 55, seed=0)
    chosen = artists_of(songs, aside)
    assert chosen == {artist: sizes[artist] for artist in chosen}
    assert 1 not in chosen
    assert 40 <= aside.sum() <= 55
    assert set(chosen) != set(artists_of(songs, set_artists_aside(songs, 55, seed=1)))


def test_every_genre_gives_unseen_artists_in_proportion() -> None:
    songs = make(600, list(range(1, 601)), [0, 0, 0, 1, 1, 2])
    aside = set_artists_aside(songs, 60, seed=0)
    assert np.bincount(songs.genre[aside]).tolist() == [30, 20, 10]


def test_no_song_at_all_is_no_trouble() -> None:
    songs = make_songs([], [])
    assert (
        len(set_artists_aside(songs, 3, seed=0))
        == len(set_songs_aside(songs, everything(songs), 3, 1, 0))
        == 0
    )
