"""The nearest songs of the training corpus by their words, each with what it shares.

Songs are compared as TF-IDF vectors (Manning, Raghavan & Schütze 2008, ch. 6) with a sublinear term frequency, by the
cosine of their 40 heaviest words. A result depends on the song and the pool alone: scores are rounded before they
are ranked, and equal ones go by id.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.measure.structure import STOP_WORDS
from preprocess.schema import Song

MAX_TERMS = 40
"""Words of a song that are compared: those of the greatest weight."""

MIN_SCORE = 0.12
"""Cosine from which songs count as near."""

MAX_SCORE = 0.9
"""Cosine above which songs count as copies of each other."""

MIN_SHARED_WORDS = 2
"""Near songs share this many words at least."""

MAX_WORDS_KEPT = 400
"""Telling words that are kept of a song, the most frequent."""

_NUM_CANDIDATES = 40
_MAX_DOCUMENT_SHARE = 0.1
_MIN_COMMON = 20
_DECIMALS = 6

Columns = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float64]
Vector = tuple[Columns, Weights]
"""The columns of a sparse row, in order, and their weights."""

CsrMatrix = Any
"""scipy.sparse.csr_matrix, which is imported only where it is used: it takes a fifth of a second."""


@dataclass(frozen=True, slots=True, order=True)
class PoolSong:
    """A song that others may be near to.

    Attributes:
        priority: Hash of the id: the songs with the least are kept.
        id: The song's id.
        title: Title, or "".
        artist: Artist, or "".
        decade: As in "1990s", or "".
        themes: Names of its themes.
        words: Its telling words, the most frequent first.
        counts: How often each is sung.
    """

    priority: int
    id: str
    title: str
    artist: str
    decade: str
    themes: tuple[str, ...]
    words: tuple[str, ...]
    counts: tuple[int, ...]


def pool_song(song: Song, themes: Iterable[str], words: Mapping[str, int]) -> PoolSong:
    """What the pool keeps of a song with these themes and counted words."""
    told = sorted(((word, count) for word, count in words.items() if is_telling(word)), key=_by_count)
    kept = [(sys.intern(word), count) for word, count in told[:MAX_WORDS_KEPT]]
    return PoolSong(
        priority=int.from_bytes(hashlib.blake2b(song.id.encode(), digest_size=8).digest()),
        id=song.id,
        title=song.title or "",
        artist=song.artist or "",
        decade=song.decade or "",
        themes=tuple(themes),
        words=tuple(word for word, _ in kept),
        counts=tuple(count for _, count in kept),
    )


def is_telling(word: str) -> bool:
    """Whether a word can tell something about a song: two letters or more, and no stop word."""
    return len(word) > 1 and word not in STOP_WORDS


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


class SimilarPool:
    """The songs of least priority among those that were added: the same ones in any order of adding and merging.

    Args:
        max_songs: Songs kept; about 2 KiB each.
    """

    def __init__(self, max_songs: int = 20_000) -> None:
        self.max_songs = max_songs
        self._songs: list[PoolSong] = []

    def add(self, song: PoolSong) -> None:
        """Add a song; one without title and artist cannot be named, and is left out."""
        if self.max_songs and (song.artist or song.title) and song.words:
            self._songs.append(song)
        if len(self._songs) > 2 * self.max_songs:
            self._songs = self.songs()

    def merge(self, other: SimilarPool) -> None:
        """Add another pool's songs."""
        for song in other.songs():
            self.add(song)

    def songs(self) -> list[PoolSong]:
        """The songs of the pool, by priority."""
        return sorted(self._songs)[: self.max_songs]

    def __getstate__(self) -> dict[str, object]:
        return {"max_songs": self.max_songs, "_songs": self.songs()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for song in self._songs:
            # One string a word, not one a song.
            object.__setattr__(song, "words", tuple(map(sys.intern, song.words)))


@dataclass(frozen=True, slots=True)
class Similar:
    """A song of the pool that is near to another.

    Attributes:
        song: The song of the pool.
        score: Cosine of the two.
        words: Words that both sing, those that weigh most first.
    """

    song: PoolSong
    score: float
    words: tuple[str, ...]


class SimilarIndex:
    """The songs of a pool, ready to be compared with.

    Args:
        songs: The pool; songs without words are never near to anything.
    """

    def __init__(self, songs: Iterable[PoolSong]) -> None:
        from sklearn.feature_extraction.text import TfidfTransformer

        self.songs = sorted(songs, key=lambda song: (song.id, song))
        seen = Counter(word for song in self.songs for word in song.words)
        most = max(_MIN_COMMON, _MAX_DOCUMENT_SHARE * len(self.songs))
        self.terms = sorted(word for word, count in seen.items() if 1 < count <= most)
        self._columns = {word: column for column, word in enumerate(self.terms)}
        counts = self._count([dict(zip(song.words, song.counts, strict=True)) for song in self.songs])
        self._weights = TfidfTransformer(norm=None, sublinear_tf=True)
        if self.terms:
            self._weights.fit(counts)
        self.vectors = self._weigh(counts)
        self._by_term = self.vectors.T.tocsr()

    def nearest(self, song: Song, words: Mapping[str, int], max_songs: int = 2) -> tuple[Similar, ...]:
        """The nearest songs to one; see `nearest_batch`."""
        return self.nearest_batch([song], [words], max_songs)[0]

    def nearest_batch(
        self, songs: Sequence[Song], words: Sequence[Mapping[str, int]], max_songs: int = 2
    ) -> list[tuple[Similar, ...]]:
        """The nearest songs to each of some, nearest first.

        None of them is the song itself, a copy of it (a cosine above `MAX_SCORE`, or the same title), or by the same
        artist as the song or as one that is nearer.

        Args:
            songs: Songs to compare, in the pool or not.
            words: What each sings: word → count.
            max_songs: Nearest songs that are wanted.
        """
        if not self.terms:
            return [() for _ in songs]
        queries = self._weigh(self._count(words))
        scores = queries @ self._by_term
        found = []
        for number, song in enumerate(songs):
            start, end = scores.indptr[number : number + 2]
            candidates = _rank(scores.indices[start:end], scores.data[start:end])
            query = _row(queries, number)
            found.append(tuple(self._choose(song, query, candidates, max_songs)))
        return found

    def _choose(
        self, song: Song, query: Vector, candidates: Iterable[tuple[int, float]], max_songs: int
    ) -> list[Similar]:
        chosen: list[Similar] = []
        artists, titles = {_fold(song.artist)} - {""}, {_fold(song.title)} - {""}
        for column, score in candidates:
            other = self.songs[column]
            if other.id == song.id or _fold(other.artist) in artists or _fold(other.title) in titles:
                continue
            words = self._shared(query, _row(self.vectors, column))
            if len(words) < MIN_SHARED_WORDS:
                continue
            chosen.append(Similar(other, score, words))
            if len(chosen) == max_songs:
                break
            artists |= {_fold(other.artist)} - {""}
        return chosen

    def _shared(self, one: Vector, other: Vector) -> tuple[str, ...]:
        """Words that both vectors have, by their part in the product."""
        columns, left, right = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
        parts = np.round(one[1][left] * other[1][right], _DECIMALS)
        return tuple(self.terms[columns[i]] for i in np.lexsort((columns, -parts)))

    def _count(self, words: Sequence[Mapping[str, int]]) -> CsrMatrix:
        """A matrix of songs x terms with counts, the columns of each row in order."""
        from scipy.sparse import csr_matrix

        columns = self._columns
        rows = [
            sorted((columns[word], count) for word, count in own.items() if word in columns) for own in words
        ]
        indptr = np.cumsum([0, *map(len, rows)])
        flat = np.array([pair for row in rows for pair in row], np.int64).reshape(-1, 2)
        shape = (len(rows), len(self.terms))
        return csr_matrix((flat[:, 1].astype(np.float64), flat[:, 0].astype(np.int32), indptr), shape)

    def _weigh(self, counts: CsrMatrix) -> CsrMatrix:
        """Unit vectors of each row's `MAX_TERMS` heaviest words."""
        from sklearn.preprocessing import normalize

        if not self.terms:
            return counts
        weights = self._weights.transform(counts)
        data = np.round(weights.data, _DECIMALS)
        rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
        order = np.lexsort((weights.indices, -data, rows))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - weights.indptr[rows[order]]
        weights.data[place >= MAX_TERMS] = 0
        weights.eliminate_zeros()
        return normalize(weights, copy=False)


def _row(matrix: CsrMatrix, number: int) -> Vector:
    start, end = matrix.indptr[number : number + 2]
    return matrix.indices[start:end], matrix.data[start:end]


def _rank(columns: Columns, scores: Weights) -> list[tuple[int, float]]:
    """The best candidates, best first, equal ones by column: columns and rounded scores."""
    rounded = np.round(scores, _DECIMALS)
    near = (rounded >= MIN_SCORE) & (rounded <= MAX_SCORE)
    columns, rounded = columns[near], rounded[near]
    if len(rounded) > _NUM_CANDIDATES:
        least = np.partition(rounded, -_NUM_CANDIDATES)[-_NUM_CANDIDATES]
        columns, rounded = columns[rounded >= least], rounded[rounded >= least]
    order = np.lexsort((columns, -rounded))
    return list(zip(columns[order].tolist(), rounded[order].tolist(), strict=True))


def _fold(name: str | None) -> str:
    return " ".join((name or "").casefold().split())
