"""Arrow shards on disk: written whole or not at all, opened by memory map, checked against a manifest.

A data set is a folder that `datasets.load_from_disk` opens as it is::

    DIR/manifest.json        counts, hashes, tokenizer, tasks, config; written last: a folder without it is not done
    DIR/dataset_dict.json    the splits, for `datasets`
    DIR/train/data-00000-of-00002.arrow, …, dataset_info.json, state.json
    DIR/eval/…               the same for held-out songs
    DIR/eval_songs.jsonl     the held-out songs with their facts, for `harness evaluate`
    DIR/labels.json          by task: the names in training songs with counts, and what is true of each eval song
    DIR/tokenizer/           the tokenizer that the ids belong to
    DIR/quality.json         what was found in the input
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocess.durable import make_folder, no_space, sha256_of, write_text_durably, write_whole
from preprocess.errors import DataError
from preprocess.forest import PackedRow, example_paths, segment_starts
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
from preprocess.schema import Int64Array

__all__ = [
    "FORMAT_VERSION",
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

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("label_mask", pa.list_(pa.bool_())),
        ("seq_lens", pa.list_(pa.int32())),
        ("parents", pa.list_(pa.int32())),
        ("tasks", pa.list_(pa.int32())),
        ("song_ids", pa.list_(pa.string())),
    ]
)


def write_split(
    folder: Path, rows: Sequence[PackedRow], tasks: Sequence[str], rows_per_shard: int
) -> SplitInfo:
    """Write one split's shards, and the two files that `datasets.load_from_disk` needs.

    Raises:
        NoSpaceError: The disk is full.
        DataError: The folder cannot be written to.
    """
    make_folder(folder)
    num_shards = max(1, -(-len(rows) // rows_per_shard))
    shards = []
    for i in range(num_shards):
        name = f"data-{i:05d}-of-{num_shards:05d}.arrow"
        part = rows[i * rows_per_shard : (i + 1) * rows_per_shard]
        shards.append(_write_shard(folder / name, part))
    _write_datasets_files(folder, shards)
    return _count_split(rows, tasks, shards)


def _write_shard(path: Path, rows: Sequence[PackedRow]) -> ShardInfo:
    with write_whole(path) as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        for start in range(0, len(rows), ROWS_PER_BATCH):
            writer.write_batch(_to_batch(rows[start : start + ROWS_PER_BATCH]))
    return ShardInfo(path.name, len(rows), file.num_bytes, file.sha256)


def _to_batch(rows: Sequence[PackedRow]) -> pa.RecordBatch:
    columns = [
        _list_array([getattr(row, name) for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _list_array(values: Sequence[Any], type_: pa.ListType) -> pa.ListArray:
    offsets = np.cumsum([0] + [len(value) for value in values]).astype(np.int32)
    if pa.types.is_string(type_.value_type):
        flat = pa.array([item for value in values for item in value], type=pa.string())
    else:
        flat = pa.array(np.concatenate(values), type=type_.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=type_)


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


def _count_split(rows: Sequence[PackedRow], tasks: Sequence[str], shards: Sequence[ShardInfo]) -> SplitInfo:
    by_task = {task: {"examples": 0, "supervised_tokens": 0} for task in tasks}
    songs: set[str] = set()
    unshared = 0
    for row in rows:
        songs.update(row.song_ids)
        unshared += sum(int(row.seq_lens[path].sum()) for path in example_paths(row))
        supervised = np.add.reduceat(row.label_mask, segment_starts(row), dtype=np.int64)
        for task, count in zip(row.tasks.tolist(), supervised.tolist(), strict=True):
            if task >= 0:
                by_task[tasks[task]]["examples"] += 1
                by_task[tasks[task]]["supervised_tokens"] += count
    return SplitInfo(
        num_rows=len(rows),
        num_songs=len(songs),
        num_examples=sum(row.num_examples for row in rows),
        num_tokens=sum(len(row.input_ids) for row in rows),
        num_supervised=sum(int(row.label_mask.sum()) for row in rows),
        unshared_tokens=unshared,
        by_task=by_task,
        shards=tuple(shards),
    )


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
