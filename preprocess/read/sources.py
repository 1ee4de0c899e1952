"""Sources of songs: files and data sets whose columns have been recognised, read in chunks of rows."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from preprocess.errors import DataError
from preprocess.read.arrow_rows import read_arrow, read_columns, read_parquet
from preprocess.read.chunks import ArrowBytes, BadLine, Cells, JsonObjects, JsonText, RowChunk
from preprocess.read.columns import Schema, recognise_schema
from preprocess.read.csv_rows import read_cells, read_header
from preprocess.read.files import TABLE_SUFFIXES, find_files, find_format, hash_file, is_hub_id
from preprocess.read.hub import HubSet, explain_failure, open_hub
from preprocess.read.json_rows import holds_lines, read_json_array, read_json_lines
from preprocess.read.rows import ReadOptions
from preprocess.read.text_files import open_text
from preprocess.read.values import BadRow, check_unicode

_DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|"}
"""Delimiters to try, the likeliest first."""

_NUM_ROWS_LOOKED_AT = 100
"""Rows of JSON whose keys are looked at before the file is read."""

_Pieces = Iterator[tuple[int, int, JsonText | JsonObjects | Cells | ArrowBytes]]


@dataclass(frozen=True, slots=True)
class Source:
    """A file or data set whose columns are understood.

    Attributes:
        name: Path, or hub id, as given.
        format: ".csv", ".jsonl", ".json", ".parquet", ".arrow" or "hub".
        schema: What its columns mean.
        delimiter: Of a CSV file.
        hub: The data set, when it is one of the hub.
    """

    name: str
    format: str
    schema: Schema
    delimiter: str = ","
    hub: HubSet | None = None

    @property
    def description(self) -> str:
        """One line for the terminal."""
        return f"{self.name}: {self.schema.description}"

    def fingerprint(self) -> str:
        """Hex digits that change with the content: a hash of the file's bytes, or of the data set's commit."""
        if self.hub is not None:
            return hashlib.sha256(self.hub.fingerprint.encode()).hexdigest()
        return hash_file(Path(self.name))


def fingerprint(path: str | Path) -> str:
    """Hex digits that change with a file's content, or with a hub data set's commit."""
    if is_hub_id(path):
        return hashlib.sha256(open_hub(str(path)).fingerprint.encode()).hexdigest()
    return hash_file(Path(path))


def open_sources(
    paths: Iterable[str | Path], options: ReadOptions | None = None, *, needs_lyrics: bool = True
) -> list[Source]:
    """Find files and data sets and recognise their columns; only their first rows are read.

    Args:
        paths: Files, folders (searched through, in sorted order), glob patterns, hub ids (hub:owner/name, with
            @revision and #config where wanted).
        options: How to read.
        needs_lyrics: False for tables of facts about songs.

    Raises:
        DataError: A path matches nothing, or a file has an unknown format or unknown columns, is empty or damaged.
    """
    named = (options or ReadOptions()).columns
    sources = []
    for path in paths:
        if is_hub_id(path):
            hub = open_hub(str(path))
            sources.append(
                Source(str(path), "hub", _recognise(str(path), hub.columns, named, needs_lyrics), hub=hub)
            )
        else:
            with _told_as_damage(str(path)):
                files = find_files([path])
            sources += [_open_file(file, named, needs_lyrics) for file in files]
    return sources


def read_chunks(source: Source, rows_per_chunk: int) -> Iterator[RowChunk]:
    """Cut a source into chunks of rows; one is held in memory at a time.

    Raises:
        DataError: The source is damaged, or has no rows.
    """
    assert rows_per_chunk > 0
    number = 0
    with _told_as_damage(source.name):
        for first, num_rows, rows in _read_pieces(source, rows_per_chunk):
            yield RowChunk(source.name, number, first, num_rows, source.schema, rows)
            number += 1
    if number == 0:
        raise DataError(f"{source.name} has no rows. Give a file with songs.")


def _read_pieces(source: Source, rows_per_chunk: int) -> _Pieces:
    columns = list(source.schema.columns.values())
    path = Path(source.name)
    if source.hub is not None:
        yield from _read_hub(source.hub, source.name, columns, rows_per_chunk)
    elif source.format == ".parquet":
        yield from read_parquet(path, columns, rows_per_chunk)
    elif source.format == ".arrow":
        yield from read_arrow(path, columns, rows_per_chunk)
    else:
        with open_text(path) as file:
            if source.format == ".csv":
                yield from read_cells(file, source.delimiter, rows_per_chunk)
            elif source.format == ".jsonl":
                yield from read_json_lines(file, rows_per_chunk)
            else:
                yield from read_json_array(path, file, rows_per_chunk)


def _read_hub(hub: HubSet, name: str, columns: list[str], rows_per_chunk: int) -> _Pieces:
    try:
        yield from hub.read(columns, rows_per_chunk)
    except Exception as error:  # the network's and the library's errors are of many kinds
        raise explain_failure(name, error) from error


@contextmanager
def _told_as_damage(name: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}. Ask for the right to read it.") from error
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{name} cannot be read: {str(error) or type(error).__name__}. The file is damaged, incomplete or "
            "not what its name says; fetch it again."
        ) from error


def _open_file(path: Path, named: Mapping[str, str], needs_lyrics: bool) -> Source:
    suffix = find_format(path)
    assert suffix is not None
    with _told_as_damage(str(path)):
        if suffix in TABLE_SUFFIXES:
            return Source(str(path), suffix, _recognise(str(path), read_columns(path), named, needs_lyrics))
        if suffix in _DELIMITERS:
            return _open_csv(path, _DELIMITERS[suffix], named, needs_lyrics)
        return _open_json(path, named, needs_lyrics, is_lines=suffix != ".json" or holds_lines(path))


def _open_csv(path: Path, delimiters: str, named: Mapping[str, str], needs_lyrics: bool) -> Source:
    failure: DataError | None = None
    for delimiter in delimiters:
        try:
            with open_text(path) as file:
                header = read_header(file, delimiter)
        except BadRow as bad:
            raise DataError(f"{path}: {bad}. Mend the file's first line.") from None
        if not header:
            break
        try:
            return Source(str(path), ".csv", _recognise(str(path), header, named, needs_lyrics), delimiter)
        except DataError as error:
            failure = failure or error
    raise failure or DataError(
        f"{path} has no rows. Give a file with songs, its first row the names of the columns."
    )


def _open_json(path: Path, named: Mapping[str, str], needs_lyrics: bool, *, is_lines: bool) -> Source:
    kind = ".jsonl" if is_lines else ".json"
    keys: dict[str, None] = {}
    reasons: dict[str, int] = {}
    with open_text(path) as file:
        pieces = read_json_lines(file, 1) if is_lines else read_json_array(path, file, 1)
        rows = (row for _, _, piece in pieces for _, row in piece.unpack())
        for row in islice(rows, _NUM_ROWS_LOOKED_AT):
            if isinstance(row, BadLine):
                reasons[row.reason] = reasons.get(row.reason, 0) + 1
            else:
                keys.update(dict.fromkeys(row))
    if keys:
        return Source(str(path), kind, _recognise(str(path), list(keys), named, needs_lyrics))
    if reasons:
        told = ", ".join(f"{reason} ({count:,} rows)" for reason, count in reasons.items())
        raise DataError(
            f'{path}: none of its first rows is an object of JSON: {told}. Expected {{"lyrics": …}} a line.'
        )
    raise DataError(f"{path} has no rows. Give a file with songs.")


def _recognise(name: str, columns: list[str], named: Mapping[str, str], needs_lyrics: bool) -> Schema:
    try:
        for column in columns:
            check_unicode(column)
        return recognise_schema(columns, named, needs_lyrics=needs_lyrics)
    except BadRow:
        raise DataError(f"{name}: the header is not UTF-8. Convert the file to UTF-8.") from None
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
