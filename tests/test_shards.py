from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from preprocess import shards
from preprocess.durable import sha256_of
from preprocess.errors import DataError, NoSpaceError
from preprocess.forest import PackedRow, unpack_examples
from preprocess.manifest import check_hashes, read_manifest
from preprocess.row_batch import RowBatch
from preprocess.shards import SCHEMA, ShardedRows, open_split, write_split
from tests.toys import TASKS, encode_songs, make_songs, make_tokenizer


@pytest.fixture
def rows() -> list[PackedRow]:
    return encode_songs(make_songs(30), make_tokenizer(), 256)


def as_lists(row: PackedRow) -> list[Any]:
    return [list(row.song_ids), *(getattr(row, name).tolist() for name in SCHEMA.names[:5])]


def test_rows_come_back_as_they_were_written(tmp_path: Path, rows: list[PackedRow]) -> None:
    info = write_split(tmp_path / "train", rows, TASKS, rows_per_shard=7)
    read = ShardedRows(tmp_path / "train", info)
    assert [shard.num_rows for shard in info.shards] == [7, 7, 7, 7, 2]
    assert [as_lists(row) for row in read] == [as_lists(row) for row in rows]
    assert len(read) == info.num_rows == len(rows) == 30
    assert [as_lists(row) for row in read[5:9]] == [as_lists(row) for row in rows[5:9]]
    assert as_lists(read[-1]) == as_lists(rows[-1])


def test_columns_are_int32_and_bool(tmp_path: Path, rows: list[PackedRow]) -> None:
    row = ShardedRows(tmp_path, write_split(tmp_path, rows, TASKS, 100))[3]
    for array in (row.input_ids, row.seq_lens, row.parents, row.tasks):
        assert array.dtype == np.int32
    assert row.label_mask.dtype == np.bool_
    assert all(isinstance(song_id, str) for song_id in row.song_ids)


@pytest.mark.parametrize("index", [30, -31, 1000])
def test_an_index_outside_raises_index_error(tmp_path: Path, rows: list[PackedRow], index: int) -> None:
    read = ShardedRows(tmp_path, write_split(tmp_path, rows, TASKS, 100))
    with pytest.raises(IndexError):
        read[index]


def test_a_shard_of_many_batches_comes_back_whole(
    tmp_path: Path, rows: list[PackedRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_BATCH", 4)
    read = ShardedRows(tmp_path, write_split(tmp_path, rows, TASKS, 100))
    assert [as_lists(row) for row in read] == [as_lists(row) for row in rows]


def test_datasets_opens_the_folder_as_it_is(toy_dataset: Path) -> None:
    from datasets import load_from_disk

    loaded = load_from_disk(str(toy_dataset))
    assert sorted(loaded) == ["eval", "train"]
    for split in loaded:
        ours = open_split(toy_dataset, split)
        assert loaded[split].num_rows == len(ours)
        for theirs, row in zip(loaded[split], ours, strict=True):
            assert list(theirs) == SCHEMA.names
            assert [theirs["song_ids"], *(theirs[name] for name in SCHEMA.names[:5])] == as_lists(row)
        types = {name: str(feature.feature.dtype) for name, feature in loaded[split].features.items()}
        numbers = dict.fromkeys(("input_ids", "seq_lens", "parents", "tasks"), "int32")
        assert types == numbers | {"label_mask": "bool", "song_ids": "string"}


def test_counts_are_those_of_the_rows(tmp_path: Path, rows: list[PackedRow]) -> None:
    info = write_split(tmp_path, rows, TASKS, 100)
    examples = [example for row in rows for example in unpack_examples(row)]
    assert (info.num_songs, info.num_examples) == (30, len(examples)) == (30, 120)
    assert info.num_tokens == sum(len(row.input_ids) for row in rows)
    assert info.num_supervised == sum(int(example.label_mask.sum()) for example in examples)
    assert info.unshared_tokens == sum(len(example.input_ids) for example in examples)
    for number, task in enumerate(TASKS):
        own = [example for example in examples if example.tasks[0] == number]
        tokens = sum(int(example.label_mask.sum()) for example in own)
        assert info.by_task[task] == {"examples": len(own), "supervised_tokens": tokens}


def test_an_empty_split_can_be_written_and_opened(tmp_path: Path) -> None:
    info = write_split(tmp_path, [], TASKS, 100)
    assert len(ShardedRows(tmp_path, info)) == 0
    assert info.num_rows == info.num_songs == 0


def test_writing_twice_gives_the_same_bytes(tmp_path: Path, rows: list[PackedRow]) -> None:
    assert write_split(tmp_path / "a", rows, TASKS, 9) == write_split(tmp_path / "b", rows, TASKS, 9)


def test_rows_stream_in_one_by_one_in_batches_or_mixed_to_the_same_bytes(
    tmp_path: Path, rows: list[PackedRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_BATCH", 4)
    batch = RowBatch.of(rows)
    ways: dict[str, list[PackedRow | RowBatch]] = {
        "rows": list(rows),
        "one batch": [batch],
        "small batches": [batch.part(i, min(i + 3, 30)) for i in range(0, 30, 3)],
        "mixed": [*rows[:2], batch.part(2, 11), batch.part(3, 3), *rows[11:14], batch.part(14, 30)],
    }
    infos = [write_split(tmp_path / name, iter(way), TASKS, 9, 30) for name, way in ways.items()]
    assert [shard.num_rows for shard in infos[0].shards] == [9, 9, 9, 3]
    assert infos == [infos[0]] * 4


def test_rows_are_not_held_while_they_stream(tmp_path: Path, rows: list[PackedRow]) -> None:
    alive: weakref.WeakSet[PackedRow] = weakref.WeakSet()
    most = 0

    class Row(PackedRow):
        __slots__ = ("__weakref__",)

    def stream() -> Iterator[PackedRow]:
        nonlocal most
        for _ in range(20):
            for row in rows:
                new = Row(*(getattr(row, name) for name in SCHEMA.names))
                alive.add(new)
                most = max(most, len(alive))
                yield new
                del new

    write_split(tmp_path, stream(), TASKS, 1000, 600)
    assert 200 < most <= 2 * shards.ROWS_PER_BATCH


@pytest.mark.parametrize(
    ("num_rows", "message"), [(31, "rows end 1 short of row 31"), (29, "more than the 29")]
)
def test_another_number_of_rows_than_announced_is_refused(
    tmp_path: Path, rows: list[PackedRow], num_rows: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_split(tmp_path, iter(rows), TASKS, 100, num_rows)


def test_a_stream_without_its_number_of_rows_is_refused(tmp_path: Path, rows: list[PackedRow]) -> None:
    with pytest.raises(ValueError, match="num_rows is needed"):
        write_split(tmp_path, iter(rows), TASKS, 100)


def test_rows_that_fail_to_come_leave_no_half_shard(tmp_path: Path, rows: list[PackedRow]) -> None:
    def stream() -> Iterator[PackedRow]:
        yield from rows[:12]
        raise DataError("gone")

    with pytest.raises(DataError, match="gone"):
        write_split(tmp_path, stream(), TASKS, 10, 30)
    assert [path.name for path in tmp_path.iterdir()] == ["data-00000-of-00003.arrow"]


def test_the_sizes_and_hashes_are_those_of_the_files(tmp_path: Path, rows: list[PackedRow]) -> None:
    for shard in write_split(tmp_path, rows, TASKS, 9).shards:
        assert (tmp_path / shard.file).stat().st_size == shard.num_bytes
        assert sha256_of(tmp_path / shard.file) == shard.sha256


def test_the_files_and_their_folder_are_synced(
    tmp_path: Path, rows: list[PackedRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    (shard,) = write_split(tmp_path, rows, TASKS, 100).shards
    place = tmp_path.resolve()
    assert synced[:2] == [f"{place}/{shard.file}.tmp", str(place)]


def cut_at_batch_boundary(path: Path, num_batches: int) -> None:
    """Rewrite a stream with its first batches only: a whole, readable, shorter stream."""
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        batches = [reader.read_next_batch() for _ in range(num_batches)]
        with pa.ipc.new_stream(path, reader.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)


def test_a_stream_cut_at_a_batch_boundary_is_refused_though_arrow_reads_it(
    tmp_path: Path, rows: list[PackedRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_BATCH", 4)
    info = write_split(tmp_path, rows, TASKS, 100)
    path = tmp_path / info.shards[0].file
    cut_at_batch_boundary(path, 3)
    assert pa.ipc.open_stream(path.read_bytes()).read_all().num_rows == 12
    with pytest.raises(DataError, match=r"12 rows, expected 30: the file was cut or replaced"):
        ShardedRows(tmp_path, info)


@pytest.mark.parametrize("keep", [0, 5, 700])
def test_a_file_cut_anywhere_else_is_refused(tmp_path: Path, rows: list[PackedRow], keep: int) -> None:
    info = write_split(tmp_path, rows, TASKS, 100)
    path = tmp_path / info.shards[0].file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=info.shards[0].file):
        ShardedRows(tmp_path, info)


def test_a_missing_shard_is_refused(tmp_path: Path, rows: list[PackedRow]) -> None:
    info = write_split(tmp_path, rows, TASKS, 10)
    (tmp_path / info.shards[1].file).unlink()
    with pytest.raises(DataError, match=info.shards[1].file):
        ShardedRows(tmp_path, info)


def test_hashes_catch_a_flipped_bit_that_arrow_reads_silently(toy_dataset: Path) -> None:
    manifest = read_manifest(toy_dataset)
    check_hashes(toy_dataset, manifest)
    ids = open_split(toy_dataset, "train")[0].input_ids.copy()
    path = toy_dataset / "train" / manifest.splits["train"].shards[0].file
    data = bytearray(path.read_bytes())
    data[data.index(ids.tobytes())] ^= 1
    path.write_bytes(data)
    assert open_split(toy_dataset, "train")[0].input_ids[0] == ids[0] ^ 1
    with pytest.raises(DataError, match=r"data-00000.*damaged.*sha256 differs"):
        check_hashes(toy_dataset, manifest)
    check_hashes(toy_dataset, manifest, ["eval"])


def test_hashes_catch_a_missing_shard(toy_dataset: Path) -> None:
    manifest = read_manifest(toy_dataset)
    (toy_dataset / "eval" / manifest.splits["eval"].shards[0].file).unlink()
    with pytest.raises(DataError, match="missing; the manifest lists it"):
        check_hashes(toy_dataset, manifest)


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (errno.ENOSPC, NoSpaceError, "no space left"),
        (errno.EDQUOT, NoSpaceError, "no space left"),
        (errno.EIO, DataError, "could not write"),
    ],
)
def test_disk_errors_are_the_user_s_errors_and_leave_no_shard(
    tmp_path: Path,
    rows: list[PackedRow],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
    message: str,
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error, match=message):
        write_split(tmp_path / "train", rows, TASKS, 100)
    assert list((tmp_path / "train").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path: Path, rows: list[PackedRow]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="could not write"):
        write_split(tmp_path / "file" / "train", rows, TASKS, 100)


def test_a_split_that_is_not_there_is_refused_with_those_that_are(toy_dataset: Path) -> None:
    with pytest.raises(DataError, match="no split 'test'; it has train, eval"):
        open_split(toy_dataset, "test")


def test_rows_of_a_song_are_found_across_shards(tmp_path: Path, rows: list[PackedRow]) -> None:
    read = ShardedRows(tmp_path, write_split(tmp_path, rows, TASKS, rows_per_shard=4))
    for song_id in ("song-0000", "song-0017", "song-0029"):
        assert read.rows_of_song(song_id) == [i for i, row in enumerate(rows) if song_id in row.song_ids]
    assert read.rows_of_song("nobody") == []
