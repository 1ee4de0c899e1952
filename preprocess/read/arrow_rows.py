"""Rows of Parquet and Arrow files (both the stream and the file format), batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.read.chunks import MAX_CHUNK_CHARS, ArrowBytes, pack_batches

_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def read_columns(path: Path) -> list[str]:
    """Names of the columns of a Parquet or Arrow file."""
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    return list(_open_arrow(path).schema.names)


def _open_arrow(path: Path) -> pa.RecordBatchStreamReader | pa.RecordBatchFileReader:
    source = pa.memory_map(str(path))
    try:
        pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source)
    # A stream that was cut between two batches reads like a shorter one: only its end mark tells.
    source.seek(source.size() - len(_STREAM_END))
    if source.read() != _STREAM_END:
        raise pa.ArrowInvalid("the stream has no end mark")
    source.seek(0)
    return pa.ipc.open_stream(source)


def read_parquet(
    path: Path, columns: list[str], rows_per_chunk: int
) -> Iterator[tuple[int, int, ArrowBytes]]:
    """Read the named columns of a Parquet file in chunks; see `chunk_batches`."""
    # With pre_buffer every row group that was read stays in memory until the file is closed.
    with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
        yield from chunk_batches(
            file.iter_batches(min(_BATCH_ROWS, rows_per_chunk), columns=columns), rows_per_chunk
        )


def read_arrow(path: Path, columns: list[str], rows_per_chunk: int) -> Iterator[tuple[int, int, ArrowBytes]]:
    """Read the named columns of an Arrow file in chunks; see `chunk_batches`."""
    reader = _open_arrow(path)
    if isinstance(reader, pa.RecordBatchFileReader):
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        batches = iter(reader)
    yield from chunk_batches((batch.select(columns) for batch in batches), rows_per_chunk)


def chunk_batches(
    batches: Iterable[pa.RecordBatch], rows_per_chunk: int
) -> Iterator[tuple[int, int, ArrowBytes]]:
    """Cut batches of any size into chunks of a fixed number of rows.

    Yields:
        The number of the first row (from 1), the number of rows, the rows.
    """
    first, num_rows, num_bytes = 1, 0, 0
    held: list[pa.RecordBatch] = []
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, min(rows_per_chunk - num_rows, _BATCH_ROWS))
            start += part.num_rows
            num_rows += part.num_rows
            num_bytes += part.nbytes
            held.append(part)
            if num_rows == rows_per_chunk or num_bytes > MAX_CHUNK_CHARS:
                yield first, num_rows, pack_batches(first, held)
                first, num_rows, num_bytes, held = first + num_rows, 0, 0, []
    if held:
        yield first, num_rows, pack_batches(first, held)
