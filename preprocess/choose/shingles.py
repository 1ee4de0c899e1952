"""Lyrics as sets of hashed shingles: runs of three sung words, or of four characters in scripts without spaces.

    "we sail away tonight"   →   {we sail away, sail away tonight}
    月落烏啼霜滿天              →   {月落烏啼, 落烏啼霜, 烏啼霜滿, 啼霜滿天}

Two versions of one song share most of their shingles, two songs next to none. Whole chunks of songs are hashed at
once, in numpy; a hash depends on the words alone, not on the process, its hash seed, or the other songs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.measure.structure import find_words, sung_lines
from preprocess.schema import BoolArray, Int64Array

Uint64Array = npt.NDArray[np.uint64]

WORDS_PER_SHINGLE = 3
CHARS_PER_SHINGLE = 4
"""Where a shingle starts with a character of a script without spaces, it has one unit more."""

_SONGS_AT_ONCE = 256
# Enough for numpy to be fast, few enough for the arrays to stay in the processor's cache.

_SPACELESS = np.array(
    [
        (0x0E00, 0x0EFF),  # Thai, Lao
        (0x1000, 0x109F),  # Burmese
        (0x1780, 0x17FF),  # Khmer
        (0x3005, 0x3007),  # 々〆〇
        (0x3040, 0x30FF),  # kana
        (0x31F0, 0x31FF),
        (0x3400, 0x4DBF),  # Han
        (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF),
        (0x20000, 0x3FFFF),
    ],
    dtype=np.uint32,
)
_FIRST_SPACELESS = int(_SPACELESS[0, 0])

_WORD_END, _SONG_END = " ", "\n"
_MULTIPLIER = 0x9E3779B97F4A7C15
_GOLDEN = np.uint64(_MULTIPLIER)


@dataclass(frozen=True, slots=True, eq=False)
class ShingleSets:
    """The shingles of some songs, one song behind the other.

    Attributes:
        hashes: uint64[T]; a song's own may repeat unless they come from `distinct`.
        starts: int64[N + 1], where each song's shingles start; every song has at least one.
    """

    hashes: Uint64Array
    starts: Int64Array

    def of(self, song: int) -> Uint64Array:
        """The shingles of one song."""
        return self.hashes[self.starts[song] : self.starts[song + 1]]

    def distinct(self) -> ShingleSets:
        """Each song's shingles once, in ascending order."""
        owner = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        order = np.lexsort((self.hashes, owner))
        hashes, owner = self.hashes[order], owner[order]
        first = np.ones(len(hashes), np.bool_)
        first[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
        counts = np.bincount(owner[first], minlength=len(self.starts) - 1)
        return ShingleSets(hashes[first], np.r_[0, np.cumsum(counts)].astype(np.int64))


def sung_words(lyrics: str) -> list[str]:
    """The words that are sung, in order; of lyrics without any word (numbers, signs) what stands between spaces."""
    return find_words("\n".join(sung_lines(lyrics))) or lyrics.split()


def hash_shingles(words: Sequence[Sequence[str]]) -> ShingleSets:
    """The shingles of N songs.

    Args:
        words: Of each song its words, see `sung_words`. Fewer than a shingle takes make one shingle.
    """
    parts = [
        _hash_batch(words[start : start + _SONGS_AT_ONCE]) for start in range(0, len(words), _SONGS_AT_ONCE)
    ]
    counts = [np.diff(part.starts) for part in parts]
    starts = np.cumsum(np.concatenate([[0], *counts]), dtype=np.int64)
    return ShingleSets(
        np.concatenate([part.hashes for part in parts]) if parts else np.zeros(0, np.uint64), starts
    )


def shingle_songs(songs: Iterable[tuple[str, str]]) -> Iterator[tuple[list[str], ShingleSets]]:
    """The ids and the distinct shingles of (id, lyrics) pairs, some hundred songs at a time."""
    ids: list[str] = []
    words: list[list[str]] = []
    for song_id, lyrics in songs:
        ids.append(song_id)
        words.append(sung_words(lyrics))
        if len(ids) == _SONGS_AT_ONCE:
            yield ids, hash_shingles(words).distinct()
            ids, words = [], []
    if ids:
        yield ids, hash_shingles(words).distinct()


def _hash_batch(words: Sequence[Sequence[str]]) -> ShingleSets:
    text = _SONG_END.join(_WORD_END.join(song) for song in words) + _SONG_END
    # Lone surrogates are no text, but a lyric that carries one must not stop the build.
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    units, owner, is_char = _hash_units(points, len(words))
    return _join_units(units, owner, is_char, len(words))


def _hash_units(points: npt.NDArray[np.uint32], num_songs: int) -> tuple[Uint64Array, Int64Array, BoolArray]:
    """Hash of every word, or character of a script without spaces, its song, and which of the two it is."""
    ends_song = points == ord(_SONG_END)
    is_gap = ends_song | (points == ord(_WORD_END))
    is_char = _is_spaceless(points)
    is_start = ~is_gap
    is_start[1:] &= is_gap[:-1] | is_char[1:] | is_char[:-1]
    starts = np.flatnonzero(is_start)
    if not len(starts):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    lengths = np.diff(np.r_[starts, len(points)])
    place = np.arange(len(points)) - np.repeat(np.r_[0, starts], np.r_[starts[0], lengths])
    # Sum of (character · multiplier^place) modulo 2^64, a polynomial hash.
    values = np.where(is_gap, 0, points).astype(np.uint64) * _powers(int(place.max()) + 1)[place]
    owner = np.cumsum(ends_song)[starts]
    return mix(np.add.reduceat(values, starts)), owner, is_char[starts]


def _is_spaceless(points: npt.NDArray[np.uint32]) -> BoolArray:
    found = np.zeros(len(points), np.bool_)
    if len(points) and points.max() >= _FIRST_SPACELESS:
        foreign = np.flatnonzero(points >= _FIRST_SPACELESS)
        place = np.searchsorted(_SPACELESS[:, 0], points[foreign], side="right") - 1
        found[foreign] = points[foreign] <= _SPACELESS[place, 1]
    return found


def _powers(num: int) -> Uint64Array:
    return np.cumprod(np.r_[np.uint64(1), np.full(num - 1, _GOLDEN)], dtype=np.uint64)


def _join_units(units: Uint64Array, owner: Int64Array, is_char: BoolArray, num_songs: int) -> ShingleSets:
    """A shingle from every unit that has enough after it in its song, and from the first unit of every song."""
    num_units = np.bincount(owner, minlength=num_songs)
    ends = np.cumsum(num_units)
    left = ends[owner] - np.arange(len(units))
    joined = np.zeros(len(units), np.uint64)
    for offset in range(CHARS_PER_SHINGLE):
        takes = left > offset
        if offset >= WORDS_PER_SHINGLE:
            takes &= is_char
        following = np.zeros(len(units), np.uint64)
        following[: max(0, len(units) - offset)] = units[offset:]
        # What came before is scrambled once more than what is added: (a, b) is not (b, a).
        joined = mix(joined + np.where(takes, following, np.uint64(0)))
    first = np.zeros(len(units), np.bool_)
    first[(ends - num_units)[num_units > 0]] = True
    whole = first | (left >= np.where(is_char, CHARS_PER_SHINGLE, WORDS_PER_SHINGLE))
    counts = np.bincount(owner[whole], minlength=num_songs)
    hashes = joined[whole]
    silent = np.flatnonzero(counts == 0)
    if len(silent):
        # Songs without a single unit: one shingle, of nothing.
        hashes = np.insert(hashes, np.cumsum(counts)[silent], 0)
        counts[silent] = 1
    return ShingleSets(hashes, np.r_[0, np.cumsum(counts)].astype(np.int64))


def mix(values: Uint64Array) -> Uint64Array:
    """Scramble 64-bit numbers one to one, so that every bit depends on every bit: the end of SplitMix64.

    Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014), with Stafford's constants.
    """
    mixed = values + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
