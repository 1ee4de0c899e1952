"""A base with its adapter answers on other hardware than it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.attention.choice import IMPLEMENTATIONS, choose_attention
from harness.config import Attention, ModelSettings
from harness.tuned import load_tuned_model
from preprocess.errors import ConfigError
from preprocess.manifest import read_manifest
from tests.toys import make_dataset, make_model_dir

IDS = torch.arange(3, 23)[None]


def load_with(attention: Attention, folder: Path) -> tuple[str, torch.Tensor]:
    """The attention that a loaded model uses, and its logits."""
    settings = ModelSettings(path=str(folder / "model"), precision="fp32", attention=attention)
    causal: Any = load_tuned_model(settings, read_manifest(folder / "data"), None).causal
    with torch.no_grad():
        return causal.config._attn_implementation, causal(input_ids=IDS).logits


def test_a_run_trained_with_flex_is_asked_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(ConfigError, match="flex"):
        choose_attention("flex", torch.device("cpu"), torch.float32)
    manifest = make_dataset(tmp_path / "data", num_songs=4, num_eval_songs=1)
    make_model_dir(tmp_path / "model", manifest.vocab_size)
    wanted, expected = load_with("auto", tmp_path)
    assert wanted == IMPLEMENTATIONS["flash"]
    assert not caplog.messages
    used, logits = load_with("flex", tmp_path)
    assert used == wanted
    assert caplog.messages == ["model.attention flex is not to be had here; flash gives the same answers"]
    assert torch.equal(logits, expected)
    assert load_with("sdpa", tmp_path)[0] == "sdpa"  # what is there is used as it was asked for
