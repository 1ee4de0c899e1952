"""Rows made into songs: the half of the reading that the worker processes do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from preprocess.errors import DataError
from preprocess.read.chunks import BadLine, RowChunk
from preprocess.read.columns import Row, Schema, recognise_schema, song_from_row
from preprocess.read.genres import GenreTable, load_genres
from preprocess.read.rejections import Rejection, reject
from preprocess.read.values import BadRow
from preprocess.schema import Song


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How songs are read. It can be sent to other processes.

    Attributes:
        columns: Fact → column, as `preprocess.read.columns.parse_columns` gives it.
        genres: What the words for genres stand for.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    genres: GenreTable = field(default_factory=load_genres)


def songs_of_chunk(chunk: RowChunk, options: ReadOptions) -> Iterator[Song | Rejection]:
    """Make songs of a chunk's rows, in their order; a row that is none gives a rejection, an empty line nothing."""
    schemas = RowSchemas(chunk, options.columns)
    for line, row in chunk.rows.unpack():
        try:
            if isinstance(row, BadLine):
                raise BadRow(row.reason)
            yield song_from_row(row, schemas.find(row), chunk.source, options.genres)
        except BadRow as bad:
            yield reject(chunk.source, line, str(bad), row)


class RowSchemas:
    """What the columns of a chunk's rows mean: those of its source, or of a row of JSON with keys of its own."""

    def __init__(self, chunk: RowChunk, named: Mapping[str, str], *, needs_lyrics: bool = True) -> None:
        self._schema = chunk.schema
        self._keys_vary = chunk.keys_vary
        self._named = named
        self._needs_lyrics = needs_lyrics
        self._by_keys: dict[tuple[str, ...], Schema | None] = {}

    def find(self, row: Row) -> Schema:
        """What the row's columns mean.

        Raises:
            BadRow: They are not understood.
        """
        if not self._keys_vary:
            return self._schema
        keys = tuple(row)
        if keys not in self._by_keys:
            self._by_keys[keys] = self._recognise(keys)
        schema = self._by_keys[keys]
        if schema is None:
            raise BadRow("columns not recognised")
        return schema

    def _recognise(self, keys: tuple[str, ...]) -> Schema | None:
        # A row may leave out what it does not know, so not every named column is in every row.
        named = {fact: column for fact, column in self._named.items() if not column or column in keys}
        left_out = {fact: "" for fact in self._named if fact not in named}
        try:
            return recognise_schema(keys, {**named, **left_out}, needs_lyrics=self._needs_lyrics)
        except DataError:
            carriers = (self._schema.columns.get(fact) for fact in ("lyrics", "synced_lyrics"))
            return self._schema if any(column in keys for column in carriers if column) else None
