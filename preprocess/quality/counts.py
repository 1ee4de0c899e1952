"""What can be counted of songs one by one. Parts of the input are counted apart and merged, in its order.

Memory does not grow with the number of songs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from preprocess.quality.tallies import PairTally, Reasons, Sample, Tally, shorten
from preprocess.schema import Song, Traits

FACTS = ("title", "artist", "genre", "year", "album", "themes")
"""Facts of a song that its source may lack."""

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
"""Percentiles of the length that a report gives."""

NUM_QUALITY_BINS = 20
"""Bins of the quality score, each 1 / `NUM_QUALITY_BINS` wide; 1 belongs to the last."""

MAX_LENGTH_CHARS = 50_000
"""Longer lyrics are counted as this long."""

TRUNCATED = "lyrics look cut off"

_TALLIES = ("languages", "genres", "decades", "explicit_genres")
_PAIRS = ("genre_decades", "tag_genres")
_REASONS = ("rejected", "dropped", "truncated", "suspicions", "disagreements")
_NUMBERS = ("num_songs", "num_explicit", "num_with_headings", "num_suspect")


def percentiles(counts: Mapping[int, int], wanted: Iterable[int] = PERCENTILES) -> dict[int, int]:
    """Nearest-rank percentiles of values given with their counts; empty when there are none.

    Args:
        counts: Value → how often it occurs.
        wanted: Percentiles, 0 to 100.
    """
    if not counts:
        return {}
    values = np.array(sorted(counts))
    ends = np.cumsum([counts[value] for value in values.tolist()])
    # Nearest rank: the smallest value below or at which p per cent of all values lie.
    ranks = {p: max(1, -(-int(ends[-1]) * p // 100)) for p in wanted}
    return {p: int(values[np.searchsorted(ends, rank)]) for p, rank in ranks.items()}


@dataclass(slots=True)
class QualityCounts:
    """Counts over songs and over what never became one.

    Attributes:
        num_songs: Songs added: read, cleaned and kept.
        num_explicit: Of these, how many sing words of the explicit lexicon.
        num_with_headings: How many have section headings.
        num_suspect: How many have at least one suspicion.
        lengths: Length of lyrics in characters → songs.
        qualities: Songs by quality score, `NUM_QUALITY_BINS` bins.
        missing: Fact → songs that lack it.
        languages: Code → songs ("" where nobody has looked).
        genres: Genre → songs ("" for none).
        decades: Decade → songs ("" for none).
        explicit_genres: Genre → explicit songs.
        genre_decades: Genre and decade → songs.
        tag_genres: The source's own word and the genre it was read as → songs, for songs with a tag.
        rejected: Reason → rows that were no song.
        dropped: Reason → songs that cleaning dropped.
        truncated: Songs whose lyrics look cut off, under `TRUNCATED`.
        suspicions: Suspicion → songs; a song may have several.
        disagreements: Fact → songs for which a metadata file says otherwise than their row.
    """

    num_songs: int = 0
    num_explicit: int = 0
    num_with_headings: int = 0
    num_suspect: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    qualities: list[int] = field(default_factory=lambda: [0] * NUM_QUALITY_BINS)
    missing: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FACTS, 0))
    languages: Tally = field(default_factory=Tally)
    genres: Tally = field(default_factory=Tally)
    decades: Tally = field(default_factory=Tally)
    explicit_genres: Tally = field(default_factory=Tally)
    genre_decades: PairTally = field(default_factory=PairTally)
    tag_genres: PairTally = field(default_factory=PairTally)
    rejected: Reasons = field(default_factory=Reasons)
    dropped: Reasons = field(default_factory=Reasons)
    truncated: Reasons = field(default_factory=Reasons)
    suspicions: Reasons = field(default_factory=Reasons)
    disagreements: Reasons = field(default_factory=Reasons)

    def add(self, song: Song, traits: Traits) -> None:
        """Count a song that is kept."""
        genre, decade, lyrics = song.genre or "", song.decade or "", song.lyrics
        self.num_songs += 1
        length = min(len(lyrics), MAX_LENGTH_CHARS)
        self.lengths[length] = self.lengths.get(length, 0) + 1
        self.qualities[min(int(traits.quality * NUM_QUALITY_BINS), NUM_QUALITY_BINS - 1)] += 1
        self.num_with_headings += lyrics.startswith("[") or "\n[" in lyrics
        self.languages.add(song.language or "")
        self.genres.add(genre)
        self.decades.add(decade)
        self.genre_decades.add(genre, decade)
        if song.tag:
            self.tag_genres.add(song.tag, genre)
        for fact in FACTS:
            if not getattr(song, fact):
                self.missing[fact] += 1
        self._judge(song, genre, traits)

    def _judge(self, song: Song, genre: str, traits: Traits) -> None:
        if traits.is_explicit:
            self.num_explicit += 1
            self.explicit_genres.add(genre)
        if traits.is_truncated:
            self.truncated.add(TRUNCATED, lambda: Sample.of(song))
        if traits.suspicions:
            self.num_suspect += 1
            for suspicion in traits.suspicions:
                self.suspicions.add(suspicion, lambda: Sample.of(song))

    def reject(self, source: str, line: int, reason: str, row: str = "") -> None:
        """Count a row that is no song.

        Args:
            source: Its file.
            line: Its line or row, from 1.
            reason: Why.
            row: Its text, of which the beginning is shown.
        """
        where = f"{shorten(PurePath(source).name or source)}:{line}"
        self.rejected.add(reason, lambda: Sample(None, None, shorten(row), where))

    def drop(self, song: Song, reason: str) -> None:
        """Count a song that cleaning dropped."""
        self.dropped.add(reason, lambda: Sample.of(song))

    def disagree(self, fact: str, own: object, other: object, song: Song) -> None:
        """Count a song whose row and whose metadata file contradict each other.

        Args:
            fact: The fact, as in "year".
            own: What the row says.
            other: What the metadata file says.
            song: The song.
        """
        note = f"row: {shorten(str(own))}; metadata file: {shorten(str(other))}"
        self.disagreements.add(fact, lambda: Sample.of(song, note))

    def merge(self, later: QualityCounts) -> None:
        """Add the counts of a part of the input that comes after this one's."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        for length, count in later.lengths.items():
            self.lengths[length] = self.lengths.get(length, 0) + count
        self.qualities = [ours + theirs for ours, theirs in zip(self.qualities, later.qualities, strict=True)]
        for fact in FACTS:
            self.missing[fact] += later.missing[fact]
        for name in (*_TALLIES, *_REASONS):
            getattr(self, name).merge(getattr(later, name))
        for name in _PAIRS:
            getattr(self, name).tally.merge(getattr(later, name).tally)

    def to_state(self) -> dict[str, Any]:
        """JSON values from which `from_state` makes equal counts."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "lengths": [list(self.lengths), list(self.lengths.values())],
            "qualities": list(self.qualities),
            "missing": dict(self.missing),
            **{name: getattr(self, name).to_state() for name in (*_TALLIES, *_REASONS)},
            **{name: getattr(self, name).tally.to_state() for name in _PAIRS},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> QualityCounts:
        """The counts that gave this state."""
        values: dict[str, Any] = {name: state[name] for name in _NUMBERS}
        values |= {name: Tally.from_state(state[name]) for name in _TALLIES}
        values |= {name: Reasons.from_state(state[name]) for name in _REASONS}
        values |= {name: PairTally(Tally.from_state(state[name])) for name in _PAIRS}
        lengths = dict(zip(*state["lengths"], strict=True))
        return cls(
            **values, lengths=lengths, qualities=list(state["qualities"]), missing=dict(state["missing"])
        )

    @property
    def num_rejected(self) -> int:
        """Rows that were no song."""
        return self.rejected.tally.total

    @property
    def num_dropped(self) -> int:
        """Songs that cleaning dropped."""
        return self.dropped.tally.total

    @property
    def num_rows(self) -> int:
        """Rows of the input."""
        return self.num_songs + self.num_rejected + self.num_dropped

    @property
    def num_truncated(self) -> int:
        """Songs whose lyrics look cut off."""
        return self.truncated.tally.total
