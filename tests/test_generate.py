"""Greedy answers with a cache against computing the whole text anew for each token."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from torch import nn

from harness.config import LoraSettings, ModelSettings
from harness.generation.plain import generate_answer
from harness.lora import add_lora, trainable_parameters
from harness.model import load_base_model
from preprocess.errors import ConfigError
from tests.toys import make_model_dir, make_tokenizer

VOCAB_SIZE = make_tokenizer().vocab_size
NEVER = -1
PROMPT = make_tokenizer().encode("Sing of the river and the moon")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("model"), VOCAB_SIZE, tie=False)


@pytest.fixture(scope="module")
def model(model_dir: Path) -> nn.Module:
    return load(model_dir, "sdpa")


def load(model_dir: Path, attention: Literal["sdpa", "eager"]) -> nn.Module:
    """A model whose attention matters and whose likeliest tokens vary: random weights, made larger."""
    causal = load_base_model(ModelSettings(path=str(model_dir), precision="fp32", attention=attention)).eval()
    with torch.no_grad():
        for name, parameter in causal.named_parameters():
            if "proj" in name:
                parameter.mul_(8)
    return causal


def recompute(model: nn.Module, ids: list[int], num_tokens: int) -> list[int]:
    """Greedy, the whole text at each step, without a cache."""
    text = list(ids)
    for _ in range(num_tokens):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([text]), use_cache=False).logits
        text.append(int(logits[0, -1].argmax()))
    return text[len(ids) :]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_cache_changes_no_token(model_dir: Path, attention: Literal["sdpa", "eager"]) -> None:
    model = load(model_dir, attention)
    assert cast("Any", model).config.use_cache is False  # as training leaves it
    answer = generate_answer(model, PROMPT, NEVER, 24)
    assert answer == recompute(model, PROMPT, 24)
    assert len(set(answer)) > 5  # not one token over and over, which anything would give


def wrap_forward(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Let `change` see and replace what the model's forward pass is called with."""
    forward = model.forward

    @functools.wraps(forward)
    def wrapped(**options: Any) -> object:
        return forward(**change(options))

    monkeypatch.setattr(model, "forward", wrapped)


def test_a_wrong_position_does_change_the_answer(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = recompute(model, PROMPT, 24)

    def restart(options: dict[str, Any]) -> dict[str, Any]:
        positions = options["position_ids"]
        return options | {"position_ids": positions - positions[0, 0]}

    wrap_forward(model, monkeypatch, restart)
    assert generate_answer(model, PROMPT, NEVER, 24) != expected


def test_the_cache_is_really_used(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def watch(options: dict[str, Any]) -> dict[str, Any]:
        lengths.append(options["input_ids"].shape[1])
        return options

    wrap_forward(model, monkeypatch, watch)
    generate_answer(model, PROMPT, NEVER, 5)
    assert lengths == [len(PROMPT), 1, 1, 1, 1]


def test_the_answer_ends_before_the_stop_token(model: nn.Module) -> None:
    answer = generate_answer(model, PROMPT, NEVER, 24)
    place = max(answer.index(token) for token in set(answer))
    assert place > 2
    assert generate_answer(model, PROMPT, answer[place], 24) == answer[:place]


def test_an_answer_may_be_empty(model: nn.Module) -> None:
    (first,) = generate_answer(model, PROMPT, NEVER, 1)
    assert generate_answer(model, PROMPT, first, 24) == []


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_no_more_tokens_than_asked_for_are_generated(model: nn.Module, limit: int) -> None:
    assert generate_answer(model, PROMPT, NEVER, limit) == recompute(model, PROMPT, limit)


def test_one_call_leaves_nothing_to_the_next(model: nn.Module) -> None:
    first = generate_answer(model, PROMPT, NEVER, 12)
    generate_answer(model, PROMPT[:3], NEVER, 5)
    assert generate_answer(model, PROMPT, NEVER, 12) == first


def test_an_adapter_inside_the_model_takes_part(model_dir: Path) -> None:
    causal = load(model_dir, "sdpa")
    before = generate_answer(causal, PROMPT, NEVER, 12)
    adapted = add_lora(causal, LoraSettings(r=4, alpha=64), seed=1)
    torch.manual_seed(2)
    for name, parameter in trainable_parameters(adapted):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=1.0)
    base = cast("nn.Module", adapted.get_base_model()).eval()
    after = generate_answer(base, PROMPT, NEVER, 12)
    assert after == recompute(base, PROMPT, 12)
    assert after != before
    with adapted.disable_adapter():
        assert generate_answer(base, PROMPT, NEVER, 12) == before


def test_a_model_whose_positions_change_with_the_longest_neighbour_is_not_loaded(tmp_path: Path) -> None:
    model = make_model_dir(tmp_path, VOCAB_SIZE)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\(dynamic\) depend on what else is in a batch"):
        load(model, "sdpa")


@pytest.mark.parametrize(("ids", "limit"), [([], 5), (PROMPT, 0)])
def test_nothing_to_continue_or_nothing_asked_for_is_refused(
    model: nn.Module, ids: list[int], limit: int
) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        generate_answer(model, ids, NEVER, limit)
