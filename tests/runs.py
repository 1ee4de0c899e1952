"""Run trainings in tests: configurations over toy data, on gloo ranks in one process group or as real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from harness.config import load_run_config
from harness.train import train
from tests.dist_ranks import run_ranks

REPOSITORY = Path(__file__).parent.parent


def make_config(
    folder: Path, output_dir: Path, data: Path, model: Path, overrides: Sequence[str] = ()
) -> Path:
    """Write a run's YAML for toy data: float32, rank 4, twelve rows a step, six steps."""
    values = {
        "output_dir": str(output_dir),
        "model": {"path": str(model), "precision": "fp32"},
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
