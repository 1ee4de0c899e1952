"""A small real data set with a toy model and an adapter on it, for tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from harness.config import LoraSettings, ModelSettings
from harness.evaluation.settings import EvaluationSettings
from harness.lora import adapter_state, add_lora, save_adapter, trainable_parameters
from harness.model import load_base_model
from preprocess.build.config import BuildConfig
from preprocess.build.dataset import build_dataset
from preprocess.corpus.output import write_corpus
from preprocess.corpus.songwriter import generate_songs
from preprocess.settings import load_settings
from tests.toys import make_model_dir, make_tokenizer

NUM_SONGS = 60
TASKS = ("artist", "genre", "context", "themes", "similar")


def make_evaluated(folder: Path, *, tasks: Sequence[str] = TASKS, num_songs: int = NUM_SONGS) -> Path:
    """Write a model, an adapter that changes its answers, and a data set of made-up songs with both held-out splits.

    Returns:
        The folder: `model`, `adapter`, `data`.
    """
    tokenizer = make_tokenizer()
    make_model_dir(folder / "model", tokenizer.vocab_size)
    songs = folder / "songs.jsonl"
    write_corpus(
        songs, generate_songs(num_songs, seed=0, length="short", artists_per_genre=2), "jsonl", num_songs
    )
    overrides = (
        "sample.songs_per_genre=1000",
        "sample.songs_per_artist=1000",
        "sample.near_duplicates=false",
        "sample.eval_fraction=0.15",
        "sample.eval_unseen_fraction=0.1",
        "encode.seq_len=1536",
        f"tasks=[{','.join(tasks)}]",
    )
    config = load_settings(BuildConfig, None, overrides)
    console = Console(quiet=True)
    build_dataset(
        [songs], folder / "data", str(folder / "model"), config, console, overwrite=False, num_workers=1
    )
    make_adapter(folder / "model", folder / "adapter")
    return folder


def make_adapter(model: Path, folder: Path, std: float = 0.3) -> Path:
    """Save a random adapter for a model."""
    base = load_base_model(ModelSettings(path=str(model), precision="fp32"))
    adapted = add_lora(base, LoraSettings(r=4, alpha=8), seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainable_parameters(adapted):
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    folder.mkdir()
    save_adapter(folder, adapted, adapter_state(adapted))
    return folder


def make_settings(folder: Path, **changes: Any) -> EvaluationSettings:
    """Settings for what `make_evaluated` wrote: float32, short answers."""
    values = {
        "model": ModelSettings(path=str(folder / "model"), precision="fp32"),
        "adapter": folder / "adapter",
        "data": folder / "data",
        "max_new_tokens": 8,
    }
    return EvaluationSettings(**{**values, **changes})


def figures_of(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on who computed it: everything but times, and confidences to within rounding."""
    kept = {key: summary[key] for key in ("num_songs", "leakage", "truth", "overlap", "marks")}
    tasks = {
        task: {k: v for k, v in found.items() if k != "calibration"}
        for task, found in summary["tasks"].items()
    }
    sure = {
        f"{task} {system}": pytest.approx(one["ece"], abs=1e-5)
        for task, found in summary["tasks"].items()
        for system, one in found["calibration"].items()
    }
    return {**kept, "tasks": tasks, "calibration": sure, "questions": summary["generation"]["questions"]}
