"""Runs that stop and go on: bit for bit on as many ranks at the same ZeRO stage, near to it on others."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.checkpoints import find_damage
from tests.checkpoint_ranks import Leg, run_legs
from tests.dist_ranks import run_ranks
from tests.runs import make_config, read_adapter, write_zero3_that_splits_everything
from tests.toys import make_dataset, make_model_dir, make_tokenizer

QUICK = [(0, "bf16"), (1, "fp32"), (2, "bf16"), (3, "bf16")]
SLOW = [*product(range(4), ("fp32", "bf16")), (0, "fp16"), (2, "fp16"), (3, "fp16")]
STEPS, STOP = 3, 1
RANKS = 3
BROKEN = ("forget_moments", "shift_by_one", "drop_a_part")
LOSS_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    make_dataset(folder / "data", num_songs=40, seq_len=192, num_eval_songs=6, num_lines=2)
    make_model_dir(folder / "model", make_tokenizer().vocab_size)
    return folder


def leg_of(
    root: Path, name: str, stage: int, precision: str = "fp32", steps: int = STEPS, **more: Any
) -> Leg:
    deepspeed = f"zero{stage}" if stage < 3 else str(write_zero3_that_splits_everything(root))
    overrides = (
        f"deepspeed={deepspeed}",
        f"model.precision={precision}",
        f"schedule.max_steps={steps}",
        "schedule.save_every_steps=1",
        "schedule.keep_checkpoints=99",
        "lora.dropout=0.2",
        "batch.global_batch_size=7",
    )
    config = make_config(root, root / name, root / "data", root / "model", overrides)
    return Leg(config, **more)


def name_of(case: tuple[int, str]) -> str:
    return f"zero{case[0]}-{case[1]}"


def whole_and_resumed(root: Path, case: tuple[int, str], steps: int = STEPS, stop: int = STOP) -> list[Leg]:
    name = name_of(case)
    return [
        leg_of(root, f"whole-{name}", *case, steps),
        leg_of(root, f"resumed-{name}", *case, steps, source=root / f"whole-{name}", step=stop),
    ]


@pytest.fixture(scope="module")
def outcomes(root: Path) -> dict[str, list[tuple[int, str]]]:
    """What each rank's trainings ended with, by the name of the run folder."""
    # The first steps of the elastic run are one rank's; the ones after them three ranks' at another stage.
    assert run_ranks(run_legs, 1, [leg_of(root, "alone", 0)], timeout_s=300) == [[(0, "")]]
    legs = [leg for case in QUICK for leg in whole_and_resumed(root, case)]
    source = root / "whole-zero1-fp32"
    legs += [leg_of(root, name, 1, source=source, step=STOP, breaks=name) for name in BROKEN]
    legs += [leg_of(root, "full", 1, breaks="fill_disk_of_rank_1")]
    legs += [leg_of(root, "elastic", 3, source=root / "alone", step=STOP)]
    of_ranks = run_ranks(run_legs, RANKS, legs, timeout_s=600)
    return {leg.config.stem: [ends[at] for ends in of_ranks] for at, leg in enumerate(legs)}


def read_records(run_dir: Path, rank: int, after: int = 0) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / f"record-{rank}.jsonl").read_text().splitlines()]
    return [line for line in lines if line["step"] > after]


def differences(root: Path, one: str, other: str, after: int, ranks: int = RANKS) -> set[str]:
    """Names of what is not the same in the steps of two runs, on any rank."""
    found = set()
    for rank in range(ranks):
        lines = read_records(root / one, rank, after), read_records(root / other, rank, after)
        assert len(lines[0]) == len(lines[1]) > 0
        found |= {name for a, b in zip(*lines, strict=True) for name in a if a[name] != b[name]}
    return found


def rows_by_step(run_dir: Path, ranks: int) -> dict[int, list[str]]:
    """Digests of the rows of each step over all ranks, sorted."""
    lines = [line for rank in range(ranks) for line in read_records(run_dir, rank)]
    steps = {line["step"] for line in lines}
    return {
        step: sorted(row for line in lines if line["step"] == step for row in line["rows"]) for step in steps
    }


@pytest.mark.parametrize("case", QUICK, ids=name_of)
def test_a_run_that_stopped_goes_on_to_the_bit_as_if_it_had_not(
    root: Path, outcomes: dict[str, list[tuple[int, str]]], case: tuple[int, str]
) -> None:
    name = name_of(case)
    assert outcomes[f"whole-{name}"] == outcomes[f"resumed-{name}"] == [(0, "")] * RANKS
    assert differences(root, f"whole-{name}", f"resumed-{name}", STOP) == set()
    same_files(root / f"whole-{name}", root / f"resumed-{name}", STEPS)


def same_files(one: Path, other: Path, step: int) -> None:
    """Two checkpoints have the same bytes of state, and the same adapter (whose metadata has no order)."""
    name = f"checkpoint-{step}"
    parts = sorted((one / name / "state").iterdir())
    assert len(parts) == RANKS
    for part in parts:
        assert part.read_bytes() == (other / name / "state" / part.name).read_bytes(), part.name
    adapters = [load_file(str(run / name / "adapter" / "adapter_model.safetensors")) for run in (one, other)]
    assert all(torch.equal(adapters[0][key], adapters[1][key]) for key in adapters[0])


def test_moments_that_are_forgotten_would_not_pass_as_the_same(
    root: Path, outcomes: dict[str, list[tuple[int, str]]]
) -> None:
    assert outcomes["forget_moments"] == [(0, "")] * RANKS
    found = differences(root, "whole-zero1-fp32", "forget_moments", STOP)
    assert {"master", "exp_avg", "exp_avg_sq", "weights", "loss"} <= found
    assert "rows" not in found


def test_values_that_are_shifted_by_one_would_not_pass_as_the_same(
    root: Path, outcomes: dict[str, list[tuple[int, str]]]
) -> None:
    assert outcomes["shift_by_one"] == [(0, "")] * RANKS
    assert {"master", "loss"} <= differences(root, "whole-zero1-fp32", "shift_by_one", STOP)


def test_a_part_that_is_left_out_ends_the_run_with_code_5(outcomes: dict[str, list[tuple[int, str]]]) -> None:
    for code, text in outcomes["drop_a_part"]:
        assert code == 5
        assert "its parts do not hold each value of" in text


def test_a_disk_that_is_full_on_one_rank_ends_all_with_code_9_and_leaves_the_checkpoints_before(
    root: Path, outcomes: dict[str, list[tuple[int, str]]]
) -> None:
    for code, text in outcomes["full"]:
        assert code == 9
        assert text.startswith("on rank 1: no space left while writing")
    folders = {path.name for path in (root / "full").glob("checkpoint-*")}
    assert folders == {"checkpoint-1"}
    assert all(find_damage(root / "full" / name) is None for name in folders)
    # Training has gone on meanwhile, and every rank has heard of it after the same step.
    assert len({len(read_records(root / "full", rank)) for rank in range(RANKS)}) == 1


def test_one_ranks_run_goes_on_on_three_at_another_zero_stage(
    root: Path, outcomes: dict[str, list[tuple[int, str]]]
) -> None:
    assert outcomes["elastic"] == [(0, "")] * RANKS
    compare_elastic(root, root / "whole-zero1-fp32", root / "elastic", [(STOP, STEPS, RANKS)])


def compare_elastic(root: Path, whole: Path, other: Path, legs: list[tuple[int, int, int]]) -> None:
    """Each leg (after a step, to a step, ranks) takes the rows of the unbroken run, with nearly its losses."""
    expected, found = rows_by_step(whole, RANKS), rows_by_step(other, max(ranks for *_, ranks in legs))
    losses = {line["step"]: line["loss"] for line in read_records(whole, 0)}
    own = {line["step"]: line["loss"] for line in read_records(other, 0)}
    for after, until, _ in legs:
        for step in range(after + 1, until + 1):
            assert found[step] == expected[step], step
            assert own[step] == pytest.approx(losses[step], abs=LOSS_TOLERANCE), step


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=name_of)
def test_every_stage_and_precision_goes_on_to_the_bit(root: Path, case: tuple[int, str]) -> None:
    legs = [
        leg_of(root, f"all-whole-{name_of(case)}", *case),
        leg_of(
            root, f"all-resumed-{name_of(case)}", *case, source=root / f"all-whole-{name_of(case)}", step=STOP
        ),
    ]
    assert run_ranks(run_legs, RANKS, legs, timeout_s=600) == [[(0, "")] * 2] * RANKS
    whole, resumed = (leg.config.stem for leg in legs)
    assert differences(root, whole, resumed, STOP) == set()
    same_files(root / whole, root / resumed, STEPS)


@pytest.mark.slow
def test_twenty_stop_points_give_the_same_bits(root: Path) -> None:
    steps = 21
    legs = [leg_of(root, "twenty", 1, "bf16", steps)]
    legs += [
        leg_of(root, f"twenty-{stop}", 1, "bf16", steps, source=root / "twenty", step=stop)
        for stop in range(1, steps)
    ]
    assert run_ranks(run_legs, RANKS, legs, timeout_s=1500) == [[(0, "")] * len(legs)] * RANKS
    for stop in range(1, steps):
        assert differences(root, "twenty", f"twenty-{stop}", stop) == set(), stop
        same_files(root / "twenty", root / f"twenty-{stop}", steps)


@pytest.mark.slow
def test_three_two_one_and_three_ranks_at_four_stages_are_nearly_three_ranks_that_never_stopped(
    root: Path,
) -> None:
    steps = 8
    first = [leg_of(root, "unbroken", 1, "fp32", steps), leg_of(root, "moved-0", 1, "fp32", steps)]
    assert run_ranks(run_legs, 3, first, timeout_s=600) == [[(0, "")] * 2] * 3
    plan = [(2, 2, 4), (1, 0, 6), (3, 3, 8)]
    before, after = "moved-0", 2
    for at, (ranks, stage, until) in enumerate(plan, start=1):
        leg = leg_of(root, f"moved-{at}", stage, "fp32", steps, source=root / before, step=after)
        assert run_ranks(run_legs, ranks, [leg], timeout_s=600) == [[(0, "")]] * ranks
        compare_elastic(root, root / "unbroken", root / f"moved-{at}", [(after, until, ranks)])
        before, after = f"moved-{at}", until
    one, other = read_adapter(root / "unbroken"), read_adapter(root / before)
    assert all((one[name] - other[name]).abs().max() < 1e-3 for name in one)
