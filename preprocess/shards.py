"""Arrow shards on disk: written whole or not at all, opened by memory map, checked against a manifest.

A data set is a folder that `datasets.load_from_disk` opens as it is::

    DIR/manifest.json        counts, hashes, tokenizer, tasks, config; written last: a folder without it is not done
    DIR/dataset_dict.json    the splits, for `datasets`
    DIR/train/data-00000-of-00002.arrow, …, dataset_info.json, state.json
    DIR/eval/…               the same for held-out songs
    DIR/eval_songs.jsonl     the held-out songs with their facts, for `harness evaluate`
    DIR/labels.json          by task: the names in training songs with counts, and what is true of each eval song
    DIR/knowledge.jsonl      the training songs' facts and the figures that answers quote, for the truth check
    DIR/tokenizer/           the tokenizer that the ids belong to
    DIR/quality.json         what was found in the input
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocess.durable import make_folder, no_space, sha256_of, write_text_durably, write_whole
from preprocess.errors import DataError
from preprocess.forest import PackedRow
from preprocess.manifest import (
    FORMAT_VERSION,
    SIDE_FILES,
    Manifest,
    ShardInfo,
    SplitInfo,
    check_hashes,
    read_manifest,
    write_manifest,
)
from preprocess.row_batch import SCHEMA, RowBatch, join
from preprocess.schema import Int64Array
from preprocess.split_counts import SplitCounter

__all__ = [
    "FORMAT_VERSION",
    "SCHEMA",
    "SIDE_FILES",
    "Manifest",
    "ShardInfo",
    "ShardedRows",
    "SplitInfo",
    "check_hashes",
    "make_folder",
    "no_space",
    "open_split",
    "read_manifest",
    "sha256_of",
    "write_manifest",
    "write_split",
    "write_text_durably",
]

ROWS_PER_BATCH = 256


def write_split(
    folder: Path,
    rows: Iterable[PackedRow | RowBatch],
    tasks: Sequence[str],
    rows_per_shard: int,
    num_rows: int | None = None,
) -> SplitInfo:
    """Write one split's shards, and the two files that `datasets.load_from_disk` needs.

    The rows stream through; the bytes are the same however they come.

    Args:
        folder: Of the split.
        rows: One by one, or in batches.
        tasks: Names of the tasks.
        rows_per_shard: Rows in a shard; the last one may hold fewer.
        num_rows: How many rows there are, which the shards' names tell. None: `rows` is a sequence of rows.

    Raises:
        NoSpaceError: The disk is full.
        DataError: The folder cannot be written to.
        ValueError: There are not `num_rows` rows.
    """
    if num_rows is None:
        if not isinstance(rows, Sequence):
            raise ValueError("num_rows is needed where the rows are no sequence")
        num_rows = len(rows)
    make_folder(folder)
    num_shards = max(1, -(-num_rows // rows_per_shard))
    counter = SplitCounter(tasks)
    stream = _RowStream(rows)
    shards = []
    for i in range(num_shards):
        path = folder / f"data-{i:05d}-of-{num_shards:05d}.arrow"
        shards.append(_write_shard(path, stream, min(rows_per_shard, num_rows - i * rows_per_shard), counter))
    if stream.take(1):
        raise ValueError(f"more than the {num_rows} rows that were announced")
    _write_datasets_files(folder, shards)
    return counter.info(shards)


def _write_shard(path: Path, stream: _RowStream, num_rows: int, counter: SplitCounter) -> ShardInfo:
    with write_whole(path) as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        for start in range(0, num_rows, ROWS_PER_BATCH):
            wanted = min(ROWS_PER_BATCH, num_rows - start)
            batch = stream.take(wanted)
            if batch is None or len(batch) < wanted:
                raise ValueError(
                    f"the rows end {wanted - len(batch or ())} short of row {start + wanted} of {path}"
                )
            counter.add(batch)
            writer.write_batch(batch.to_arrow())
    return ShardInfo(path.name, num_rows, file.num_bytes, file.sha256)


class _RowStream:
    """Rows that come one by one or in batches, taken in batches of any size."""

    def __init__(self, rows: Iterable[PackedRow | RowBatch]) -> None:
        self._rows = iter(rows)
        self._rest: RowBatch | None = None

    def take(self, num_rows: int) -> RowBatch | None:
        """The next rows: as many as are wanted or left, None where none is left."""
        parts: list[RowBatch] = []
        missing = num_rows
        while missing:
            batch = self._next(missing)
            if batch is None:
                break
            number = min(len(batch), missing)
            parts.append(batch.part(0, number))
            self._rest = batch.part(number, len(batch)) if number < len(batch) else None
            missing -= number
        return join(parts) if parts else None

    def _next(self, at_most: int) -> RowBatch | None:
        """What is left of the last batch, or the next one; of single rows, not more than are wanted."""
        if self._rest is not None:
            return self._rest
        singles: list[PackedRow] = []
        for item in self._rows:
            if isinstance(item, RowBatch):
                if len(item):
                    return join([RowBatch.of(singles), item]) if singles else item
                continue
            singles.append(item)
            if len(singles) == at_most:
                break
        return RowBatch.of(singles) if singles else None


def _write_datasets_files(folder: Path, shards: Sequence[ShardInfo]) -> None:
    features = {
        name: {
            "feature": {
                "dtype": str(field.type.value_type),
                "_type": "Value",
            },
            "_type": "List",
        }
        for name, field in zip(SCHEMA.names, SCHEMA, strict=True)
    }
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    state: dict[str, Any] = {
        "_data_files": [{"filename": shard.file} for shard in shards],
        "_fingerprint": hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": folder.name,
    }
    write_text_durably(folder / "dataset_info.json", json.dumps(info, indent=2))
    write_text_durably(folder / "state.json", json.dumps(state, indent=2))


class ShardedRows(Sequence[PackedRow]):
    """The rows of one split, memory-mapped: opening is instant and a row costs microseconds."""

    def __init__(self, folder: Path, info: SplitInfo) -> None:
        tables = [_open_shard(folder / shard.file, shard.num_rows) for shard in info.shards]
        self._table = pa.concat_tables(tables)
        self._columns = [self._table.column(name) for name in SCHEMA.names]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> PackedRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[PackedRow]: ...

    def __getitem__(self, index: int | slice) -> PackedRow | list[PackedRow]:
        if isinstance(index, slice):
            return [self._row(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._row(index % len(self))

    def _row(self, index: int) -> PackedRow:
        values = [column[index].values for column in self._columns]
        ids, mask, seq_lens, parents, tasks = (value.to_numpy(zero_copy_only=False) for value in values[:5])
        return PackedRow(ids, mask, seq_lens, parents, tasks, tuple(values[5].to_pylist()))

    def rows_of_song(self, song_id: str) -> list[int]:
        """Indices of the rows that hold a segment of this song, ascending."""
        found: list[int] = []
        first = 0
        for chunk in self._table.column("song_ids").chunks:
            rows = pc.list_parent_indices(chunk).filter(pc.equal(chunk.flatten(), song_id))
            found += [first + row for row in pc.unique(rows).to_pylist()]
            first += len(chunk)
        return found

    def num_supervised(self) -> Int64Array:
        """int64[rows]: supervised tokens of each row, counted without decoding rows."""
        counts = [np.zeros(0, dtype=np.int64)]
        for chunk in self._table.column("label_mask").chunks:
            offsets = chunk.offsets.to_numpy()
            flags = chunk.values[offsets[0] : offsets[-1]].to_numpy(zero_copy_only=False)
            total = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
            counts.append(np.diff(total[offsets - offsets[0]]))
        return np.concatenate(counts)

    def __iter__(self) -> Iterator[PackedRow]:
        return (self[i] for i in range(len(self)))


def _open_shard(path: Path, num_rows: int) -> pa.Table:
    try:
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as an Arrow stream ({error})") from error
    if table.num_rows != num_rows or table.schema != SCHEMA:
        raise DataError(f"{path}: {table.num_rows} rows, expected {num_rows}: the file was cut or replaced")
    return table


def open_split(folder: Path, split: str, manifest: Manifest | None = None) -> ShardedRows:
    """Open one split of a data set.

    Raises:
        DataError: There is no such split, or a shard is cut, replaced or not Arrow.
    """
    manifest = read_manifest(folder) if manifest is None else manifest
    if split not in manifest.splits:
        raise DataError(f"{folder}: no split {split!r}; it has {', '.join(manifest.splits)}")
    return ShardedRows(folder / split, manifest.splits[split])
