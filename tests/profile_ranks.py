"""What tests of profiles run on ranks: a training with a sleep planted in one part, or with an export that fails."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console

from harness.config import load_run_config
from harness.loader import StepLoader
from harness.profiling.recorder import StepRecorder
from harness.train import train
from tests.runs import train_in_turn

SLEEP_S = 0.5


def train_with_sleep_in_data(path: Path, before_load: int) -> None:
    """Train, but let the data of one step (of the so-manieth load, from 1) take longer."""
    real, calls = StepLoader.__next__, iter(range(1, 1000))

    def load(self: StepLoader) -> Any:
        if next(calls) == before_load:
            time.sleep(SLEEP_S)
        return real(self)

    with patch.object(StepLoader, "__next__", load):
        train(load_run_config(path), Console(quiet=True))


def train_and_fail_on(path: Path, rank: int) -> None:
    """Train, but let one rank's trace fail to be written."""
    real = StepRecorder.write

    def write(self: StepRecorder, folder: Path) -> Path:
        if int(os.environ["RANK"]) == rank:
            raise OSError(28, "No space left on device")
        return real(self, folder)

    with patch.object(StepRecorder, "write", write):
        train(load_run_config(path), Console(quiet=True))


def train_and_die_while_writing(path: Path) -> None:
    """Train, and be killed when half of a trace has been written."""

    def copy(source: Any, target: Any, length: int) -> None:
        target.write(source.read(length))
        target.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.use_deterministic_algorithms(mode=True)
    with patch("harness.profiling.recorder.shutil.copyfileobj", copy):
        train(load_run_config(path), Console(quiet=True))


def train_on_own_disk(config: Path, folders: Path) -> None:
    """Train as the only rank of a host whose disk no other host sees."""
    os.environ["LOCAL_RANK"] = "0"
    overrides = [f"output_dir={folders / ('host' + os.environ['RANK'])}"]
    train(load_run_config(config, overrides), Console(quiet=True))


def train_all(paths: Sequence[Path], slow: Path, failing: Path) -> None:
    """In one process: some trainings, one with a sleep, one whose trace cannot be written."""
    train_in_turn(paths)
    train_with_sleep_in_data(slow, 3)
    train_and_fail_on(failing, 0)
