"""What is counted over the training songs, in pieces that any process makes and that add up in any order.

Every song falls into one cell of (artist, genre, decade), and gives it whole numbers: of songs that sing a word, of
songs with a theme, of lines. One sparse table of cells x features holds them all; artists, genres, decades and the
whole corpus are sums of its rows, taken at the end (`preprocess.tasks.statistics`).

Memory is bounded by the number of songs counted, about 1 KiB each: past `max_songs` a half of the artists is left
out, whole, by a hash of their names, then another half. Which ones does not depend on the order of the songs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.measure.song import Measures
from preprocess.schema import Int64Array, Song
from preprocess.tasks.main_themes import main_themes
from preprocess.tasks.neighbours import SimilarPool, is_telling, pool_song

MAX_SONGS = 100_000
"""Songs whose counts are kept: about 100 MiB."""

_MAX_LEVEL = 20
_LOW = 0xFFFFFFFF
_MAX_PENDING = 2_000_000


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """The songs of one artist, genre and decade; "" stands for a fact that the songs lack.

    Attributes:
        artist: Name as the source spells it.
        genre: Genre.
        decade: As in "1990s".
        level: How often the artists may be halved before this one is left out.
    """

    artist: str
    genre: str
    decade: str
    level: int


def count_features(measures: Measures, themes: Iterable[str]) -> Iterator[tuple[str, int]]:
    """What one song adds to its cell: (feature, whole number).

    A telling word counts once a song, and like themes only in English songs: elsewhere function words would tell the
    language and nothing more. The other features begin with a colon, which no word does.
    """
    structure = measures.structure
    yield ":songs", 1
    yield ":lines", structure.num_lines
    yield ":words", structure.num_words
    yield ":distinct", structure.num_distinct_words
    if structure.has_chorus:
        yield ":chorus", 1
    if structure.is_english:
        yield ":english", 1
        if measures.rhyme_scheme:
            yield f":rhyme:{measures.rhyme_scheme}", 1
        for theme in themes:
            yield f":theme:{theme}", 1
        if structure.person:
            yield f":person:{structure.person}", 1
        for word in measures.words:
            if is_telling(word):
                yield word, 1


class CorpusCounts:
    """Counts over songs.

    Args:
        max_songs: Songs whose counts are kept.
        pool_size: Songs kept whole, among which similar ones are looked for (`SimilarPool`); 0 keeps none.
    """

    def __init__(self, max_songs: int = MAX_SONGS, pool_size: int = 20_000) -> None:
        self.max_songs = max_songs
        self.pool = SimilarPool(pool_size)
        self.cells: dict[Cell, int] = {}
        self.features: dict[str, int] = {}
        self.songs_by_level = np.zeros(_MAX_LEVEL + 1, np.int64)
        self._keys: list[Int64Array] = []
        self._values: list[Int64Array] = []
        self._pending = 0

    @property
    def level(self) -> int:
        """How often the artists were halved."""
        kept = np.cumsum(self.songs_by_level[::-1])[::-1]
        fitting = np.flatnonzero(kept <= self.max_songs)
        return int(fitting[0]) if len(fitting) else _MAX_LEVEL

    def add(self, song: Song, measures: Measures) -> None:
        """Count a training song."""
        themes = tuple(dict.fromkeys(theme.theme for theme in main_themes(song, measures)))
        self.pool.add(pool_song(song, themes, measures.words))
        level = artist_level(song)
        self.songs_by_level[level] += 1
        if level < self.level:
            return
        cell = Cell(song.artist or "", song.genre or "", song.decade or "", level)
        row = self.cells.setdefault(cell, len(self.cells)) << 32
        features = self.features
        counted = list(count_features(measures, themes))
        keys = [row | features.setdefault(feature, len(features)) for feature, _ in counted]
        self._append(np.array(keys, np.int64), np.array([value for _, value in counted], np.int64))

    def merge(self, other: CorpusCounts) -> None:
        """Add another piece's counts; the sum is the same in any order."""
        self.pool.merge(other.pool)
        self.songs_by_level += other.songs_by_level
        keys, values = other.table()
        kept = other._levels()[keys >> 32] >= self.level
        keys, values = keys[kept], values[kept]
        rows = _renumber(self.cells, list(other.cells), keys >> 32)
        columns = _renumber(self.features, list(other.features), keys & _LOW)
        self._append((rows << 32) | columns, values)

    def table(self) -> tuple[Int64Array, Int64Array]:
        """The counts as (cell << 32 | feature) and value, each pair once, sorted; of the songs kept alone."""
        keys = np.concatenate([np.zeros(0, np.int64), *self._keys])
        values = np.concatenate([np.zeros(0, np.int64), *self._values])
        kept = self._levels()[keys >> 32] >= self.level
        if not kept.all():
            keys, values = self._number_anew(keys[kept]), values[kept]
        keys, index = np.unique(keys, return_inverse=True)
        sums: Int64Array = np.zeros(len(keys), np.int64)
        np.add.at(sums, index, values)
        self._keys, self._values, self._pending = [keys], [sums], 0
        return keys, sums

    def _levels(self) -> Int64Array:
        return np.array([cell.level for cell in self.cells], np.int64)

    def _number_anew(self, keys: Int64Array) -> Int64Array:
        """Forget cells and features that no key has: those of the artists that were left out."""
        cells, features = list(self.cells), list(self.features)
        self.cells, self.features = {}, {}
        return (_renumber(self.cells, cells, keys >> 32) << 32) | _renumber(
            self.features, features, keys & _LOW
        )

    def _append(self, keys: Int64Array, values: Int64Array) -> None:
        self._keys.append(keys)
        self._values.append(values)
        self._pending += len(keys)
        if self._pending > _MAX_PENDING:
            self.table()

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: the table summed up, its values in the smallest type that holds them."""
        _, values = self.table()
        smallest = np.min_scalar_type(int(values.max(initial=0)))
        return {**self.__dict__, "_values": [values.astype(smallest)]}


def _renumber(mine: dict[Any, int], theirs: Sequence[Any], numbers: Int64Array) -> Int64Array:
    """The numbers of another piece's keys in this one, which gets those of the keys that it lacks."""
    places = np.zeros(len(theirs), np.int64)
    for number in np.unique(numbers).tolist():
        places[number] = mine.setdefault(theirs[number], len(mine))
    renumbered: Int64Array = places[numbers]
    return renumbered


def artist_level(song: Song) -> int:
    """How many bits the hash of the artist (of the song, where there is none) begins with that are 0."""
    name = f"artist {song.artist.casefold()}" if song.artist else f"song {song.id}"
    first = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
    return min(64 - first.bit_length(), _MAX_LEVEL)
