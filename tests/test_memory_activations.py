"""Planned bytes of a pass against what torch counts, storage by storage, of fake and of real tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.counted_step import count_step
from bench.live_memory import LiveMemory
from bench.memory import CASES, STRETCHES, WITH_HEAD, compare, make_case, name_case
from harness import dropout
from harness.linear_flops import LoraShape
from harness.memory import activations
from harness.memory.activations import kept_by_layer, replay
from harness.memory.case import MemoryCase
from harness.memory.norm_work import lean_norm
from harness.memory.sizes import Sizes
from harness.memory.tape import Made, Tape
from harness.shapes import ModelShape

SMALL = ModelShape(64, 3, 4, 2, 16, 128, 512, tied=True)
"""A model whose step is computed in no time, with grouped heads."""

FEW_BYTES = 4_000
"""Single numbers for each token (means, sums), which the plan leaves out."""


def small(**others: Any) -> MemoryCase:
    case = make_case("toy", 8, 96, 40, **others)
    return replace(case, shape=SMALL)


SMALL_CASES = [
    small(),
    small(dropout=0.1),
    small(precision="fp32"),
    small(lora_kernel="peft"),
    small(lora_kernel="peft", dropout=0.1),
    small(recompute_layers=2),
    small(loss_chunk=16, head=True),
    small(new_tokens=0, attention="sdpa", row_slots=48),
]


@pytest.mark.parametrize("case", CASES[:2] + CASES[7:9], ids=name_case)
def test_the_plan_of_a_true_shape_is_what_torch_counts(case: MemoryCase) -> None:
    found = compare(replace(case, shape=replace(case.shape, num_layers=3)))
    assert found.planned.kept == found.counted.kept
    assert max(abs(found.error(stretch)) for stretch in STRETCHES) < 1e-4


@pytest.mark.parametrize("case", SMALL_CASES, ids=name_case)
def test_what_a_real_forward_pass_keeps_is_planned_to_the_byte(case: MemoryCase) -> None:
    counted = count_step(case, real=True)
    assert abs(replay(case).kept - counted.kept) <= activations.RNG_STATE * case.recompute_layers


@pytest.mark.parametrize("case", SMALL_CASES[:7], ids=name_case)
def test_the_peaks_of_a_real_step_are_planned(case: MemoryCase) -> None:
    counted, planned = count_step(case, real=True), replay(case)
    for stretch in STRETCHES:
        assert abs(planned.total(stretch) - counted.peaks[stretch]) < FEW_BYTES, stretch


def test_real_and_fake_tensors_are_counted_alike() -> None:
    assert count_step(small(), real=True) == count_step(small())


@pytest.mark.parametrize("missing", ["rms", "queries", "hidden", "keys"])
def test_a_plan_that_forgets_a_tensor_is_noticed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sizes, missing, 0)
    assert replay(small()).kept != count_step(small()).kept


def test_a_plan_that_forgets_the_work_of_the_mlp_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small(recompute_layers=3)
    counted = count_step(case).peaks["backward"]
    assert abs(replay(case).total("backward") - counted) < FEW_BYTES + activations.RNG_STATE * 3
    monkeypatch.setattr(Sizes, "inner", 0)
    assert counted - replay(case).total("backward") > 5 * FEW_BYTES


def test_a_plan_of_another_rank_is_noticed() -> None:
    other = replace(small(), lora=LoraShape(9, WITH_HEAD[:-1]))
    assert replay(other).kept != count_step(small()).kept


def test_a_lean_layer_keeps_what_its_table_says() -> None:
    case, tokens, rank = small(), 96, 8
    queries, keys = 4 * 16, 2 * 16
    values = 2 * 64 + 7 * rank + queries + 2 * keys + queries + 2 * 128
    assert kept_by_layer(case) == tokens * (2 * values + 8 + 4 * 4)


def test_a_recomputed_layer_keeps_its_input_alone() -> None:
    kept = [replay(small(recompute_layers=count)).kept for count in (0, 1, 2)]
    saved = kept_by_layer(small()) - 96 * 64 * 2
    assert kept[0] - kept[1] == kept[1] - kept[2] == saved


def test_nothing_of_the_step_is_left_after_the_backward_pass() -> None:
    case = small(dropout=0.1)
    assert replay(case).kept > count_step(case).left > 0
    assert count_step(small()).left == 0


def test_a_gpu_takes_less_for_norms_and_more_inside_its_flash_kernel() -> None:
    on_cpu, on_gpu = (Sizes(small(device=device)) for device in ("cpu", "cuda"))
    tapes = {}
    for sizes in (on_cpu, on_gpu):
        tape = Tape()
        tape.begin("norm")
        lean_norm(tape, sizes)
        tapes[sizes.case.device] = sum(tape.peaks["norm"].values())
    assert tapes["cuda"] == on_gpu.hidden
    assert tapes["cpu"] > 4 * on_gpu.hidden


def test_the_dropout_is_the_one_that_is_planned() -> None:
    assert activations.NUM_OFFSETS == dropout.NUM_OFFSETS
    tables = dropout.draw_tables(0.1, 7, 0, torch.device("cpu"))
    assert sum(table.nbytes for table in tables.values()) == activations.TABLES * (dropout.NUM_OFFSETS + 7)


def test_a_tape_tells_the_peak_of_each_stretch_by_part() -> None:
    tape = Tape()
    tape.begin("forward")
    kept = tape.make(10, "activations")
    tape.touch(5, 7)
    tape.begin("backward")
    tape.drop(kept)
    tape.make(3)
    assert tape.peaks["forward"] == {"activations": 10, "layer_work": 12}
    assert sum(tape.peaks["backward"].values()) == 10
    assert kept == Made(10, "activations")
    assert tape.now == 3


def test_live_memory_counts_stretches_of_real_tensors() -> None:
    with (memory := LiveMemory()):
        memory.begin("first")
        one = torch.zeros(10, dtype=torch.uint8)
        memory.begin("second")
        two = torch.zeros(20, dtype=torch.uint8)
        view = two[:5]
    assert memory.peaks == {"first": 10, "second": 30}
    assert len(one) + len(view) == 15
