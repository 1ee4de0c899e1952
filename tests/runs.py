"""Run trainings in tests: configurations over toy data, on gloo ranks in one process group or as real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from harness.config import load_run_config
from harness.dist import run_together
from harness.engine import build_engine, evaluate_loss
from harness.train import train
from preprocess.errors import DataError, UserError
from tests.dist_ranks import run_ranks

REPOSITORY = Path(__file__).parent.parent


def make_config(
    folder: Path, output_dir: Path, data: Path, model: Path, overrides: Sequence[str] = ()
) -> Path:
    """Write a run's YAML for toy data: float32, rank 4, twelve rows a step, six steps."""
    values = {
        "output_dir": str(output_dir),
        # A chunk so small that ranks differ in the passes they need through the head.
        "model": {"path": str(model), "precision": "fp32", "loss_chunk": 8},
        "data": {"path": str(data)},
        "lora": {"r": 4, "alpha": 8},
        "batch": {"micro_batch_size": 1, "global_batch_size": 12},
        "optimizer": {"learning_rate": 1.0e-2},
        "schedule": {"epochs": 100, "max_steps": 6},
        "tensorboard": False,
    }
    path = folder / f"{output_dir.name}.yaml"
    path.write_text(yaml.safe_dump(values))
    config = load_run_config(path, overrides)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def write_zero3_that_splits_everything(folder: Path) -> Path:
    """The shipped ZeRO-3 file, but without its exemption for small parameters: a toy model has no large ones."""
    values = json.loads((REPOSITORY / "ds_configs" / "zero3.json").read_text())
    values["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path = folder / "zero3-whole.json"
    path.write_text(json.dumps(values))
    return path


def train_in_turn(paths: Sequence[Path]) -> None:
    """Run several trainings one after another in this rank's process group."""
    torch.use_deterministic_algorithms(mode=True)
    for path in paths:
        train(load_run_config(path), Console(quiet=True))


def train_on_ranks(world_size: int, paths: Sequence[Path], timeout_s: float = 300) -> None:
    """Run several trainings on ranks that are started once."""
    run_ranks(train_in_turn, world_size, list(paths), timeout_s=timeout_s)


def train_on_own_disks(config: Path, folders: Path, overrides: Sequence[str]) -> None:
    """Train as the only rank of a host whose disk no other host sees: each rank has a run folder of its own."""
    rank = os.environ["RANK"]
    os.environ["LOCAL_RANK"] = "0"
    overrides = [*overrides, f"output_dir={folders / f'host{rank}'}"]
    train(load_run_config(config, overrides), Console(quiet=True))


def train_with_bad_gradients(config: Path, bad_steps: Sequence[int], overrides: Sequence[str] = ()) -> None:
    """Train, but poison the gradient of one adapter matrix in some steps (one micro-step a step)."""
    calls = iter(range(1, 10_000))

    def build_poisoned(*args: Any, **kwargs: Any) -> Any:
        engine = build_engine(*args, **kwargs)
        parameter = next(parameter for parameter in engine.module.parameters() if parameter.requires_grad)
        parameter.register_hook(lambda grad: grad * float("nan") if next(calls) in bad_steps else grad)
        return engine

    values = ["batch.global_batch_size=1", "batch.micro_batch_size=1", *overrides]
    with patch("harness.building.build_engine", build_poisoned):
        train(load_run_config(config, values), Console(quiet=True))


def train_with_bad_eval(config: Path, bad_call: int | None, overrides: Sequence[str] = ()) -> None:
    """Train, but let one evaluation (counted from 1) find that its loss is no number."""
    calls = iter(range(1, 10_000))

    def evaluate(*args: Any, **kwargs: Any) -> tuple[float, list[float], int]:
        loss, by_task, supervised = evaluate_loss(*args, **kwargs)
        return (float("nan") if next(calls) == bad_call else loss), by_task, supervised

    with patch("harness.redo.evaluate_loss", evaluate):
        train(load_run_config(config, overrides), Console(quiet=True))


def fail_together_on(failing_rank: int) -> tuple[str, str]:
    """What each rank sees when one of them fails in a common action."""

    def act() -> None:
        if int(os.environ["RANK"]) == failing_rank:
            raise DataError("no data here")

    try:
        run_together(act)
    except UserError as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def read_losses(run_dir: Path) -> list[float]:
    """The loss of every step."""
    return [float(line["loss"]) for line in read_metrics(run_dir) if line["kind"] == "train"]


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def read_adapter(run_dir: Path) -> dict[str, torch.Tensor]:
    """The published adapter's weights."""
    return load_file(str(run_dir / "adapter" / "adapter_model.safetensors"))


def start_train(config: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `python -m harness.train` as a user would, as one rank."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", **(env or {})}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.train", "--config", str(config), *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
