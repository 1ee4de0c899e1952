"""What does reading a packed row and laying out a micro-batch cost, against `datasets`, and as a share of a step?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel

from bench import prefix
from bench.material import FIVE_TASKS, find_tokenizer, make_rows
from bench.record import Outcome, Turns, WrongResultError, compare, costs, summarize, time_in_turns
from harness.attention.choice import IMPLEMENTATIONS, register_attention
from harness.batch_plan import BatchPlan, StepTarget
from harness.data import MicroBatch, collate
from harness.loader import load_step
from harness.loss import ForestLanguageModel
from harness.row_sizes import RowSizes
from preprocess.forest import PackedRow
from preprocess.shards import ShardedRows, write_split

SEQ_LEN = 2048
ROWS_PER_MICRO_BATCH = 4
MEMORY_MAP, DATASETS, DATASETS_NUMPY = "memory_map", "datasets", "datasets_numpy"
COLLATE = "collate"
LOAD, STEP = "load", "forward_backward"
"""Both over the same micro-batches: reading and laying them out, and computing them with a small model."""


def measure(*, quick: bool) -> Outcome:
    """Read every row of a data set in a shuffled order, warm in the page cache, and collate them four at a time.

    The loader works in a thread beside the step; its whole time is compared, as if the step waited for it.

    Raises:
        WrongResultError: `datasets` and the memory map do not give the same rows.
    """
    num_songs, num_turns = (30, 3) if quick else (300, 7)
    size = prefix.QUICK if quick else prefix.FULL
    tokenizer = find_tokenizer(quick=quick)
    rows = make_rows(tokenizer, num_songs, SEQ_LEN)
    with TemporaryDirectory() as name:
        turns = time_reading(Path(name) / "train", rows, num_turns)
        beside = time_beside_a_step(Path(name) / "folded", rows, size)
    check_rows(turns.results[MEMORY_MAP], turns.results[DATASETS])
    num_batches = -(-len(rows) // ROWS_PER_MICRO_BATCH)
    readers = (DATASETS, DATASETS_NUMPY, MEMORY_MAP)
    shares = share_of(beside.seconds[LOAD], beside.seconds[STEP])
    return Outcome(
        baseline=DATASETS,
        figures={
            **{
                f"{way}_us_per_row": summarize(costs(turns.seconds[way], len(rows)), "us/row")
                for way in readers
            },
            "collate_us_per_micro_batch": summarize(costs(turns.seconds[COLLATE], num_batches), "us/batch"),
            "load_us_per_row": summarize(
                costs(beside.seconds[LOAD], NUM_LOADS * NUM_COMPUTED_ROWS), "us/row"
            ),
            "forward_backward_ms_per_row": summarize(
                costs(beside.seconds[STEP], NUM_COMPUTED_ROWS, 1e3), "ms/row"
            ),
            "load_share_of_step": summarize(shares, "%"),
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
            "torch_threads": torch.get_num_threads(),
            "model": f"random Llama, hidden {size.hidden_size}, {size.num_layers} layers, {prefix.VOCAB_SIZE} ids, "
            "float32, LoRA r=16",
        },
    )


NUM_COMPUTED_ROWS = 8
"""Rows that the small model computes, in two micro-batches."""

NUM_LOADS = 20
"""Times that the same step is loaded in a turn: once would be over before the clock tells much."""


def time_beside_a_step(folder: Path, rows: Sequence[PackedRow], size: prefix.Size) -> Turns:
    """Time the loader's work for one step (reading, laying out) in turns with the model's (forward, backward)."""
    folded = [prefix.fold_ids(row) for row in rows[:NUM_COMPUTED_ROWS]]
    mapped = ShardedRows(folder, write_split(folder, folded, FIVE_TASKS, rows_per_shard=64))
    plan = BatchPlan(RowSizes.of(mapped), StepTarget("rows", len(folded)), ROWS_PER_MICRO_BATCH, 1, seed=0)
    model = prefix.make_model(size)
    use_flash(model)
    batches = load_step(mapped, plan, 0, 0, flat=True, pin=False).batches
    ways: dict[str, Callable[[], object]] = {
        LOAD: lambda: [load_step(mapped, plan, 0, 0, flat=True, pin=False) for _ in range(NUM_LOADS)][-1],
        STEP: partial(prefix.mean_loss_and_gradient, model, batches),
    }
    return time_in_turns(ways, size.num_turns)


def share_of(load_s: Sequence[float], step_s: Sequence[float]) -> list[float]:
    """Per cent of each turn's step that loading it once takes, where each turn loaded it `NUM_LOADS` times."""
    return [100 * load / NUM_LOADS / step for load, step in zip(load_s, step_s, strict=True)]


def use_flash(model: ForestLanguageModel) -> None:
    """Attend without a mask: the fastest kernel, beside which the loader costs most."""
    register_attention()
    cast("PreTrainedModel", model.causal).set_attn_implementation(IMPLEMENTATIONS["flash"])


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
