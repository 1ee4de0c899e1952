"""What a collection of songs is like: counts, lengths, genres, decades, artists, duplicates, what is missing.

Songs are added one by one. Memory grows with the number of artists, and by 16 bytes a song for the hashes by which
duplicates are found; the songs are not kept.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from preprocess.clean.lyrics import lyrics_hash
from preprocess.schema import Song

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
"""Percentiles of the length that a report gives."""

_FACTS = ("title", "artist", "genre", "year", "album", "themes")
_NUM_TOP = 10
_MAX_REASONS = 100
_MAX_ROWS = 15


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
class QualityReport:
    """Counts over songs, kept up to date while songs are added.

    Attributes:
        num_songs: Songs added with `add`.
        rejected: Reason → rows that were no song.
        dropped: Reason → songs that cleaning dropped.
        lengths: Length of lyrics in characters → songs.
        genres: Genre → songs ("" for none).
        decades: Decade → songs ("" for none).
        artists: Artist as spelt → songs; unknown artists are not counted.
        missing: Fact → songs that lack it.
    """

    num_songs: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    genres: Counter[str] = field(default_factory=Counter)
    decades: Counter[str] = field(default_factory=Counter)
    artists: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    _lyrics: array[int] = field(default_factory=lambda: array("Q"), repr=False)
    _singers: array[int] = field(default_factory=lambda: array("Q"), repr=False)

    def add(self, song: Song) -> None:
        """Count a song."""
        self.num_songs += 1
        self.lengths[len(song.lyrics)] += 1
        self.genres[song.genre or ""] += 1
        self.decades[song.decade or ""] += 1
        if song.artist:
            self.artists[song.artist] += 1
        for fact in _FACTS:
            if not getattr(song, fact):
                self.missing[fact] += 1
        self._lyrics.append(lyrics_hash(song.lyrics))
        self._singers.append(_hash(song.artist.casefold()) if song.artist else 0)

    def reject(self, source: str, line: int, reason: str) -> None:
        """Count a row that was no song; fits `preprocess.read.songs.read_songs(on_reject=…)`."""
        self._count(self.rejected, reason)

    def drop(self, reason: str) -> None:
        """Count a song that cleaning dropped."""
        self._count(self.dropped, reason)

    @staticmethod
    def _count(reasons: Counter[str], reason: str) -> None:
        # Reasons may carry numbers of the row ("3 fields instead of 8"): bound how many are told apart.
        reasons[reason if reason in reasons or len(reasons) < _MAX_REASONS else "other"] += 1

    def count_duplicates(self) -> tuple[int, int]:
        """Songs whose lyrics an earlier song had, and lyrics that stand under several known artists.

        Lyrics are compared by `preprocess.clean.lyrics.lyrics_hash`.
        """
        lyrics, singers = np.asarray(self._lyrics), np.asarray(self._singers)
        num_duplicates = len(lyrics) - len(np.unique(lyrics))
        known = singers != 0
        pairs = np.unique(np.stack([lyrics[known], singers[known]]), axis=1)
        _, num_singers = np.unique(pairs[0], return_counts=True)
        return num_duplicates, int((num_singers > 1).sum())

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, most frequent first."""
        num_duplicates, num_shared = self.count_duplicates()
        return {
            "num_songs": self.num_songs,
            "rejected": dict(self.rejected.most_common()),
            "dropped": dict(self.dropped.most_common()),
            "length_percentiles_chars": {f"p{p}": value for p, value in percentiles(self.lengths).items()},
            "genres": _named(self.genres),
            "decades": dict(sorted(_named(self.decades).items())),
            "artists": {
                "num": len(self.artists),
                "num_with_one_song": sum(count == 1 for count in self.artists.values()),
                "top": dict(self.artists.most_common(_NUM_TOP)),
            },
            "num_duplicates": num_duplicates,
            "num_lyrics_under_several_artists": num_shared,
            "missing": {fact: self.missing[fact] for fact in _FACTS},
        }


def _named(counts: Counter[str]) -> dict[str, int]:
    return {name or "(none)": count for name, count in counts.most_common()}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) or 1


def measure_quality(songs: Iterable[Song]) -> QualityReport:
    """Report on songs that are already read and cleaned."""
    report = QualityReport()
    for song in songs:
        report.add(song)
    return report


def print_quality(report: QualityReport, console: Console) -> None:
    """Print a report as tables: one of totals, one each of genres, decades and artists."""
    told = report.to_json()
    artists = told["artists"]
    console.print(_totals(told))
    for name, counts in (("genre", told["genres"]), ("decade", told["decades"]), ("artist", artists["top"])):
        console.print(_shares(name, counts, report.num_songs))
    console.print(f"{artists['num']:,} artists, {artists['num_with_one_song']:,} of them with one song")


def _totals(told: Mapping[str, Any]) -> Table:
    table = Table(title="Songs", show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    rows: list[tuple[str, int]] = [("songs", told["num_songs"])]
    rows += [(f"rejected rows: {reason}", count) for reason, count in told["rejected"].items()]
    rows += [(f"dropped songs: {reason}", count) for reason, count in told["dropped"].items()]
    rows += [("duplicates (same words)", told["num_duplicates"])]
    rows += [("lyrics under several artists", told["num_lyrics_under_several_artists"])]
    rows += [(f"without {fact}", count) for fact, count in told["missing"].items()]
    rows += [(f"characters, {p}", value) for p, value in told["length_percentiles_chars"].items()]
    for what, count in rows:
        table.add_row(Text(what), f"{count:,}")
    return table


def _shares(name: str, counts: Mapping[str, int], whole: int) -> Table:
    table = Table()
    table.add_column(name)
    table.add_column("songs", justify="right")
    table.add_column("share", justify="right")
    shown = dict(sorted(counts.items(), key=lambda item: -item[1])[:_MAX_ROWS])
    rows = [(key, counts[key]) for key in counts if key in shown]
    if len(shown) < len(counts):
        rows.append((f"({len(counts) - len(shown):,} others)", sum(counts.values()) - sum(shown.values())))
    for key, count in rows:
        table.add_row(Text(key), f"{count:,}", f"{count / max(1, whole):.1%}")
    return table
