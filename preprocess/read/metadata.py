"""Facts from a second table: what a song lacks is filled in, what differs is reported, nothing is overwritten."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocess.errors import DataError
from preprocess.outside_text import parse_json
from preprocess.read.fact_index import (
    FACTS,
    IndexCounts,
    Run,
    UInt32Array,
    UInt64Array,
    mark_fact,
    write_index,
)
from preprocess.read.matching import find_keys, find_lyrics_key
from preprocess.read.rows import ReadOptions
from preprocess.read.sources import Source
from preprocess.schema import Song

__all__ = ["Disagreement", "IndexCounts", "MetadataIndex", "build_metadata_index"]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A fact that two tables tell differently.

    Attributes:
        fact: "title", "artist", "album", "genre" or "year".
        own: What the song's own source says.
        other: What the other table says.
        source: Name of the other table.
    """

    fact: str
    own: str
    other: str
    source: str


def build_metadata_index(
    sources: Sequence[Source], folder: Path, options: ReadOptions | None = None, *, run: Run = map
) -> MetadataIndex:
    """Write an index of the facts in some tables, and open it.

    Args:
        sources: Tables, opened by `preprocess.read.sources.open_sources` with `needs_lyrics=False`.
        folder: Where the index goes; what it held before is replaced.
        options: How to read the tables; None for the defaults.
        run: `map`, or a function like it that shares the work out; its results must keep the order.

    Raises:
        DataError: A table cannot be read, or none of its rows tells anything.
    """
    write_index(sources, folder, options or ReadOptions(), run)
    return MetadataIndex.open(folder)


class MetadataIndex:
    """An index that `build_metadata_index` wrote, mapped into memory."""

    def __init__(
        self, keys: UInt64Array, rows: UInt32Array, facts: pa.Table, sources: list[str], counts: IndexCounts
    ) -> None:
        self.counts = counts
        self._keys = keys
        self._rows = rows
        self._sources = sources
        self._columns = {name: facts.column(name).chunks for name in facts.column_names}
        sizes = [len(chunk) for chunk in self._columns["title"]]
        self._starts = list(accumulate(sizes, initial=0))

    @classmethod
    def open(cls, folder: Path) -> MetadataIndex:
        """Open an index; its pages are shared by all processes that do.

        Raises:
            DataError: It is missing or incomplete.
        """
        try:
            content = parse_json((folder / "index.json").read_text(encoding="utf-8"))
            sources = content.pop("sources")
            keys = np.load(folder / "keys.npy", mmap_mode="r")
            rows = np.load(folder / "rows.npy", mmap_mode="r")
            facts = pa.ipc.open_file(pa.memory_map(str(folder / "facts.arrow"))).read_all()
            return cls(keys, rows, facts, sources, IndexCounts(**content))
        except (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException) as error:
            raise DataError(f"{folder}: no whole index of metadata ({error}). Build it again.") from error

    def fill(self, song: Song, lyrics_key: int | None = None) -> tuple[Song, list[Disagreement]]:
        """Fill in what a song lacks.

        The song is looked up by artist and title, then by artist and lyrics, then by its lyrics alone. Lyrics that
        the table knows under another artist (a cover) fill nothing, and are reported.

        Args:
            song: A song as read.
            lyrics_key: `preprocess.clean.lyrics.lyrics_hash` of its cleaned lyrics, where that is known already.

        Returns:
            The song, and the facts of its own that the table tells differently.
        """
        rows = self._find(song, lyrics_key)
        if not len(rows):
            return song, []
        facts, source = self._merge(rows)
        if _differ("artist", song.artist, facts["artist"]):
            return song, [Disagreement("artist", str(song.artist), str(facts["artist"]), source)]
        differing = [fact for fact in FACTS if _differ(fact, getattr(song, fact), facts[fact])]
        missing = {
            fact: facts[fact] for fact in FACTS if getattr(song, fact) is None and facts[fact] is not None
        }
        if "genre" in missing and song.tag is None:
            missing["tag"] = facts["tag"]
        disagreements = [
            Disagreement(fact, str(getattr(song, fact)), str(facts[fact]), source) for fact in differing
        ]
        return (replace(song, **missing) if missing else song), disagreements

    def _find(self, song: Song, lyrics_key: int | None) -> UInt32Array:
        """Rows of the surest key that the index has."""
        for key in find_keys(song.title, song.artist, None):
            if len(rows := self._look_up(key)):
                return rows
        if self.counts.has_lyrics:
            lyrics_key = find_lyrics_key(song.lyrics) if lyrics_key is None else lyrics_key
            for key in find_keys(None, song.artist, lyrics_key):
                if len(rows := self._look_up(key)):
                    return rows
        return self._rows[:0]

    def _look_up(self, key: int) -> UInt32Array:
        number = np.uint64(key)
        begin = int(np.searchsorted(self._keys, number))
        end = begin
        while end < len(self._keys) and self._keys[end] == number:
            end += 1
        return self._rows[begin:end]

    def _merge(self, rows: UInt32Array) -> tuple[dict[str, Any], str]:
        """The facts of some rows that do not disagree, each from the first row that tells it; the first's source."""
        names = (*FACTS, "tag", "source")
        told = [self._read_row(int(row)) for row in rows]
        facts = {name: next((row[name] for row in told if row[name] is not None), None) for name in names}
        return facts, self._sources[told[0]["source"]]

    def _read_row(self, row: int) -> dict[str, Any]:
        chunk = bisect_right(self._starts, row) - 1
        index = row - self._starts[chunk]
        return {name: chunks[chunk][index].as_py() for name, chunks in self._columns.items()}


def _differ(fact: str, own: str | int | None, other: str | int | None) -> bool:
    return (
        own is not None
        and other is not None
        and own != other
        and mark_fact(fact, own) != mark_fact(fact, other)
    )
