"""What the tests of exporting share: bases, adapters with weights that matter, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typer.testing import CliRunner

from harness.__main__ import app
from harness.config import ATTENTION_AND_MLP, LoraSettings, ModelSettings
from harness.lora import adapter_state, add_lora, save_adapter, trainable_parameters
from harness.model import load_base_model
from harness.vocabulary import name_tokens
from preprocess.tokenizer import MUSIC_TOKENS, add_music_tokens
from tests.toys import make_model_dir, make_tokenizer

WITH_HEAD = (*ATTENTION_AND_MLP, "lm_head")
IDS = torch.arange(3, 23)[None]
MUSIC = add_music_tokens(make_tokenizer())


def logits_of(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=ids).logits
        return logits


def train_adapter(
    model: Path, folder: Path, targets: tuple[str, ...], *, music: bool = False
) -> torch.Tensor:
    """Save an adapter with weights that matter. Returns the tuned model's logits in float64."""
    base = load_base_model(ModelSettings(path=str(model)), torch.float64)
    ids = {MUSIC.special_id(token): token for token in MUSIC_TOKENS}
    tokens = name_tokens(ids, MUSIC, make_tokenizer().vocab_size) if music else None
    adapted = add_lora(base, LoraSettings(r=4, alpha=8, targets=targets), seed=1, new_tokens=tokens)
    torch.manual_seed(2)
    for name, parameter in trainable_parameters(adapted):
        if "lora_A" not in name:
            nn.init.normal_(parameter, std=0.2)
    save_adapter(folder, adapted, adapter_state(adapted))
    return logits_of(adapted)


def make_models(folder: Path) -> dict[bool, Path]:
    """Bases with a tied head and without."""
    rows = make_tokenizer().vocab_size
    return {tie: make_model_dir(folder / str(tie), rows, tie=tie) for tie in (True, False)}


def run_export(*arguments: object) -> tuple[int, Any, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments), "--json"])
    value = json.loads(result.stdout) if result.exit_code == 0 else None
    return result.exit_code, value, result.stderr
