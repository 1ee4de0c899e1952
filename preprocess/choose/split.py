"""Songs parted into training and two kinds of evaluation songs, reproducibly.

eval          new songs by artists of whom other songs stay in training: the artist can be recognised
eval_unseen   all songs of artists of whom none is in training: genre, themes and times of strangers
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.choose.columns import NONE
from preprocess.choose.order import priorities, rank_within, share_out
from preprocess.choose.shingles import Uint64Array
from preprocess.schema import BoolArray, Int32Array, Int64Array


@dataclass(frozen=True, slots=True, eq=False)
class SplitSongs:
    """What the split needs of N songs, in an order that their input has no part in.

    Attributes:
        hashes: uint64[N], different for each song.
        artist: int32[N], index into `artists`, `NONE` for none.
        artists: uint64[A], a hash of each artist; every one has a song.
        genre: int32[N], 0 to `num_genres` - 1; a genre of its own for songs without one.
        num_genres: Genres.
    """

    hashes: Uint64Array
    artist: Int32Array
    artists: Uint64Array
    genre: Int32Array
    num_genres: int


def code_artists(artist: Uint64Array) -> tuple[Int32Array, Uint64Array]:
    """Codes of the artists, as in `SplitSongs`, of their hashes, uint64[N], 0 for none."""
    artists = np.unique(artist)
    artists = artists[artists != 0]
    codes = np.searchsorted(artists, artist).astype(np.int32)
    codes[artist == 0] = NONE
    return codes, artists


def set_artists_aside(songs: SplitSongs, num_songs: int, seed: int) -> BoolArray:
    """Choose artists all of whose songs leave training.

    Of every genre in proportion to its songs with an artist; an artist counts for the genre of its first song, whole.
    Artists with few songs go first: they teach the least about recognising artists, and the number is met closely.
    While what the genres fall short allows, one more artist of a genre follows.

    Args:
        songs: The songs taken.
        num_songs: How many to set aside; fewer are, rather than more, where no artist fits.
        seed: Chooses among equals.

    Returns:
        bool[N], true for the songs of these artists.
    """
    known = np.flatnonzero(songs.artist != NONE)
    home = np.zeros(len(songs.artists), np.int32)
    home[songs.artist[known[::-1]]] = songs.genre[known[::-1]]
    num_own = np.bincount(songs.artist[known], minlength=len(songs.artists))
    shares = share_out(np.bincount(songs.genre[known], minlength=songs.num_genres), num_songs)
    order = np.lexsort((songs.artists, priorities(songs.artists, seed, "unseen"), num_own, home))
    running = np.cumsum(num_own[order])
    before = np.r_[0, running][np.searchsorted(home[order], np.arange(songs.num_genres))]
    fits = running - before[home[order]] <= shares[home[order]]
    chosen = np.zeros(len(songs.artists), np.bool_)
    chosen[order[fits]] = True
    # Sizes rise within a genre: what does not fit is behind all that does.
    rest = order[~fits]
    following = rest[rank_within(home[rest]) == 0]
    following = following[np.argsort(num_own[following], kind="stable")]
    chosen[following[np.cumsum(num_own[following]) <= num_songs - num_own[chosen].sum()]] = True
    aside: BoolArray = np.r_[chosen, False][songs.artist]
    return aside


def set_songs_aside(
    songs: SplitSongs, available: BoolArray, num_songs: int, num_left: int, seed: int
) -> BoolArray:
    """Choose songs whose artists stay in training.

    Of every genre in proportion to its available songs, by priority.

    Args:
        songs: The songs taken.
        available: bool[N], those that are not set aside already.
        num_songs: How many to set aside; fewer are when artists would lose their last training songs.
        num_left: At least so many songs of an artist stay in training when one is set aside.
        seed: Chooses among equals.

    Returns:
        bool[N], true for the songs set aside.
    """
    open_shares = share_out(np.bincount(songs.genre[available], minlength=songs.num_genres), num_songs)
    order = np.argsort(priorities(songs.hashes, seed, "evaluate")).astype(np.int32)
    aside = np.zeros(len(songs.artist), np.bool_)
    # One more for songs without an artist, where `NONE` points.
    left = _count(songs.artist[available], len(songs.artists) + 1)
    while True:
        # Songs that the share of another genre kept back make room for the next ones of their artist.
        rest = order[(available & ~aside)[order] & (open_shares[songs.genre[order]] > 0)]
        artist = songs.artist[rest]
        rest = rest[(artist == NONE) | (rank_within(artist) < left[artist] - num_left)]
        taken = rest[rank_within(songs.genre[rest]) < open_shares[songs.genre[rest]]]
        if not len(taken):
            return aside
        aside[taken] = True
        left -= _count(songs.artist[taken], len(left))
        open_shares -= np.bincount(songs.genre[taken], minlength=songs.num_genres)


def _count(codes: Int32Array, size: int) -> Int64Array:
    return np.bincount(codes % size, minlength=size)
