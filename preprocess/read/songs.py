"""Songs read from files: CSV, TSV, JSON lines (each also gzipped), Parquet and Arrow, one song at a time.

    paths ── find_files ── rows (line, columns → values) ── recognise_schema ── song_from_row ── Song

A bad row is reported and passed over; a file that is missing, empty, damaged or without one song is an error.
"""

from __future__ import annotations

import csv
import glob
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.errors import DataError
from preprocess.read.columns import BadRow, Row, Schema, check_unicode, recognise_schema, song_from_row
from preprocess.schema import Song

__all__ = ["Schema", "find_files", "read_songs", "recognise_schema"]

OnReject = Callable[[str, int, str], None]
"""Called with the source, the line or row number (from 1) and the reason."""

_Rows = Iterator[tuple[int, Row | BadRow]]

MAX_FIELD_CHARS = 1_000_000
"""A CSV field longer than this is a quote that was never closed; its row is rejected, the reading goes on."""

_BATCH_ROWS = 1024
_NUM_ROWS_BEFORE_GIVING_UP = 100
"""JSON rows may differ in their keys; this many unknown ones in a row at the start condemn the file."""


def read_songs(paths: Iterable[str | Path], *, on_reject: OnReject) -> Iterator[Song]:
    """Read songs, in the order of the paths, holding one row (Parquet, Arrow: one batch) in memory.

    Args:
        paths: Files, folders (searched through, in sorted order) or glob patterns.
        on_reject: Told of every row that is no song.

    Raises:
        DataError: A path matches nothing, a file has an unknown format or unknown columns, is empty or
            damaged, or none of its rows is a song.
    """
    for path in find_files(paths):
        try:
            yield from _read_file(path, on_reject)
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise DataError(
                f"{path} cannot be read: {str(error) or type(error).__name__}. The file is damaged, incomplete or "
                "not what its name says; fetch it again."
            ) from error


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """Resolve files, folders and glob patterns to files of a readable format.

    Raises:
        DataError: A path matches nothing, or a named file has a suffix that is not known.
    """
    files: list[Path] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _rows_of(file))
        elif path.is_file():
            found = [path]
        else:
            found = sorted(
                Path(match) for match in glob.glob(str(name), recursive=True) if Path(match).is_file()
            )
        if not found:
            raise DataError(
                f"{name}: no such file, or a folder without song files. Give paths to files on this machine "
                f"({_formats()}); a data set of the hub has to be downloaded first."
            )
        files += found
    for file in files:
        if _rows_of(file) is None:
            raise DataError(
                f"{file}: the format {file.suffix or '(no suffix)'!r} is not known. Known: {_formats()}."
            )
    return files


def _formats() -> str:
    return ", ".join(_READERS) + "; the text formats also with .gz"


def _rows_of(path: Path) -> Callable[[Path], _Rows] | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        reader = _READERS.get(suffixes[-2]) if len(suffixes) > 1 else None
        return reader if reader in (_csv_rows, _json_rows) else None
    return _READERS.get(suffixes[-1]) if suffixes else None


def _read_file(path: Path, on_reject: OnReject) -> Iterator[Song]:
    read_rows = _rows_of(path)
    assert read_rows is not None
    schemas: dict[tuple[str, ...], Schema | DataError] = {}
    reasons: Counter[str] = Counter()
    num_songs = 0
    for line, row in read_rows(path):
        try:
            song = song_from_row(*_with_schema(row, schemas), source=str(path))
        except BadRow as bad_row:
            reasons[str(bad_row)] += 1
            if num_songs == 0 and reasons.total() == _NUM_ROWS_BEFORE_GIVING_UP:
                _refuse_unknown_columns(path, schemas)
            on_reject(str(path), line, str(bad_row))
        else:
            num_songs += 1
            yield song
    if num_songs == 0:
        _refuse_unknown_columns(path, schemas)
        raise DataError(_no_song_message(path, reasons))


def _with_schema(row: Row | BadRow, schemas: dict[tuple[str, ...], Schema | DataError]) -> tuple[Row, Schema]:
    if isinstance(row, BadRow):
        raise row
    keys = tuple(row)
    if keys not in schemas:
        try:
            schemas[keys] = recognise_schema(keys)
        except DataError as error:
            schemas[keys] = error
    schema = schemas[keys]
    if isinstance(schema, DataError):
        raise BadRow("columns not recognised")
    return row, schema


def _refuse_unknown_columns(path: Path, schemas: dict[tuple[str, ...], Schema | DataError]) -> None:
    for schema in schemas.values():
        if not isinstance(schema, DataError):
            return
        raise DataError(f"{path}: {schema}")


def _no_song_message(path: Path, reasons: Counter[str]) -> str:
    if not reasons:
        return f"{path} has no rows. Give a file with songs."
    told = ", ".join(f"{reason} ({count:,} rows)" for reason, count in reasons.most_common(3))
    return f"{path}: none of its {reasons.total():,} rows is a song: {told}. Look at the file's first rows."


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _csv_rows(path: Path) -> _Rows:
    csv.field_size_limit(MAX_FIELD_CHARS)
    delimiter = "\t" if ".tsv" in (suffix.lower() for suffix in path.suffixes) else ","
    with _open(path) as file:
        # Bytes that are no UTF-8 come through as lone surrogates, and condemn their own row alone.
        lines = (raw.decode("utf-8", "surrogateescape") for raw in file)
        reader = csv.reader(_without_bom(lines), delimiter=delimiter)
        header = next(reader, None)
        if header is None:
            return
        _recognise(path, header)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, BadRow(f"broken CSV: {error}")
                continue
            if fields:
                yield line, _csv_row(header, fields)


def _csv_row(header: list[str], fields: list[str]) -> Row | BadRow:
    if len(fields) != len(header):
        return BadRow(f"{len(fields)} fields instead of {len(header)}")
    return dict(zip(header, fields, strict=True))


def _without_bom(lines: Iterator[str]) -> Iterator[str]:
    first = next(lines, None)
    if first is not None:
        yield first.removeprefix("\ufeff")
        yield from lines


def _json_rows(path: Path) -> _Rows:
    with _open(path) as file:
        for line, raw in enumerate(file, 1):
            stripped = raw.removeprefix(b"\xef\xbb\xbf").strip()
            if stripped:
                yield line, _json_row(stripped)


def _json_row(raw: bytes) -> Row | BadRow:
    try:
        row = json.loads(raw.decode())
    except UnicodeDecodeError:
        return BadRow("invalid UTF-8")
    except (ValueError, RecursionError):
        return BadRow("broken JSON")
    return row if isinstance(row, dict) else BadRow("not a JSON object")


def _parquet_rows(path: Path) -> _Rows:
    with pq.ParquetFile(path) as file:
        yield from _batch_rows(file.iter_batches(_BATCH_ROWS, columns=_used(path, file.schema_arrow.names)))


def _arrow_rows(path: Path) -> _Rows:
    with pa.memory_map(str(path)) as source:
        try:
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        used = _used(path, reader.schema.names)
        yield from _batch_rows(batch.select(used) for batch in batches)


def _used(path: Path, columns: list[str]) -> list[str]:
    return list(_recognise(path, columns).columns.values())


def _recognise(path: Path, columns: list[str]) -> Schema:
    try:
        for column in columns:
            check_unicode(column)
        return recognise_schema(columns)
    except BadRow:
        raise DataError(f"{path}: the header is not UTF-8. Convert the file to UTF-8.") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _batch_rows(batches: Iterable[pa.RecordBatch]) -> _Rows:
    number = 1
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(start, _BATCH_ROWS)
            yield from enumerate(_table_rows(part), number)
            number += part.num_rows


def _table_rows(batch: pa.RecordBatch) -> Iterator[Row | BadRow]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        # Arrow does not look into its strings: find the rows that are no UTF-8 one by one.
        for index in range(batch.num_rows):
            try:
                yield from batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError:
                yield BadRow("invalid UTF-8")


_READERS: dict[str, Callable[[Path], _Rows]] = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
}
