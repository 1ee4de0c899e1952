"""An index of facts about songs on disk: written from tables of any size, in bounded memory.

keys.npy   uint64[K]  sorted keys (`preprocess.read.matching.find_keys`); those whose rows disagree are left out
rows.npy   uint32[K]  row of facts.arrow; a key that several rows share stands there several times
facts.arrow           title, artist, album, genre, tag, year and the source's number, one row a song
index.json            names of the sources, and counts; written last
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from preprocess.errors import DataError
from preprocess.read.chunks import BadLine, RowChunk
from preprocess.read.columns import Row, Schema, song_of_facts
from preprocess.read.matching import find_keys, find_lyrics_key, normalise_name
from preprocess.read.rows import ReadOptions, RowSchemas
from preprocess.read.sources import Source, read_chunks
from preprocess.read.values import BadRow, read_lyrics
from preprocess.schema import Song

FACTS = ("title", "artist", "album", "genre", "year")
"""Facts that a table can tell of a song."""

FACTS_SCHEMA = pa.schema(
    {
        "title": pa.string(),
        "artist": pa.string(),
        "album": pa.string(),
        "genre": pa.string(),
        "year": pa.int16(),
        "tag": pa.string(),
        "source": pa.uint16(),
    }
)

ROWS_PER_BATCH = 2000

UInt64Array = npt.NDArray[np.uint64]
UInt32Array = npt.NDArray[np.uint32]

Run = Callable[[Callable[[RowChunk], "FactRows"], Iterable[RowChunk]], Iterable["FactRows"]]
"""Does work on each chunk and gives the results in order, like `map`; it may use other processes."""


@dataclass(frozen=True, slots=True)
class FactRows:
    """The facts of one chunk.

    Attributes:
        facts: One row a song that can be known again, without its source.
        keys: uint64[K].
        rows: uint32[K], the row of `facts` that each key stands for.
        marks: uint32[rows, facts]: equal facts have equal marks; 0 is a fact that is not given.
        num_rejected: Rows of the chunk that tell nothing.
    """

    facts: dict[str, list[Any]]
    keys: UInt64Array
    rows: UInt32Array
    marks: UInt32Array
    num_rejected: int


@dataclass(frozen=True, slots=True)
class IndexCounts:
    """What went into an index.

    Attributes:
        num_rows: Songs with facts.
        num_rejected: Rows that tell nothing of a song, or do not say of which.
        num_keys: Different keys, ambiguous ones included.
        num_ambiguous: Keys whose rows disagree; they fill nothing.
        has_lyrics: Whether any song can be found by its lyrics.
    """

    num_rows: int
    num_rejected: int
    num_keys: int
    num_ambiguous: int
    has_lyrics: bool


def write_index(sources: Sequence[Source], folder: Path, options: ReadOptions, run: Run = map) -> IndexCounts:
    """Read tables of facts and write their index; see the module's drawing.

    Args:
        sources: Tables, opened with `needs_lyrics=False`.
        folder: Where the index goes.
        options: How to read them.
        run: How to do the work on the chunks.

    Raises:
        DataError: No row tells anything of a song that can be known again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    keys, rows, marks = list[UInt64Array](), list[UInt32Array](), list[UInt32Array]()
    num_rows = num_rejected = 0
    with pa.ipc.new_file(folder / "facts.arrow", FACTS_SCHEMA) as writer:
        for number, found in _run_all(sources, options, run):
            size = len(found.marks)
            writer.write_batch(pa.record_batch({**found.facts, "source": [number] * size}, FACTS_SCHEMA))
            keys.append(found.keys)
            rows.append(found.rows + np.uint32(num_rows))
            marks.append(found.marks)
            num_rows += size
            num_rejected += found.num_rejected
    if not num_rows:
        names = ", ".join(source.name for source in sources)
        raise DataError(
            f"{names}: no row tells anything of a song that is named by title and artist, or by lyrics."
        )
    has_lyrics = any(source.schema.columns.keys() & {"lyrics", "synced_lyrics"} for source in sources)
    counts = _write_keys(folder, np.concatenate(keys), np.concatenate(rows), np.concatenate(marks))
    result = IndexCounts(num_rows, num_rejected, *counts, has_lyrics)
    content = {"sources": [source.name for source in sources], **asdict(result)}
    (folder / "index.json").write_text(json.dumps(content, ensure_ascii=True), encoding="utf-8")
    return result


def _run_all(sources: Sequence[Source], options: ReadOptions, run: Run) -> Iterator[tuple[int, FactRows]]:
    for number, source in enumerate(sources):
        chunks = read_chunks(source, ROWS_PER_BATCH)
        for found in run(partial(read_facts, options), chunks):
            yield number, found


def _write_keys(folder: Path, keys: UInt64Array, rows: UInt32Array, marks: UInt32Array) -> tuple[int, int]:
    """Sort the keys, leave out the ambiguous ones; gives the number of keys and of ambiguous ones."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] + np.uint64(1)))
    is_ambiguous = np.zeros(len(starts), np.bool_)
    for fact in range(marks.shape[1]):
        column = marks[rows, fact]
        largest = np.maximum.reduceat(column, starts)
        smallest = np.minimum.reduceat(np.where(column == 0, np.uint32(2**32 - 1), column), starts)
        is_ambiguous |= (largest != 0) & (largest != smallest)
    kept = np.repeat(~is_ambiguous, np.diff(starts, append=len(keys)))
    np.save(folder / "keys.npy", keys[kept])
    np.save(folder / "rows.npy", rows[kept])
    return len(starts), int(is_ambiguous.sum())


def read_facts(options: ReadOptions, chunk: RowChunk) -> FactRows:
    """The facts of a chunk's rows, and the keys under which their songs are found."""
    schemas = RowSchemas(chunk, options.columns, needs_lyrics=False)
    facts: dict[str, list[Any]] = {name: [] for name in FACTS_SCHEMA.names if name != "source"}
    keys, rows, marks = list[int](), list[int](), list[list[int]]()
    num_rejected = 0
    for _, row in chunk.rows.unpack():
        found = None if isinstance(row, BadLine) else _read_song(row, schemas, options)
        if found is None:
            num_rejected += 1
            continue
        song, song_keys = found
        keys += song_keys
        rows += [len(marks)] * len(song_keys)
        marks.append([mark_fact(fact, getattr(song, fact)) for fact in FACTS])
        for name, values in facts.items():
            values.append(getattr(song, name))
    shape = (len(marks), len(FACTS))
    return FactRows(
        facts,
        np.array(keys, np.uint64),
        np.array(rows, np.uint32),
        np.array(marks, np.uint32).reshape(shape),
        num_rejected,
    )


def _read_song(row: Row, schemas: RowSchemas, options: ReadOptions) -> tuple[Song, list[int]] | None:
    """A song and its keys, or None for a row that says nothing, or not of which song."""
    try:
        schema = schemas.find(row)
        facts = {fact: row.get(column) for fact, column in schema.columns.items()}
        lyrics = _find_lyrics(facts, schema)
        song = song_of_facts(facts, lyrics or "", "", options.genres)
    except BadRow:
        return None
    keys = find_keys(song.title, song.artist, None if lyrics is None else find_lyrics_key(lyrics))
    told = [fact for fact in FACTS if getattr(song, fact) is not None]
    is_new = bool(told) if lyrics is not None else len(told) > len(("title", "artist"))
    return (song, keys) if keys and is_new else None


def _find_lyrics(facts: dict[str, object], schema: Schema) -> str | None:
    if not schema.columns.keys() & {"lyrics", "synced_lyrics"}:
        return None
    try:
        return read_lyrics(facts.get("lyrics"), facts.get("synced_lyrics"))
    except BadRow:
        return None


def mark_fact(fact: str, value: str | int | None) -> int:
    """32 bits that are equal for equal facts, whatever their spelling; 0 for None."""
    if value is None:
        return 0
    text = normalise_name(value) if isinstance(value, str) and fact != "genre" else str(value)
    return max(1, min(zlib.crc32(text.encode()), 2**32 - 2))
