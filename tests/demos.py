"""What the demo's tests ask: toy data sets with what is known of their songs, a toy model and an adapter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from harness.config import LoraSettings, ModelSettings
from harness.demo.items import DemoItem, Mark
from harness.lora import adapter_state, add_lora, save_adapter, trainable_parameters
from harness.model import load_base_model
from tests.toys import make_dataset


def make_asked(folder: Path, *, num_lines: int = 9) -> Path:
    """A data set of four training songs and eight held-out ones, with what is known of the former."""
    make_dataset(folder, num_songs=4, num_eval_songs=8, num_lines=num_lines)
    return folder


def settings_of(model_dir: Path) -> ModelSettings:
    """The toy model in float32."""
    return ModelSettings(path=str(model_dir), precision="fp32")


def make_adapter(model_dir: Path, folder: Path) -> Path:
    """An adapter whose weights are random and large, so that it changes what the model says."""
    adapted = add_lora(load_base_model(settings_of(model_dir)), LoraSettings(r=4, alpha=64), seed=1)
    torch.manual_seed(2)
    for name, parameter in trainable_parameters(adapted):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=1.0)
    save_adapter(folder, adapted, adapter_state(adapted))
    return folder


def make_item(text: str = "The artist is Ada Vale. It is a song.", *, is_stored: bool = False) -> DemoItem:
    """An item with a claim of each verdict."""
    marks = (
        Mark(14, 22, "contradicted", "the artist is Jo Winter", "artist"),
        Mark(24, len(text), "not checkable", "nothing in it can be checked", "none"),
    )
    after = "The artist is Jo Winter. It has 12 hits."
    after_marks = (
        Mark(0, 24, "supported", "the song says so", "artist"),
        Mark(25, 40, "not checkable", "the data set does not tell", "figures"),
    )
    return DemoItem(
        title="River",
        artist="Jo Winter",
        lyrics_excerpt="Sing of the river\nSing of the rain\n…",
        question="Who performs this song?",
        expected="The artist is Jo Winter.",
        before=text,
        after=after,
        song_id="example-1",
        task="artist",
        confidence_before=0.31,
        confidence_after=0.92,
        likeliest_before="Ada Vale",
        likeliest_after="Jo Winter",
        claims_before=marks,
        claims_after=after_marks,
        tokens_per_s_before=11.5,
        tokens_per_s_after=10.25,
        is_stored=is_stored,
        date="2026-11-28",
    )
