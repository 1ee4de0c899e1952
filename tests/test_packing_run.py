"""Whole runs over the same examples in different packings: one curve, dropout, evaluation, best step included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import make_config, read_losses, read_metrics, train_on_ranks
from tests.toys import make_dataset, make_model_dir, make_tokenizer

TOLERANCE = 1e-4
WAYS = {
    "shared": ("data", ()),
    "separate": ("separate-data", ()),
    "long-rows": ("long-data", ("batch.micro_batch_size=3",)),
    "dense": ("data", ("model.attention=sdpa", "model.lora_kernel=peft", "batch.micro_batch_size=2")),
    "recomputed": ("data", ("model.recompute_layers=1",)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of four steps, each over all examples, by one rank and (separate examples) by two."""
    folder = tmp_path_factory.mktemp("packing")
    for name, seq_len, share in (
        ("data", 256, True),
        ("separate-data", 256, False),
        ("long-data", 700, True),
    ):
        make_dataset(folder / name, num_songs=6, seq_len=seq_len, num_eval_songs=2, share_prefix=share)
    make_model_dir(folder / "model", make_tokenizer().vocab_size)
    train_on_ranks(1, [config_of(folder, name, data, *options) for name, (data, options) in WAYS.items()])
    train_on_ranks(1, [config_of(folder, "other-seed", "data", "seed=1")])
    train_on_ranks(2, [config_of(folder, "two-ranks", "separate-data")])
    return folder


def config_of(root: Path, name: str, data: str, *overrides: str) -> Path:
    always = (
        "lora.dropout=0.2",
        "batch.global_batch_size=null",
        "batch.tokens_per_step=1000000",
        "schedule.max_steps=4",
        "schedule.save_every_steps=1",
        "optimizer.learning_rate=0.05",
    )
    return make_config(root, root / name, root / data, root / "model", (*always, *overrides))


def read_eval(run_dir: Path) -> list[float]:
    return [float(line["loss"]) for line in read_metrics(run_dir) if line["kind"] == "eval"]


def best_step(run_dir: Path) -> int:
    state = json.loads((run_dir / "checkpoint-4" / "state.json").read_text())["state"]
    return int(state["best_step"])


@pytest.mark.parametrize("name", [*WAYS, "two-ranks"][1:])
def test_the_packing_changes_neither_the_curve_nor_what_is_the_best_step(root: Path, name: str) -> None:
    reference, run = root / "shared", root / name
    assert read_losses(run) == pytest.approx(read_losses(reference), abs=TOLERANCE)
    assert read_eval(run) == pytest.approx(read_eval(reference), abs=TOLERANCE)
    assert best_step(run) == best_step(reference)
    rates = [
        [line["learning_rate"] for line in read_metrics(folder) if line["kind"] == "train"]
        for folder in (run, reference)
    ]
    assert rates[0] == rates[1]


def test_other_dropout_masks_would_not_pass_as_the_same_curve(root: Path) -> None:
    assert read_losses(root / "other-seed") != pytest.approx(read_losses(root / "shared"), abs=TOLERANCE)


def test_what_a_step_saw_of_each_task_is_logged_and_adds_up(root: Path) -> None:
    for name in ("shared", "two-ranks"):
        lines = [line for line in read_metrics(root / name) if line["kind"] == "train"]
        for line in lines:
            tasks = line["by_task"].values()
            assert sum(task["examples"] for task in tasks) == line["examples"]
            assert sum(task["supervised_tokens"] for task in tasks) == line["supervised_tokens"]
            weighted = sum(task["loss"] * task["supervised_tokens"] for task in tasks)
            assert weighted / line["supervised_tokens"] == pytest.approx(line["loss"], rel=1e-9)


def test_separate_examples_take_more_tokens_for_the_same_supervision(root: Path) -> None:
    shared, separate = (
        next(line for line in read_metrics(root / name) if line["kind"] == "train")
        for name in ("shared", "separate")
    )
    assert separate["tokens"] > 1.5 * shared["tokens"]
    assert separate["supervised_tokens"] == shared["supervised_tokens"]
    assert separate["examples"] == shared["examples"]
