"""Memory that runs out on one rank: the step is taken again in what takes less, and nothing is lost."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.memory.fit_file import shrink
from harness.memory.search import Choice
from tests.dist_ranks import run_ranks
from tests.fit_ranks import Place, Planned, Planted, run_planned, run_with_little_room
from tests.runs import make_config, read_adapter, read_losses, read_metrics
from tests.toys import make_dataset, make_model_dir, make_tokenizer

STAGES = (0, 1, 2)
PLACES: tuple[Place, ...] = ("forward", "loss", "backward")
RANKS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recovery")
    make_dataset(folder / "data", num_songs=40, seq_len=192, num_eval_songs=6, num_lines=2)
    make_model_dir(folder / "model", make_tokenizer().vocab_size, num_layers=4)
    return folder


def config_of(root: Path, name: str, stage: int, *overrides: str) -> Path:
    given = (f"deepspeed=zero{stage}", "schedule.max_steps=2", *overrides)
    return make_config(root, root / name, root / "data", root / "model", given)


@pytest.fixture(scope="module")
def outcomes(root: Path) -> dict[str, list[tuple[int, str]]]:
    """What each rank's runs ended with, by the names of their folders; twelve rows a step, four micro-steps."""
    runs = []
    for stage in STAGES:
        runs += [Planned(config_of(root, f"whole-{stage}", stage))]
        runs += [
            Planned(config_of(root, f"{place}-{stage}", stage), Planted(place, 1, call=6)) for place in PLACES
        ]
        halved = config_of(root, f"halved-{stage}", stage, "batch.micro_batch_size=4")
        runs += [Planned(halved, Planted("backward", 2, call=1))]
        runs += [Planned(config_of(root, f"small-{stage}", stage, "batch.micro_batch_size=2"))]
    planted = Planted("backward", 1, call=6)
    runs += [Planned(config_of(root, "wrong", 1), planted, keeps_gradients=True)]
    eval_config = config_of(root, "eval", 1, "batch.micro_batch_size=2")
    runs += [Planned(eval_config, Planted("eval", 1, call=1))]
    runs += [Planned(config_of(root, "never", 1), Planted("forward", 1, call=1, times=99))]
    of_ranks = run_ranks(run_planned, RANKS, runs, timeout_s=400)
    return {run.config.stem: [ends[at] for ends in of_ranks] for at, run in enumerate(runs)}


def events_of(run_dir: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run_dir) if line["kind"] == "event"]


def assert_same(one: Path, other: Path) -> None:
    assert read_losses(one) == read_losses(other)
    expected = read_adapter(other)
    for name, weight in read_adapter(one).items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize(("place", "stage"), list(product(PLACES, STAGES)))
def test_a_step_that_broke_on_one_rank_leaves_every_bit_as_if_it_had_not(
    root: Path, outcomes: dict[str, list[tuple[int, str]]], place: Place, stage: int
) -> None:
    name = f"{place}-{stage}"
    assert outcomes[name] == [(0, "")] * RANKS
    assert_same(root / name, root / f"whole-{stage}")
    (event,) = events_of(root / name)
    assert event["step"] == 2
    assert event["ranks"] == [1]
    assert event["tried"] == {"rows": 1, "layers": 0}
    assert event["taken"] == {"rows": 1, "layers": 2}
    assert event["reason"] == "CUDA out of memory. Tried to allocate 2.00 GiB"
    fit = json.loads((root / name / "memory_fit.json").read_text())
    assert fit["choice"] == event["taken"]
    assert not (root / f"whole-{stage}" / "memory_fit.json").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_half_of_the_rows_from_the_first_step_on_is_a_run_with_half_of_the_rows(
    root: Path, outcomes: dict[str, list[tuple[int, str]]], stage: int
) -> None:
    assert outcomes[f"halved-{stage}"] == [(0, "")] * RANKS
    assert_same(root / f"halved-{stage}", root / f"small-{stage}")
    (event,) = events_of(root / f"halved-{stage}")
    assert (event["tried"]["rows"], event["taken"]["rows"]) == (4, 2)


def test_gradients_that_are_left_lying_would_not_pass_as_the_same(
    root: Path, outcomes: dict[str, list[tuple[int, str]]]
) -> None:
    assert outcomes["wrong"] == [(0, "")] * RANKS
    whole = read_adapter(root / "whole-1")
    assert any(not torch.equal(weight, whole[name]) for name, weight in read_adapter(root / "wrong").items())


def test_an_evaluation_that_broke_is_done_again_with_fewer_rows(
    root: Path, outcomes: dict[str, list[tuple[int, str]]]
) -> None:
    assert outcomes["eval"] == [(0, "")] * RANKS
    losses = [
        line["loss"]
        for name in ("eval", "small-1")
        for line in read_metrics(root / name)
        if line["kind"] == "eval"
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert read_losses(root / "eval") == read_losses(root / "small-1")


def test_where_nothing_takes_less_every_rank_ends_with_code_8_and_says_where_memory_went(
    root: Path, outcomes: dict[str, list[tuple[int, str]]]
) -> None:
    for code, text in outcomes["never"]:
        assert code == 8
        assert "step 1: memory ran out on rank 1 with micro_batch_size 1, recompute_layers 4" in text
        for part in ("frozen_weights", "lora_weights", "the rest", "limit"):
            assert part in text
    assert not list((root / "never").glob("checkpoint-*"))


@pytest.mark.slow
def test_a_real_allocation_that_fails_is_answered_in_the_same_way(root: Path) -> None:
    paths = [
        config_of(
            root,
            name,
            0,
            f"batch.micro_batch_size={rows}",
            "batch.global_batch_size=48",
            "memory.limit_gib=1",
        )
        for name, rows in (("real", 48),)
    ]
    ((end,),) = run_ranks(run_with_little_room, 1, paths, 90 * 2**20, timeout_s=200)
    assert end == (0, "")
    events = events_of(root / "real")
    assert events
    assert "allocate memory" in events[0]["reason"]
    small = config_of(root, "real-small", 0, "batch.global_batch_size=48", "batch.micro_batch_size=1")
    run_ranks(run_planned, 1, [Planned(small)], timeout_s=200)
    assert read_losses(root / "real") == pytest.approx(read_losses(root / "real-small"), abs=1e-5)


@pytest.mark.parametrize(
    ("choice", "rows_in_step", "less"),
    [
        (Choice(24, 0), 24, Choice(12, 0)),
        (Choice(24, 0), 5, Choice(2, 0)),
        (Choice(3, 7), 9, Choice(1, 7)),
        (Choice(8, 0), 1, Choice(1, 14)),
        (Choice(1, 0), 9, Choice(1, 14)),
        (Choice(1, 14), 9, Choice(1, 28)),
        (Choice(1, 28), 9, None),
    ],
)
def test_rows_are_given_up_before_kept_layers(choice: Choice, rows_in_step: int, less: Choice | None) -> None:
    assert shrink(choice, rows_in_step, 28) == less
