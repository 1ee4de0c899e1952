from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from preprocess.forest import PackedRow, segment_starts, unpack_examples
from preprocess.row_batch import SCHEMA, RowBatch, join
from preprocess.schema import ROOT
from tests.test_shards import as_lists
from tests.toys import encode_songs, make_songs, make_tokenizer


@pytest.fixture
def rows() -> list[PackedRow]:
    return encode_songs(make_songs(20), make_tokenizer(), 600)


def test_a_batch_gives_its_rows_back(rows: list[PackedRow]) -> None:
    batch = RowBatch.of(rows)
    assert len(batch) == len(rows)
    assert [as_lists(row) for row in batch] == [as_lists(row) for row in rows]


def test_parts_and_joins_are_rows_too(rows: list[PackedRow]) -> None:
    batch = RowBatch.of(rows)
    part = batch.part(2, 5)
    assert [as_lists(row) for row in part] == [as_lists(row) for row in rows[2:5]]
    joined = join([part, batch.part(0, 1), batch.part(3, 3), part.part(1, 3)])
    assert [as_lists(row) for row in joined] == [as_lists(rows[i]) for i in (2, 3, 4, 0, 3, 4)]


def test_the_bytes_do_not_depend_on_how_a_batch_came_about(rows: list[PackedRow]) -> None:
    def serialized(batch: RowBatch) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, SCHEMA) as writer:
            writer.write_batch(batch.to_arrow())
        return bytes(sink.getvalue())

    batch = RowBatch.of(rows)
    plain = serialized(RowBatch.of(rows[:4]))
    assert serialized(batch.part(0, 4)) == plain
    assert serialized(join([batch.part(0, 3), batch.part(3, 4)])) == plain
    assert serialized(batch.part(1, 5)) == serialized(RowBatch.of(rows[1:5])) != plain


def test_supervised_tokens_are_counted_by_segment(rows: list[PackedRow]) -> None:
    wanted = [
        int(row.label_mask[start : start + length].sum())
        for row in rows
        for start, length in zip(segment_starts(row), row.seq_lens, strict=True)
    ]
    assert RowBatch.of(rows).supervised_by_segment().tolist() == wanted


def test_a_path_is_as_long_as_its_example_unpacked(rows: list[PackedRow]) -> None:
    batch = RowBatch.of(rows)
    lengths = batch.path_lengths()[batch.tasks >= 0].tolist()
    assert lengths == [len(example.input_ids) for row in rows for example in unpack_examples(row)]


def test_a_path_goes_up_through_every_level_of_a_tree() -> None:
    deep = PackedRow(
        input_ids=np.arange(15, dtype=np.int32),
        label_mask=np.zeros(15, dtype=np.bool_),
        seq_lens=np.array([1, 2, 3, 4, 5], dtype=np.int32),
        parents=np.array([ROOT, 0, 1, ROOT, 2], dtype=np.int32),
        tasks=np.array([-1, -1, -1, 0, 0], dtype=np.int32),
        song_ids=("a",) * 5,
    )
    assert RowBatch.of([deep, deep]).path_lengths().tolist() == [1, 3, 6, 4, 11] * 2
