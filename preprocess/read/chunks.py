"""Rows on their way from the process that reads to the processes that work: a fixed number of them at a time.

The reading process does as little as it can: it hands on JSON as text and Arrow as bytes, and only CSV as cells (where
a row ends cannot be told without parsing it). What is read, and in which chunk, depends on the file alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from preprocess.read.columns import Row, Schema
from preprocess.read.values import BadRow, check_unicode

MAX_CHUNK_CHARS = 64_000_000
"""A chunk ends early where its text is longer: rows of a megabyte must not add up."""

MAX_SHOWN_CHARS = 2000
"""Characters of a rejected row that are kept."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A row that could not be read: the reason, and how it begins."""

    reason: str
    raw: str


Rows = Iterator[tuple[int, Row | BadLine]]
"""Line (text files) or row number, from 1, and the row."""


@dataclass(frozen=True, slots=True)
class JsonText:
    """Lines of JSON, unparsed; empty ones count as lines."""

    first: int
    text: str
    too_long: tuple[int, ...] = ()

    def unpack(self) -> Rows:
        """Parse the lines."""
        lines = self.text.removesuffix("\n").split("\n")
        for number, line in enumerate(lines, self.first):
            if number in self.too_long:
                yield number, BadLine("row too long", line[:MAX_SHOWN_CHARS])
            elif line and not line.isspace():
                yield number, _parse_json(line)


def _parse_json(line: str) -> Row | BadLine:
    try:
        row = json.loads(line.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return BadLine(_why_broken(line), line[:MAX_SHOWN_CHARS])
    return row if isinstance(row, dict) else BadLine("not a JSON object", line[:MAX_SHOWN_CHARS])


def _why_broken(line: str) -> str:
    try:
        check_unicode(line)
    except BadRow as bad:
        return str(bad)
    return "broken JSON"


@dataclass(frozen=True, slots=True)
class JsonObjects:
    """Objects of a JSON array."""

    first: int
    objects: tuple[Row | BadLine, ...]

    def unpack(self) -> Rows:
        """The objects with their numbers."""
        return enumerate(self.objects, self.first)


@dataclass(frozen=True, slots=True)
class Cells:
    """Rows of a CSV file: the line where each begins, and its cells."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, list[str] | BadLine], ...]

    def unpack(self) -> Rows:
        """Each row's cells by column."""
        for line, cells in self.rows:
            yield line, cells if isinstance(cells, BadLine) else dict(zip(self.columns, cells, strict=True))


@dataclass(frozen=True, slots=True)
class ArrowBytes:
    """Rows of a table as an Arrow stream, the columns that are used."""

    first: int
    stream: bytes

    def unpack(self) -> Rows:
        """Each row's values by column."""
        number = self.first
        for batch in pa.ipc.open_stream(self.stream):
            yield from enumerate(_batch_rows(batch), number)
            number += batch.num_rows


def pack_batches(first: int, batches: list[pa.RecordBatch]) -> ArrowBytes:
    """Copy batches into bytes that can be sent; a slice takes its own rows with it, not its whole buffer."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return ArrowBytes(first, sink.getvalue().to_pybytes())


def _batch_rows(batch: pa.RecordBatch) -> Iterator[Row | BadLine]:
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        # Arrow does not look into its strings, and holds dates that Python has no value for: find them one by one.
        for index in range(batch.num_rows):
            yield _read_slowly(batch, index)


def _read_slowly(batch: pa.RecordBatch, index: int) -> Row | BadLine:
    row: dict[str, object] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except UnicodeDecodeError:
            return BadLine("invalid UTF-8", repr(row)[:MAX_SHOWN_CHARS])
        except (ValueError, OverflowError, pa.ArrowException):
            row[name] = None
    return row


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Some rows of one source.

    Attributes:
        source: Name of the file or data set.
        number: Number of the chunk within its source, from 0.
        first_row: Line (text files) or row number, from 1, of the first row.
        num_rows: Rows, bad ones included, empty lines too.
        schema: What the source's columns mean; a JSON row with other keys has its own.
        rows: The rows, packed.
    """

    source: str
    number: int
    first_row: int
    num_rows: int
    schema: Schema
    rows: JsonText | JsonObjects | Cells | ArrowBytes

    @property
    def keys_vary(self) -> bool:
        """Whether each row names its own columns."""
        return isinstance(self.rows, JsonText | JsonObjects)
