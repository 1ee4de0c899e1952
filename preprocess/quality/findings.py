"""What only shows when all songs are seen together: duplicates, artists, and names that contradict each other.

Works on numbers in columns. Memory on top of theirs is at most four arrays of N, and only while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.choose.columns import NONE, SongColumns
from preprocess.quality.tallies import shorten
from preprocess.schema import Int64Array

NamesOf = Callable[[Int64Array], Sequence[str | None]]
"""The artists' names of songs at int64[K] indices, in any order."""

NUM_TOP = 20
"""Artists that are named for the number of their songs."""

NUM_MIXED = 10
"""Artists that are named for the number of their genres."""

NUM_SHARED = 8
"""Lyrics that are shown for standing under several artists."""

_NAMES_PER_LYRICS = 3
_SIZE_BINS = (1, 2, 3, 6, 11, 21, 51, 101, 501)
_COPY_BINS = (2, 3, 4, 6, 11, 101)
_CURVE_STEP = 1.25


@dataclass(frozen=True, slots=True)
class ArtistFound:
    """One artist.

    Attributes:
        name: As the first of the songs spells it.
        num_songs: Songs.
        genres: Genre → songs, largest first; without those that have none.
    """

    name: str
    num_songs: int
    genres: dict[str, int]


@dataclass(frozen=True, slots=True)
class SharedLyrics:
    """Lyrics that stand under several artists.

    Attributes:
        num_artists: So many.
        num_songs: Songs with these lyrics.
        artists: Names of the first artists.
    """

    num_artists: int
    num_songs: int
    artists: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found over N songs. Artists are compared without case, lyrics by their words.

    Attributes:
        num_songs: N.
        num_duplicates: Songs whose lyrics an earlier song had.
        copies: Copies of the same lyrics, as in "3-5" → lyrics that have so many.
        num_near_duplicates: Songs that are nearly the same as another one; None where nobody has looked.
        num_shared: Lyrics that stand under several artists.
        num_songs_shared: Songs with such lyrics.
        shared: Of these the ones with the most artists.
        num_artists: Artists.
        num_without_artist: Songs without an artist.
        num_with_one_song: Artists with a single song.
        num_artists_of_half: So many artists, the most productive, make up half of the songs that have an artist.
        songs_per_artist: Songs, as in "3-5" → artists that have so many.
        curve: (artists, songs): the most productive artists, and songs they have together; rising.
        top: The most productive artists.
        num_artists_by_genres: 2 → artists with songs in two or more genres; 3 likewise.
        mixed: The artists with the most genres.
    """

    num_songs: int = 0
    num_duplicates: int = 0
    copies: dict[str, int] = field(default_factory=dict)
    num_near_duplicates: int | None = None
    num_shared: int = 0
    num_songs_shared: int = 0
    shared: tuple[SharedLyrics, ...] = ()
    num_artists: int = 0
    num_without_artist: int = 0
    num_with_one_song: int = 0
    num_artists_of_half: int = 0
    songs_per_artist: dict[str, int] = field(default_factory=dict)
    curve: tuple[tuple[int, int], ...] = ()
    top: tuple[ArtistFound, ...] = ()
    num_artists_by_genres: dict[int, int] = field(default_factory=lambda: {2: 0, 3: 0})
    mixed: tuple[ArtistFound, ...] = ()


def find_all(columns: SongColumns, names_of: NamesOf, num_near_duplicates: int | None = None) -> Findings:
    """Look at all songs together.

    Args:
        columns: N songs; `signature`, `id_hash` and `quality` are not looked at.
        names_of: Gives artists' names; called once, with less than a hundred indices.
        num_near_duplicates: Songs that the choice left out as nearly the same as others; None: not known.
    """
    if not len(columns):
        return Findings(num_near_duplicates=num_near_duplicates)
    artists, lyrics = _look_at_artists(columns), _look_at_lyrics(columns)
    wanted = artists.firsts + [index for group in lyrics.firsts for index in group]
    names = iter([shorten(name or "") for name in names_of(np.array(wanted, dtype=np.int64))])
    found = [ArtistFound(next(names), size, genres) for size, genres in artists.sketches]
    shared = tuple(
        SharedLyrics(num_artists, num_songs, tuple(next(names) for _ in group))
        for (num_artists, num_songs), group in zip(lyrics.sizes, lyrics.firsts, strict=True)
    )
    return Findings(
        num_songs=len(columns),
        num_near_duplicates=num_near_duplicates,
        shared=shared,
        top=tuple(found[: artists.num_top]),
        mixed=tuple(found[artists.num_top :]),
        **artists.figures,
        **lyrics.figures,
    )


@dataclass(frozen=True, slots=True)
class _Artists:
    """Figures over artists; then, for those to be named, first the top, index of the first song, songs, genres."""

    figures: dict[str, Any]
    num_top: int
    firsts: list[int]
    sketches: list[tuple[int, dict[str, int]]]


@dataclass(frozen=True, slots=True)
class _Lyrics:
    """Figures over lyrics; then, for those to be shown, (artists, songs), and a song of each of the first artists."""

    figures: dict[str, Any]
    sizes: list[tuple[int, int]]
    firsts: list[list[int]]


def _starts(ordered: npt.NDArray[Any]) -> Int64Array:
    """int64[G]: where each run of equal values begins, for one value or more."""
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def _binned(sizes: Int64Array, lows: Sequence[int]) -> dict[str, int]:
    """How many of the sizes lie in each bin; a bin reaches up to the next one."""
    places = np.searchsorted(np.array(lows), sizes, side="right") - 1
    counts = np.bincount(places[places >= 0], minlength=len(lows)).tolist()
    highs = [low - 1 for low in lows[1:]]
    names = [f"{low}" if low == high else f"{low}-{high}" for low, high in zip(lows[:-1], highs, strict=True)]
    return dict(zip([*names, f"{lows[-1]}+"], counts, strict=True))


def _look_at_artists(columns: SongColumns) -> _Artists:
    order = np.lexsort((columns.genre, columns.artist))
    # Songs without an artist have 0 and come first.
    num_without = int(np.count_nonzero(columns.artist == 0))
    order = order[num_without:]
    figures: dict[str, Any] = {"num_without_artist": num_without}
    if not len(order):
        return _Artists(figures, 0, [], [])
    ordered, genre = columns.artist[order], columns.genre[order]
    starts = _starts(ordered)
    is_new = np.concatenate(([True], (genre[1:] != genre[:-1]) | (ordered[1:] != ordered[:-1]))) & (
        genre != NONE
    )
    num_genres = np.add.reduceat(is_new, starts, dtype=np.int64)
    sizes, firsts = np.diff(np.append(starts, len(order))), np.minimum.reduceat(order, starts)
    figures |= _size_figures(sizes)
    figures["num_artists_by_genres"] = {n: int(np.count_nonzero(num_genres >= n)) for n in (2, 3)}
    top = np.lexsort((firsts, -sizes))[:NUM_TOP].tolist()
    mixed = [
        group for group in np.lexsort((firsts, -sizes, -num_genres))[:NUM_MIXED] if num_genres[group] > 1
    ]
    sketches = []
    for group in (*top, *mixed):
        part = genre[starts[group] : starts[group] + sizes[group]]
        codes, counts = np.unique(part[part != NONE], return_counts=True)
        named = {
            columns.genres[code]: count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
        }
        sketches.append((len(part), dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))))
    return _Artists(figures, len(top), firsts[[*top, *mixed]].tolist(), sketches)


def _size_figures(sizes: Int64Array) -> dict[str, Any]:
    """Figures of the numbers of songs of each artist, int64[A]."""
    sums = np.cumsum(np.sort(sizes)[::-1])
    num_artists, num_songs = len(sizes), int(sums[-1])
    ranks = _ranks(num_artists)
    return {
        "num_artists": num_artists,
        "num_with_one_song": int(np.count_nonzero(sizes == 1)),
        "num_artists_of_half": int(np.searchsorted(sums, -(-num_songs // 2))) + 1,
        "songs_per_artist": _binned(sizes, _SIZE_BINS),
        "curve": tuple((rank, int(sums[rank - 1])) for rank in ranks),
    }


def _ranks(last: int) -> list[int]:
    """1 to `last`, each about a quarter larger than the one before."""
    ranks = [1]
    while ranks[-1] < last:
        ranks.append(min(last, max(ranks[-1] + 1, int(ranks[-1] * _CURVE_STEP))))
    return ranks


def _look_at_lyrics(columns: SongColumns) -> _Lyrics:
    order = np.lexsort((columns.artist, columns.lyrics))
    ordered = columns.lyrics[order]
    is_copy = np.concatenate(([False], ordered[1:] == ordered[:-1], [False]))
    num_duplicates = int(np.count_nonzero(is_copy))
    # Nearly all lyrics occur once; only those that occur again are looked at further.
    order = order[is_copy[:-1] | is_copy[1:]]
    figures = {"num_duplicates": num_duplicates, "copies": _binned(np.zeros(0, np.int64), _COPY_BINS)}
    if not len(order):
        return _Lyrics(figures, [], [])
    ordered, artist = columns.lyrics[order], columns.artist[order]
    starts = _starts(ordered)
    is_new = np.concatenate(([True], (artist[1:] != artist[:-1]) | (ordered[1:] != ordered[:-1]))) & (
        artist != 0
    )
    num_artists = np.add.reduceat(is_new, starts, dtype=np.int64)
    sizes, firsts = np.diff(np.append(starts, len(order))), np.minimum.reduceat(order, starts)
    shared = np.flatnonzero(num_artists > 1)
    worst = shared[np.lexsort((firsts[shared], -sizes[shared], -num_artists[shared]))[:NUM_SHARED]]
    singers = []
    for group in worst.tolist():
        songs = slice(starts[group], starts[group] + sizes[group])
        singers.append(np.sort(order[songs][is_new[songs]])[:_NAMES_PER_LYRICS].tolist())
    figures |= {
        "copies": _binned(sizes, _COPY_BINS),
        "num_shared": len(shared),
        "num_songs_shared": int(sizes[shared].sum()),
    }
    return _Lyrics(figures, [(int(num_artists[group]), int(sizes[group])) for group in worst], singers)
