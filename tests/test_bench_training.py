"""The benchmarks of training: both sides get the same work, differing losses are noticed, and a quick run ends well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from bench import bare, growth, profile, trl
from bench.live_memory import LiveMemory
from bench.record import WrongResultError
from bench.training import VOCAB_SIZE
from harness.memory.timeline import MemoryTimeline, TimelinePoint
from preprocess.forest import PackedRow
from preprocess.schema import IGNORE_INDEX, ROOT
from tests.runs import REPOSITORY

LENGTHS = (5, 9, 4, 7, 4)


def make_example(length: int, first_id: int = 0) -> PackedRow:
    """An example whose last two tokens are supervised."""
    return PackedRow(
        input_ids=np.arange(first_id, first_id + length, dtype=np.int32),
        label_mask=np.arange(length) >= length - 2,
        seq_lens=np.array([length], dtype=np.int32),
        parents=np.array([ROOT], dtype=np.int32),
        tasks=np.zeros(1, dtype=np.int32),
        song_ids=("song",),
    )


def make_step(lengths: tuple[int, ...] = LENGTHS) -> list[PackedRow]:
    return [make_example(length, 100 * number) for number, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def layouts() -> ModuleType:
    """The module with the baselines' layouts, which needs TRL."""
    pytest.importorskip("trl")
    from bench import baseline_layouts

    return baseline_layouts


@pytest.mark.parametrize("layout", trl.LAYOUTS)
def test_every_layout_holds_each_example_once_and_each_step_as_many_micro_batches(
    layouts: ModuleType,
    layout: str,
) -> None:
    steps = [make_step(), make_step((30, 3))]
    plan = layouts.lay_out(steps, layouts.Batching.parse(layout))
    assert len({len(step) for step in plan}) == 1
    for step, expected in zip(plan, (range(5), range(5, 7)), strict=True):
        assert sorted(number for micro in step for number in micro if micro != layouts.FILLER) == [*expected]


def test_padded_batches_hold_examples_of_like_length(layouts: ModuleType) -> None:
    (step,) = layouts.lay_out([make_step()], layouts.Batching("padded", 2))
    lengths = [[LENGTHS[number] for number in micro] for micro in step]
    assert sorted(lengths) == [[4], [5, 4], [9, 7]]


def test_a_step_with_too_few_examples_is_filled_up_in_front(layouts: ModuleType) -> None:
    long, short = layouts.lay_out([make_step(), make_step((3, 4))], layouts.Batching("padded", 1))
    assert len(long) == len(short) == 5
    assert short[:3] == [layouts.FILLER] * 3
    assert layouts.to_features(make_step())[-1] == {"input_ids": [0, 0], "labels": [IGNORE_INDEX] * 2}


def test_packed_micro_batches_are_the_tensors_of_trls_own_packing(layouts: ModuleType) -> None:
    import datasets
    from trl import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    features = layouts.to_features(make_step())
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    (plan,) = layouts.lay_out([make_step()], layouts.Batching("packed", 12))
    ours = [collate([features[number] for number in micro]) for micro in plan]
    packed = pack_dataset(datasets.Dataset.from_list(features[:-1]), 12, "bfd")
    theirs = [collate([row]) for row in packed]
    for name in ("input_ids", "labels", "position_ids"):
        assert sorted(batch[name].tolist() for batch in ours) == sorted(
            batch[name].tolist() for batch in theirs
        )
    assert len(ours) == 3


def test_the_labels_that_a_baseline_gets_are_the_supervised_tokens(layouts: ModuleType) -> None:
    feature = layouts.to_features([make_example(4, 10)])[0]
    assert feature == {"input_ids": [10, 11, 12, 13], "labels": [IGNORE_INDEX, IGNORE_INDEX, 12, 13]}


@pytest.mark.parametrize("check", [lambda own, other: trl.check_losses(own, other, 5e-3), bare.check_losses])
def test_loss_curves_that_part_are_noticed(check: Any) -> None:
    assert check([2.0, 1.5], [2.0, 1.501]) == pytest.approx(0.001)
    for wrong in ([2.0, 1.51], [2.0, float("nan")]):
        with pytest.raises(WrongResultError, match="losses of the harness"):
            check([2.0, 1.5], wrong)


def test_the_facts_tell_tokens_alone_and_as_packed_rows() -> None:
    facts = trl.describe_steps([make_step()], [[make_example(20)]])
    assert facts["examples_per_step"] == 5
    assert facts["tokens_per_example_alone"] == sum(LENGTHS) / 5
    assert facts["tokens_per_example_computed_by_the_harness"] == 4
    assert facts["supervised_tokens_per_example"] == 2


def test_live_memory_counts_what_is_alive_at_once_and_its_wide_part() -> None:
    with (memory := LiveMemory(width=100)):
        first = torch.zeros(10, 100)
        second = first * 2
        del first
        view = (second + 1)[:5]
        del second
        torch.zeros(7, 7)
        assert len(view) == 5
    assert memory.widest == 2 * 4000
    assert memory.most == 2 * 4000


def test_live_memory_grows_with_what_is_kept_for_backward() -> None:
    weight = torch.randn(16, 100)
    peaks = []
    for rows in (10, 20):
        hidden = torch.randn(rows, 16, requires_grad=True)
        with (memory := LiveMemory(width=100)):
            loss = torch.nn.functional.cross_entropy(hidden @ weight, torch.zeros(rows, dtype=torch.long))
            loss.backward()  # type: ignore[no-untyped-call]
        peaks.append(memory.widest)
    assert peaks[1] == 2 * peaks[0] >= 2 * 2 * 10 * 100 * 4


def run_quick(name: str) -> dict[str, Any]:
    """The record of a quick run, in a process of its own: it joins a world and starts trainers."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--quick", "--json"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


@pytest.mark.slow
def test_a_quick_run_against_trl_has_one_loss_curve_and_a_ratio() -> None:
    pytest.importorskip("trl")
    record = run_quick("trl")
    for library in ("trl", "trl_patched", "trainer_deepspeed"):
        assert record["facts"][f"five_tasks: {library} largest_loss_difference"] < 1e-3
        assert record["ratios"][f"five_tasks against {library}"]["n"] == trl.QUICK.num_steps - 1
    shared, alone = "tokens_per_example_computed_by_the_harness", "tokens_per_example_alone"
    assert record["facts"][f"five_tasks: {shared}"] < 0.6 * record["facts"][f"five_tasks: {alone}"]


@pytest.mark.slow
def test_a_quick_run_beside_a_bare_engine_trains_the_same_weights() -> None:
    record = run_quick("bare")
    assert record["facts"]["largest_loss_difference"] < 1e-4
    assert set(record["ratios"]) == {"harness", "bare_engine_again"}


def test_a_cost_in_one_step_of_twenty_is_shared_out_over_all() -> None:
    assert profile.mix(1.0, 21.0) == pytest.approx(2.0)
    points = [TimelinePoint(0.0, where, 1) for where in ("forward begins", "layer 0 forward", "forward ends")]
    micros = {"phase": [100.0], "phase_closely": [300.0], "point": [50.0], "hooks_of_a_step": [10.0]}
    found = profile.add_up(micros, MemoryTimeline(0, 1, tuple(points)), step_s=0.01)
    assert found["added_up_percent_phases"] == pytest.approx(1.0)
    assert found["added_up_percent_timeline"] == pytest.approx(3.6)
    assert (found["phases_in_a_step"], found["points_in_a_timeline"]) == (1, 3)


@pytest.mark.slow
def test_a_quick_run_of_the_profile_s_cost_times_each_way_and_each_action() -> None:
    record = run_quick("profile")
    assert set(record["ratios"]) == {"phases", "timeline"}
    # One layer, one micro-step: four phases, the layer's end, and the head's backward pass.
    assert record["facts"]["points_in_a_timeline"] == 2 * 4 + 2
    assert all(record["figures"][f"{name}_us"]["median"] > 0 for name in ("phase", "point", "parts"))


@pytest.mark.slow
def test_the_memory_of_logits_is_flat_where_a_plain_forward_pass_grows() -> None:
    facts = run_quick("growth")["facts"]
    assert facts["loss_chunk"] == growth.LOSS_CHUNK
    small, large = growth.QUICK.micro_batches
    own = [facts[f"micro-batch of {rows}: harness logits_mib"] for rows in (small, large)]
    plain = [facts[f"micro-batch of {rows}: plain forward logits_mib"] for rows in (small, large)]
    assert own[0] == own[1] <= 8 * growth.LOSS_CHUNK * VOCAB_SIZE * 2 / 2**20
    assert plain[1] > 1.7 * plain[0] > 3 * own[0]
