"""Songs on disk between the stages of a build: one Arrow file for each chunk of the input, written whole or not at all.

    WORK/scan/00003-000017.arrow     songs that cleaning kept, of chunk 17 of input 3; a JSON note in its metadata

What choosing needs is stored as columns of numbers, so that it can be read without the lyrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocess.durable import write_whole
from preprocess.outside_text import parse_json
from preprocess.schema import Int64Array, Song

_TEXTS = ("id", "lyrics", "title", "artist", "genre", "album", "language", "tag")
_NUMBER = "#"
_NOTE = b"note"
_NUM_SONGS = b"num_songs"
_SONG_FIELDS = [
    *(pa.field(name, pa.string()) for name in _TEXTS),
    pa.field("year", pa.int32()),
    pa.field("themes", pa.list_(pa.string())),
]


def write_chunk(
    path: Path, songs: Sequence[Song], numbers: Mapping[str, np.ndarray[Any, Any]], note: Mapping[str, Any]
) -> Chunk:
    """Write one chunk durably.

    Args:
        path: The file; it stands there only when it is whole.
        songs: N songs.
        numbers: Name → array of N numbers, or uint8[N, K] for a signature.
        note: JSON values kept with the chunk.

    Raises:
        NoSpaceError: The disk is full.
        DataError: The file cannot be written.
    """
    columns = [
        pa.array([getattr(song, field.name) for song in songs], field.type) for field in _SONG_FIELDS[:-1]
    ]
    columns.append(pa.array([list(song.themes) for song in songs], _SONG_FIELDS[-1].type))
    fields = list(_SONG_FIELDS)
    for name, values in numbers.items():
        column = _number_column(values)
        columns.append(column)
        fields.append(pa.field(_NUMBER + name, column.type))
    schema = pa.schema(
        fields, metadata={_NOTE: json.dumps(note).encode(), _NUM_SONGS: str(len(songs)).encode()}
    )
    _write_file(path, pa.RecordBatch.from_arrays(columns, schema=schema))
    return Chunk(path, len(songs))


def _number_column(values: np.ndarray[Any, Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _write_file(path: Path, batch: pa.RecordBatch) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with write_whole(path) as file, pa.ipc.new_file(file, batch.schema, options=options) as writer:
        writer.write_batch(batch)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk on disk.

    Attributes:
        path: The file.
        num_songs: Songs in it.
    """

    path: Path
    num_songs: int

    def note(self) -> dict[str, Any]:
        """The JSON values that were kept with it."""
        with pa.OSFile(str(self.path)) as source:
            note = pa.ipc.open_file(source).schema.metadata[_NOTE]
        value: dict[str, Any] = parse_json(note)
        return value

    def numbers(self, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Columns of numbers; the lyrics are not read."""
        batch = self._read([_NUMBER + name for name in names])
        return {name: _number_array(batch.column(_NUMBER + name)) for name in names}

    def texts(self, name: str) -> list[str | None]:
        """One column of texts."""
        values: list[str | None] = self._read([name]).column(name).to_pylist()
        return values

    def songs(self, rows: Sequence[int] | Int64Array | None = None) -> list[Song]:
        """The songs at these rows, or all of them."""
        batch = self._read([field.name for field in _SONG_FIELDS])
        if rows is not None:
            batch = batch.take(pa.array(np.asarray(rows, dtype=np.int64)))
        source = self.path.name
        return [
            Song(**{**row, "themes": tuple(row["themes"] or ()), "source": source})
            for row in batch.to_pylist()
        ]

    def _read(self, names: Sequence[str]) -> pa.RecordBatch:
        with pa.OSFile(str(self.path)) as source:
            schema = pa.ipc.open_file(source).schema
            options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in names])
            return pa.ipc.open_file(source, options=options).get_batch(0).select(list(names))


def _number_array(column: pa.Array) -> np.ndarray[Any, Any]:
    if pa.types.is_fixed_size_list(column.type):
        flat: np.ndarray[Any, Any] = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), column.type.list_size)
    values: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    return values


def open_chunk(path: Path) -> Chunk:
    """A chunk that is on disk already."""
    with pa.OSFile(str(path)) as source:
        return Chunk(path, int(pa.ipc.open_file(source).schema.metadata[_NUM_SONGS]))


@dataclass(frozen=True, slots=True, eq=False)
class Spool:
    """The songs of all chunks, in the order of the input.

    Attributes:
        chunks: In order.
        starts: int64[C + 1], index of each chunk's first song, and the number of songs.
    """

    chunks: tuple[Chunk, ...]
    starts: Int64Array

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> Spool:
        """The spool of some chunks."""
        sizes = np.array([0, *(chunk.num_songs for chunk in chunks)], dtype=np.int64)
        return cls(tuple(chunks), np.cumsum(sizes))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, indices: Int64Array) -> Iterator[tuple[Chunk, Int64Array]]:
        """Chunk by chunk the rows that ascending indices of songs stand for."""
        places = np.searchsorted(self.starts, indices, side="right") - 1
        cuts = np.flatnonzero(np.diff(places)) + 1
        for part, place in zip(
            np.split(indices, cuts), places[np.r_[0, cuts]] if len(indices) else (), strict=False
        ):
            yield self.chunks[place], part - self.starts[place]

    def songs(self, indices: Int64Array) -> Iterator[Song]:
        """The songs at ascending indices."""
        for chunk, rows in self.locate(indices):
            yield from chunk.songs(rows)

    def artists(self, indices: Int64Array) -> list[str | None]:
        """Names of the artists of songs at any indices, in their order."""
        order = np.argsort(indices, kind="stable")
        names: list[str | None] = [None] * len(indices)
        done = 0
        for chunk, rows in self.locate(indices[order]):
            known = chunk.texts("artist")
            for row in rows.tolist():
                names[order[done]] = known[row]
                done += 1
        return names
