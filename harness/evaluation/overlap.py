"""The longest run of words that a generated text has in common with the training lyrics, word for word.

Words are compared without case, punctuation and accents; headings are left out on both sides; in scripts without spaces
each character with its marks is a word. The runs of all lyrics are looked up in a suffix array (Manber & Myers 1993):
every place of the lyrics, sorted by what follows it, so that one binary search tells whether a run occurs. It is exact
for runs of any length; a run never goes from one song into the next.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from harness.evaluation.scoring.words import MARKS, UNSPACED, fold, normalise
from preprocess.measure.sections import find_heading
from preprocess.schema import Int64Array

_LETTERS = rf"(?:[^\W_]|[{MARKS}])+"
_WORD = re.compile(rf"{_LETTERS}(?:'{_LETTERS})*")
_CHARACTER = re.compile(rf".(?:(?!\w)[{MARKS}])*")
_SPACES = re.compile(r"\s*\n\s*")
_BYTES = 4
_SONG_END = 0
_NOT_SUNG = 0xFFFFFFFF


MAX_SHOWN_WORDS = 25
"""Words of training lyrics that are shown of an overlap."""


def cut_words(text: str) -> str:
    """The first words of a text, with a mark where more are left out."""
    words = text.split()
    return " ".join(words[:MAX_SHOWN_WORDS]) + (" …" if len(words) > MAX_SHOWN_WORDS else "")


@dataclass(frozen=True, slots=True)
class Overlap:
    """The longest verbatim overlap.

    Attributes:
        num_words: Its length in words; 0 for none.
        text: It, as the generated text spells it; the first of several equally long ones.
        song_id: The first training song that has it; None for none.
    """

    num_words: int
    text: str
    song_id: str | None


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    start: int
    end: int


class TrainingLyrics:
    """Training lyrics, ready to be looked for in.

    Memory: 8 bytes a word, its different words, the songs' ids; some 50 bytes a word while it is built. 2**32 words at
    most.

    Args:
        texts: (song id, lyrics) of each song, read once.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._ids: list[str] = []
        self._numbers: dict[str, int] = {}
        starts, words = [0], [np.zeros(0, np.uint32)]
        for song_id, lyrics in texts:
            numbers = [self._number(word.text) for word in split_words(normalise(lyrics))]
            words.append(np.array([*numbers, _SONG_END], np.uint32))
            self._ids.append(song_id)
            starts.append(starts[-1] + len(numbers) + 1)
        lyrics_words = np.concatenate(words)
        self._starts = np.array(starts, np.int64)
        longest_song = int(np.diff(self._starts).max(initial=0))
        self._places = sort_suffixes(lyrics_words.astype(np.int64), longest_song).astype(np.uint32)
        # Big-endian, so that the order of bytes is the order of words.
        self._words = lyrics_words.astype(f">u{_BYTES}").tobytes()

    def __len__(self) -> int:
        return len(self._ids)

    def _number(self, word: str) -> int:
        return self._numbers.setdefault(word, len(self._numbers) + 1)

    def longest(self, text: str) -> Overlap:
        """The longest run of words that stands in one training song, too.

        Args:
            text: Of any length; about 3 ms for 200 words.
        """
        text = normalise(text)
        words = split_words(text)
        numbers = [self._numbers.get(word.text, _NOT_SUNG) for word in words]
        run = np.array(numbers, f">u{_BYTES}").tobytes()
        first, num_words = 0, 0
        for start in range(len(words)):
            while start + num_words < len(words) and self._occurs(_part(run, start, num_words + 1)):
                first, num_words = start, num_words + 1
        if not num_words:
            return Overlap(0, "", None)
        spelled = text[words[first].start : words[first + num_words - 1].end]
        song = self._find_song(_part(run, first, num_words))
        return Overlap(num_words, _SPACES.sub("\n", _without_headings(spelled)), song)

    def _occurs(self, run: bytes) -> bool:
        place = bisect_left(self._places, run, key=lambda place: self._at(place, len(run)))
        return place < len(self._places) and self._at(self._places[place], len(run)) == run

    def _at(self, place: int, num_bytes: int) -> bytes:
        start = int(place) * _BYTES
        return self._words[start : start + num_bytes]

    def _find_song(self, run: bytes) -> str:
        """The first song that has a run which occurs."""
        bounds = (
            side(self._places, run, key=lambda place: self._at(place, len(run)))
            for side in (bisect_left, bisect_right)
        )
        place = int(self._places[slice(*bounds)].min())
        return self._ids[int(np.searchsorted(self._starts, place, side="right")) - 1]


def _part(run: bytes, start: int, num_words: int) -> bytes:
    return run[start * _BYTES : (start + num_words) * _BYTES]


def split_words(text: str) -> list[_Word]:
    """The words of a normalised text with their places; headings are none."""
    words = []
    for match in _WORD.finditer(_without_headings(text)):
        if UNSPACED.search(match[0]):
            letters = _CHARACTER.finditer(text, *match.span())
            words += [_Word(fold(letter[0]), *letter.span()) for letter in letters]
        else:
            words.append(_Word(fold(match[0]), match.start(), match.end()))
    return words


def _without_headings(text: str) -> str:
    """The text with spaces in the place of its headings."""
    if "[" not in text:
        return text
    lines = text.split("\n")
    return "\n".join(line if find_heading(line.strip()) is None else " " * len(line) for line in lines)


def sort_suffixes(words: Int64Array, depth: int) -> Int64Array:
    """The places of a text, sorted by the words from there on: at least by the first `depth` of them.

    By doubling (Manber & Myers 1993): places sorted by k words are sorted by 2k words with the rank of the place k
    further on. Only places that still share their rank are sorted again (Larsson & Sadakane 2007).

    Args:
        words: int64[T], 0 or more.
        depth: Words that are compared; places that are equal in them come in any order that is the same every time.

    Returns:
        int64[T].
    """
    num_words = len(words)
    places = np.argsort(words, kind="stable")
    rank = _rank(words[places], np.arange(num_words), places, np.zeros(num_words + 1, np.int64))
    step = 1
    while step < depth:
        slots = np.flatnonzero(_is_shared(rank[places]))
        if not len(slots):
            break
        open_places = places[slots]
        # Beyond the end there is nothing, which comes before any word.
        further = np.where(
            open_places + step < num_words, rank[np.minimum(open_places + step, num_words)] + 1, 0
        )
        keys = rank[open_places] * (num_words + 1) + further
        order = np.argsort(keys, kind="stable")
        places[slots] = open_places[order]
        rank = _rank(keys[order], slots, open_places[order], rank)
        step *= 2
    return places


def _rank(keys: Int64Array, slots: Int64Array, places: Int64Array, rank: Int64Array) -> Int64Array:
    """The ranks, with new ones for places in sorted order: the slot of the first that has the same key."""
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = keys[1:] != keys[:-1]
    firsts = slots[is_first]
    rank = rank.copy()
    rank[places] = firsts[np.cumsum(is_first) - 1]
    return rank


def _is_shared(ranks: Int64Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of sorted ranks another place has, too."""
    same = ranks[1:] == ranks[:-1]
    shared = np.zeros(len(ranks), np.bool_)
    shared[1:] |= same
    shared[:-1] |= same
    return shared
