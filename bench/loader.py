"""What does reading a packed row cost from the memory map, and laying out a micro-batch, against `datasets`?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np

from bench.material import FIVE_TASKS, find_tokenizer, make_rows
from bench.record import Outcome, Turns, WrongResultError, compare, costs, summarize, time_in_turns
from harness.data import MicroBatch, collate
from preprocess.forest import PackedRow
from preprocess.shards import ShardedRows, write_split

SEQ_LEN = 2048
ROWS_PER_MICRO_BATCH = 4
MEMORY_MAP, DATASETS, DATASETS_NUMPY = "memory_map", "datasets", "datasets_numpy"
COLLATE = "collate"


def measure(*, quick: bool) -> Outcome:
    """Read every row of a data set in a shuffled order, warm in the page cache, and collate them four at a time.

    Raises:
        WrongResultError: `datasets` and the memory map do not give the same rows.
    """
    num_songs, num_turns = (30, 3) if quick else (300, 7)
    tokenizer = find_tokenizer(quick=quick)
    rows = make_rows(tokenizer, num_songs, SEQ_LEN)
    with TemporaryDirectory() as name:
        turns = time_reading(Path(name) / "train", rows, num_turns)
    check_rows(turns.results[MEMORY_MAP], turns.results[DATASETS])
    num_batches = -(-len(rows) // ROWS_PER_MICRO_BATCH)
    readers = (DATASETS, DATASETS_NUMPY, MEMORY_MAP)
    return Outcome(
        baseline=DATASETS,
        figures={
            **{
                f"{way}_us_per_row": summarize(costs(turns.seconds[way], len(rows)), "us/row")
                for way in readers
            },
            "collate_us_per_micro_batch": summarize(costs(turns.seconds[COLLATE], num_batches), "us/batch"),
        },
        ratios={
            way: compare(turns.seconds[DATASETS], turns.seconds[way]) for way in (MEMORY_MAP, DATASETS_NUMPY)
        },
        facts={
            "rows": len(rows),
            "tokens_per_row": sum(len(row.input_ids) for row in rows) / len(rows),
            "segments_per_row": sum(len(row.seq_lens) for row in rows) / len(rows),
            "rows_per_micro_batch": ROWS_PER_MICRO_BATCH,
            "tokenizer": tokenizer.source,
        },
    )


def time_reading(folder: Path, rows: Sequence[PackedRow], num_turns: int) -> Turns:
    """Write rows as a split, and time each way of reading them in one shuffled order."""
    info = write_split(folder, rows, FIVE_TASKS, rows_per_shard=64)
    mapped = ShardedRows(folder, info)
    plain = datasets.load_from_disk(str(folder))
    arrays = plain.with_format("numpy")
    order = np.random.Generator(np.random.Philox(0)).permutation(len(rows)).tolist()
    ways: dict[str, Callable[[], object]] = {
        DATASETS: partial(read, lambda i: from_columns(plain[i]), order),
        DATASETS_NUMPY: partial(read, lambda i: from_columns(arrays[i]), order),
        MEMORY_MAP: partial(read, mapped.__getitem__, order),
        COLLATE: partial(collate_all, read(mapped.__getitem__, order)),
    }
    return time_in_turns(ways, num_turns)


def read(get: Callable[[int], PackedRow], order: Sequence[int]) -> list[PackedRow]:
    """The rows in an order."""
    return [get(i) for i in order]


def from_columns(columns: dict[str, Any]) -> PackedRow:
    """A row as `datasets` gives it (arrays or lists) as what the harness takes."""
    return PackedRow(
        input_ids=np.asarray(columns["input_ids"], dtype=np.int32),
        label_mask=np.asarray(columns["label_mask"], dtype=np.bool_),
        seq_lens=np.asarray(columns["seq_lens"], dtype=np.int32),
        parents=np.asarray(columns["parents"], dtype=np.int32),
        tasks=np.asarray(columns["tasks"], dtype=np.int32),
        song_ids=tuple(str(song_id) for song_id in columns["song_ids"]),
    )


def collate_all(rows: Sequence[PackedRow]) -> list[MicroBatch]:
    """Micro-batches of all rows."""
    starts = range(0, len(rows), ROWS_PER_MICRO_BATCH)
    return [collate(rows[start : start + ROWS_PER_MICRO_BATCH]) for start in starts]


def check_rows(found: Sequence[PackedRow], expected: Sequence[PackedRow]) -> None:
    """Refuse times of readers that did not read the same.

    Raises:
        WrongResultError: A row differs.
    """
    for i, (row, other) in enumerate(zip(found, expected, strict=True)):
        arrays = ("input_ids", "label_mask", "seq_lens", "parents", "tasks")
        same = all(np.array_equal(getattr(row, name), getattr(other, name)) for name in arrays)
        if not same or row.song_ids != other.song_ids:
            raise WrongResultError(f"row {i} of the order differs between the memory map and datasets")
