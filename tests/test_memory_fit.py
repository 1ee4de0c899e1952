"""Rows and layers found before the first step: kept, reused, and without a trace in what the run computes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from rich.console import Console

from harness.config import load_run_config
from harness.memory.fit_file import Fit, read_fit, write_fit
from harness.memory.limit import CpuMemory, RankMemory, read_status
from harness.memory.search import Choice
from harness.train import parse_arguments, train
from preprocess.errors import UserError
from tests.dist_ranks import run_ranks
from tests.runs import make_config, read_adapter, read_losses
from tests.toys import make_dataset, make_model_dir, make_tokenizer

MIB = 2**20
RANKS = 2
STAGES = (0, 2, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    make_dataset(folder / "data", num_songs=60, seq_len=256, num_eval_songs=6)
    make_model_dir(folder / "model", make_tokenizer().vocab_size, num_layers=6)
    return folder


def config_of(root: Path, name: str, *overrides: str) -> Path:
    given = ("schedule.max_steps=2", "batch.global_batch_size=48", "lora.dropout=0.1", *overrides)
    return make_config(root, root / name, root / "data", root / "model", given)


def train_with_room(
    configs: Sequence[Path], rooms: Sequence[int], limits: list[int] | None = None
) -> list[tuple[int, str, str]]:
    """Train with a limit so many bytes above what the engine holds; 0: none. Exit code, error, what was printed."""
    torch.use_deterministic_algorithms(mode=True)
    outcomes = []
    for path, room in zip(configs, rooms, strict=True):
        code, text = 0, ""

        def open_little(*_: object, room: int = room) -> RankMemory:
            # Fixed by the first run, for what is kept is kept for a limit.
            limit = limits[0] if limits else (read_status("VmRSS") if room < 2**40 else 0) + room
            if limits is not None and not limits:
                limits.append(limit)
            return CpuMemory(limit, 1)

        console = Console(record=True, width=200, file=StringIO())
        try:
            with patch("harness.memory.fit.open_memory", open_little):
                train(load_run_config(path), console)
        except UserError as error:
            code, text = error.exit_code, str(error)
        outcomes.append((code, text, console.export_text()))
    return outcomes


def read_fit_file(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "memory_fit.json").read_text())
    return values


@pytest.fixture(scope="module")
def found(root: Path) -> list[list[tuple[int, str, str]]]:
    paths = [
        config_of(root, f"found-{stage}", f"deepspeed=zero{stage}", "memory.target=0.9") for stage in STAGES
    ]
    return run_ranks(train_with_room, RANKS, paths, [300 * MIB] * len(STAGES), timeout_s=300)


@pytest.mark.parametrize("stage", STAGES)
def test_a_search_is_agreed_on_and_leaves_no_trace_in_the_run(
    root: Path, found: list[list[tuple[int, str, str]]], stage: int
) -> None:
    for ends in found:
        code, text, _ = ends[STAGES.index(stage)]
        assert (code, text) == (0, "")
    fit = read_fit_file(root / f"found-{stage}")
    assert fit["origin"] == "search"
    assert fit["peak_bytes"] <= fit["target_bytes"]
    choice = fit["choice"]
    by_hand = config_of(
        root,
        f"hand-{stage}",
        f"deepspeed=zero{stage}",
        f"batch.micro_batch_size={choice['rows']}",
        f"model.recompute_layers={choice['layers']}",
    )
    run_ranks(train_with_room, RANKS, [by_hand], [2**40], timeout_s=200)
    assert read_losses(root / f"found-{stage}") == read_losses(root / f"hand-{stage}")
    expected = read_adapter(root / f"hand-{stage}")
    for name, weight in read_adapter(root / f"found-{stage}").items():
        assert torch.equal(weight, expected[name]), name


def test_the_choice_is_printed_with_its_peak_and_the_number_of_trials(
    found: list[list[tuple[int, str, str]]],
) -> None:
    printed = found[0][0][2]
    for part in ("micro_batch_size", "recompute_layers", "target 90.0%", "trials in"):
        assert part in printed


def test_a_kept_choice_is_taken_again_and_one_for_other_settings_is_not(root: Path) -> None:
    first = config_of(root, "kept", "memory.target=0.9", "schedule.max_steps=1")
    second = root / "again.yaml"
    second.write_text(
        first.read_text().replace("resume: false", "resume: true").replace("max_steps: 1", "max_steps: 1")
    )
    third = root / "other.yaml"
    third.write_text(second.read_text().replace("target: 0.9", "target: 0.8"))
    ((_, again, other),) = run_ranks(train_fixed, 1, [first, second, third], 300 * MIB, timeout_s=200)
    assert "as" in again[2]
    assert "memory_fit.json has it (search)" in again[2]
    assert "trials in" not in again[2]
    assert "found for another target; it is made anew" in other[2]
    assert "trials in" in other[2]


def train_fixed(configs: Sequence[Path], room: int) -> list[tuple[int, str, str]]:
    return train_with_room(configs, [room] * len(configs), limits=[])


def test_a_target_that_cannot_be_reached_ends_with_code_8_and_the_table(root: Path) -> None:
    paths = [
        config_of(root, "state", "memory.target=0.5"),
        config_of(root, "taken", "memory.target=0.9"),
    ]
    ((state, taken),) = run_ranks(train_with_room, 1, paths, [10 * MIB, 2**50], timeout_s=200)
    assert state[0] == taken[0] == 8
    for part in (
        "weights, optimizer and gradients alone take",
        "frozen_weights",
        "the rest",
        "What takes less",
    ):
        assert part in state[1]
    for part in ("wants", "rank 0 can have", "Another process may hold it"):
        assert part in taken[1]


def test_the_flag_is_the_setting(root: Path) -> None:
    options = parse_arguments(["--config", "x", "--vram-target", "0.94"])
    assert options.vram_target == 0.94
    assert load_run_config(config_of(root, "flag"), ["memory.target=0.94"]).memory.target == 0.94


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    path, fit = tmp_path / "memory_fit.json", Fit(Choice(3, 1), "search", 1.0, 2.0)
    write_fit(path, {"a": 1}, fit)
    assert read_fit(path, {"a": 1}) == (fit, None)
    assert read_fit(path, {"a": 2, "b": 3}) == (None, f"{path}: found for another a, b; it is made anew")
    path.write_text("{")
    assert read_fit(path, {"a": 1}) == (None, f"{path}: damaged; it is made anew")
    path.unlink()
    assert read_fit(path, {"a": 1}) == (None, None)
