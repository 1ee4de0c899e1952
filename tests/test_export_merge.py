"""Merging: exact in float64, the embedding left alone, and what rounding costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from harness.__main__ import app
from harness.config import ATTENTION_AND_MLP, LoraSettings, ModelSettings
from harness.export.merge import RoundingError, merge_adapter
from harness.lora import add_lora, load_adapter, trainable_parameters
from harness.model import find_stored_dtype, load_base_model
from tests.exported import WITH_HEAD, logits_of, make_models, run_export, train_adapter


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("music", [False, True])
@pytest.mark.parametrize("targets", [ATTENTION_AND_MLP, WITH_HEAD])
@pytest.mark.parametrize("tie", [True, False])
def test_merging_in_float64_leaves_the_embedding_alone_and_gives_the_unmerged_logits(
    models: dict[bool, Path], tmp_path: Path, tie: bool, targets: tuple[str, ...], music: bool
) -> None:
    trained = train_adapter(models[tie], tmp_path / "adapter", targets, music=music)
    tuned = load_adapter(
        load_base_model(ModelSettings(path=str(models[tie])), torch.float64), tmp_path / "adapter"
    )
    merged = merge_adapter(tuned, torch.float64)
    assert merged.is_tied == (tie and targets == ATTENTION_AND_MLP)
    before = load_file(models[tie] / "model.safetensors")["model.embed_tokens.weight"].double()
    assert torch.equal(merged.weights["model.embed_tokens.weight"][: len(before)], before)
    plain = load_base_model(ModelSettings(path=str(models[tie])), torch.float64)
    plain.config.tie_word_embeddings = merged.is_tied  # type: ignore[union-attr]
    plain.config.vocab_size = merged.vocab_size  # type: ignore[union-attr]
    fresh: Any = type(plain)(plain.config).double()
    fresh.load_state_dict(merged.weights, strict=not merged.is_tied)
    torch.testing.assert_close(logits_of(fresh), trained, rtol=0, atol=1e-12)


def test_merging_into_a_tied_matrix_would_be_noticed(models: dict[bool, Path], tmp_path: Path) -> None:
    trained = train_adapter(models[True], tmp_path / "adapter", WITH_HEAD)
    tuned: Any = load_adapter(
        load_base_model(ModelSettings(path=str(models[True])), torch.float64), tmp_path / "adapter"
    )
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        wrong = tuned.merge_and_unload()  # peft's own, which adds the head's LoRA to the embedding as well
    assert float((logits_of(wrong) - trained).abs().max()) > 1e-2


def test_a_lower_precision_is_said_and_a_stored_one_is_not_believed_from_the_configuration(
    models: dict[bool, Path], tmp_path: Path
) -> None:
    model = shutil.copytree(models[True], tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    assert find_stored_dtype(str(model)) == torch.float32
    train_adapter(model, tmp_path / "adapter", ATTENTION_AND_MLP)
    what = ("--adapter", tmp_path / "adapter", "--model", model, "--format", "merged")
    _, value, _ = run_export(*what, "--output", tmp_path / "half", "--dtype", "bf16")
    assert (value["exported"]["dtype"], value["exported"]["base_dtype"]) == ("bf16", "fp32")
    assert value["exported"]["rounded"]
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    _, value, _ = run_export(*what, "--output", tmp_path / "whole")
    assert value["exported"]["dtype"] == "fp32"
    exact = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(exact[name].bfloat16(), tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_rounding_of_merged_sums_is_measured_against_the_update_and_printed(
    models: dict[bool, Path], tmp_path: Path, dtype: str
) -> None:
    train_adapter(models[False], tmp_path / "adapter", WITH_HEAD)
    what = (
        "--adapter",
        tmp_path / "adapter",
        "--model",
        models[False],
        "--format",
        "merged",
        "--dtype",
        dtype,
    )
    _, value, _ = run_export(*what, "--output", tmp_path / "out")
    told = value["exported"]["rounding_error_of_update"]
    base = load_file(models[False] / "model.safetensors")
    written = load_file(tmp_path / "out" / "model.safetensors")
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    shares, errors, updates = dict[str, float](), 0.0, 0.0
    for key in (name for name in adapter if name.endswith(".lora_A.weight")):
        name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        update = 2.0 * adapter[key.replace("lora_A", "lora_B")].double() @ adapter[key].double()
        error = written[name].double() - (base[name].double() + update)
        shares[name] = float(error.norm() / update.norm())
        errors, updates = errors + float(error.square().sum()), updates + float(update.square().sum())
    assert len(shares) == 15
    assert told["total"] == pytest.approx((errors / updates) ** 0.5, rel=1e-6)
    assert told["worst"] == pytest.approx(max(shares.values()), rel=1e-6)
    assert told["worst_matrix"] == max(shares, key=lambda name: shares[name])
    low, high = {"bf16": (1e-4, 1e-1), "fp32": (1e-9, 1e-6)}[dtype]
    assert low < told["total"] <= told["worst"] < high
    done = CliRunner().invoke(app, ["export", *map(str, what), "--output", str(tmp_path / "again")])
    said = " ".join(done.stdout.split())
    assert "nothing rounded" not in said
    assert f"merged sums rounded to {dtype}: an error of {told['total']:.2g} of the update" in said
    assert ("--dtype fp32 loses less" in said) == (dtype == "bf16")


def test_merging_in_float64_or_merging_nothing_rounds_nothing(
    models: dict[bool, Path], tmp_path: Path
) -> None:
    base = load_base_model(ModelSettings(path=str(models[True])), torch.float64)
    untrained = add_lora(base, LoraSettings(r=4, alpha=8), seed=1)  # its lora_B is zero
    assert merge_adapter(untrained, torch.bfloat16).rounding == RoundingError(0.0, 0.0, "")
    for name, parameter in trainable_parameters(untrained):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    assert merge_adapter(untrained, torch.float64).rounding.total == 0
    assert merge_adapter(untrained, torch.float32).rounding.total > 0
