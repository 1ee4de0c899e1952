"""The memory case of a run: settings, and the largest micro-batch of a rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.batch_plan import BatchPlan, StepTarget
from harness.config import RunConfig
from harness.memory.case import MemoryCase
from harness.memory.run_case import make_case, with_largest_batch
from harness.row_sizes import RowSizes
from harness.shapes import find_shape
from preprocess.settings import load_settings

TOKENS = (100, 60, 90, 80, 10, 70)
SUPERVISED = (9, 8, 30, 7, 6, 5)


def make_plan(world_size: int = 1, rows: int = 2) -> BatchPlan:
    ones = np.ones(len(TOKENS), dtype=np.int32)
    sizes = RowSizes(ones, np.array(TOKENS, dtype=np.int32), np.array(SUPERVISED, dtype=np.int32))
    return BatchPlan(sizes, StepTarget("rows", 6), rows, world_size, seed=0)


def make_toy_case(tmp_path: Path, *overrides: str) -> MemoryCase:
    settings = [f"output_dir={tmp_path}", f"data.path={tmp_path}", "model.path=toy", *overrides]
    config = load_settings(RunConfig, None, settings)
    return make_case(config, find_shape("toy"), "flash", ranks=3, device="cpu", lora_kernel="lean")


def test_settings_reach_the_case(tmp_path: Path) -> None:
    case = make_toy_case(
        tmp_path,
        "lora.r=4",
        "lora.dropout=0.1",
        "model.loss_chunk=7",
        "model.precision=fp32",
        "deepspeed=zero3",
    )
    assert case.lora is not None
    assert (case.lora.r, case.dropout, case.loss_chunk, case.precision) == (4, 0.1, 7, "fp32")
    assert (case.zero.stage, case.ranks, case.device) == (3, 3, "cpu")


def test_all_layers_are_as_many_as_the_model_has(tmp_path: Path) -> None:
    assert make_toy_case(tmp_path, "model.recompute_layers=all").recompute_layers == 2
    assert make_toy_case(tmp_path, "model.recompute_layers=1").recompute_layers == 1


def test_the_largest_micro_batch_of_a_rank_counts(tmp_path: Path) -> None:
    case = make_toy_case(tmp_path)
    alone = with_largest_batch(case, make_plan(), 0, num_steps=1)
    assert alone.slots == 100 + 90  # rows are dealt the largest first, by tokens and supervised tokens
    assert alone.supervised == 9 + 30
    shared = with_largest_batch(case, make_plan(3, rows=1), 1, num_steps=1)
    assert shared.slots == 100  # (90 tokens with 30 supervised ones are more work, and go to rank 0)


def test_a_dense_mask_pays_for_the_longest_row_in_each(tmp_path: Path) -> None:
    case = replace(make_toy_case(tmp_path), attention="sdpa")
    found = with_largest_batch(case, make_plan(), 0, num_steps=1)
    assert (found.slots, found.row_slots) == (2 * 100, 100)
