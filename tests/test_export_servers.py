"""Which servers take an adapter: their rules on the shipped presets, and on each thing that one of them refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.config import ATTENTION_AND_MLP, LoraSettings, ModelSettings, load_run_config
from harness.export.content import AdapterContent, BaseFacts, read_content
from harness.export.servers import Verdict, judge_adapter, judge_merged
from harness.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_state, add_lora, save_adapter
from harness.model import load_base_model
from preprocess.errors import CheckpointError
from tests.toys import make_model_dir, make_tokenizer

LLAMA_3B = BaseFacts("llama", "LlamaForCausalLM", is_tied=True, vocab_size=128_256)
HIDDEN, MLP, KEYS = 3072, 8192, 1024


def content_of(lora: LoraSettings, **settings: Any) -> AdapterContent:
    """The adapter that a preset makes of Llama-3.2-3B, by its shapes alone."""
    sizes = {"k_proj": (HIDDEN, KEYS), "v_proj": (HIDDEN, KEYS), "lm_head": (HIDDEN, LLAMA_3B.vocab_size)}
    sizes |= {"gate_proj": (HIDDEN, MLP), "up_proj": (HIDDEN, MLP), "down_proj": (MLP, HIDDEN)}
    shapes: dict[str, tuple[int, ...]] = {}
    for target in lora.targets:
        into, out = sizes.get(target, (HIDDEN, HIDDEN))
        name = "lm_head" if target == "lm_head" else f"model.layers.0.x.{target}"
        shapes[f"base_model.model.{name}.lora_A.weight"] = (lora.r, into)
        shapes[f"base_model.model.{name}.lora_B.weight"] = (out, lora.r)
    return AdapterContent({"lora_alpha": int(lora.alpha), "bias": "none"} | settings, shapes, ())


def refusals(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.server: "; ".join(verdict.reasons) for verdict in verdicts if not verdict.taken}


@pytest.mark.parametrize("preset", ["servable", "quickstart"])
def test_an_adapter_on_the_seven_projections_is_taken_everywhere(preset: str) -> None:
    lora = load_run_config(preset).lora
    assert set(lora.targets) == set(ATTENTION_AND_MLP)
    verdicts = judge_adapter(content_of(lora), LLAMA_3B)
    assert refusals(verdicts) == {}
    assert len(verdicts) == 4
    how = {verdict.server: verdict.how for verdict in verdicts}
    assert how["vLLM"].endswith(f"--max-lora-rank {lora.r}")


def test_the_plans_adapter_is_refused_for_its_head_and_its_merged_model_is_taken() -> None:
    found = refusals(judge_adapter(content_of(load_run_config("plan").lora), LLAMA_3B))
    assert set(found) == {"llama.cpp", "TGI", "Ollama"}
    assert "tied" in found["llama.cpp"]
    assert "seven projections" in found["TGI"]
    assert "lm_head" in found["Ollama"]
    assert refusals(judge_merged(LLAMA_3B)) == {}


def test_a_head_of_its_own_is_taken_by_llama_cpp_and_a_large_vocabulary_is_refused_by_vllm() -> None:
    plan = content_of(load_run_config("plan").lora)
    untied = BaseFacts("llama", "LlamaForCausalLM", is_tied=False, vocab_size=128_256)
    assert set(refusals(judge_adapter(plan, untied))) == {"TGI", "Ollama"}
    large = BaseFacts("llama", "LlamaForCausalLM", is_tied=False, vocab_size=300_000)
    assert "300000" in refusals(judge_adapter(plan, large))["vLLM"]


@pytest.mark.parametrize(
    ("settings", "refusing", "word"),
    [
        ({"use_dora": True}, {"vLLM", "llama.cpp", "TGI", "Ollama"}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, {"vLLM", "llama.cpp", "TGI", "Ollama"}, "modules_to_save"),
        ({"bias": "all"}, {"vLLM", "llama.cpp", "TGI"}, "bias"),
        ({"rank_pattern": {"q_proj": 8}}, {"vLLM", "TGI"}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, {"vLLM", "llama.cpp", "TGI", "Ollama"}, "alpha_pattern"),
        ({"use_rslora": True}, {"llama.cpp", "Ollama"}, "rsLoRA"),
        ({"lora_alpha": 32.0}, {"Ollama"}, "whole number"),
    ],
)
def test_each_setting_is_refused_by_those_whose_source_refuses_it(
    settings: dict[str, Any], refusing: set[str], word: str
) -> None:
    found = refusals(judge_adapter(content_of(LoraSettings(r=16), **settings), LLAMA_3B))
    assert set(found) == refusing
    assert any(word in reason for reason in found.values())


@pytest.mark.parametrize(("rank", "needed"), [(1, 1), (4, 8), (16, 16), (100, 128), (257, 320), (512, 512)])
def test_vllm_is_started_with_the_lowest_rank_that_it_knows_and_that_suffices(rank: int, needed: int) -> None:
    verdict = judge_adapter(content_of(LoraSettings(r=rank)), LLAMA_3B)[0]
    assert verdict.how.endswith(f"--max-lora-rank {needed}")
    too_high = refusals(judge_adapter(content_of(LoraSettings(r=513)), LLAMA_3B))
    assert too_high["vLLM"].startswith("rank 513")


def test_rows_of_new_tokens_are_refused_by_all() -> None:
    plain = content_of(LoraSettings(r=16))
    content = AdapterContent(plain.settings, plain.shapes, (128_255, 128_256, 128_257))
    found = refusals(judge_adapter(content, LLAMA_3B))
    assert len(found) == 4
    assert all("3 new tokens, 2 of them beyond" in reason for reason in found.values())


def test_tensors_that_the_settings_do_not_tell_of_are_found_in_the_file() -> None:
    plain = content_of(LoraSettings(r=16))
    content = AdapterContent(plain.settings, plain.shapes | {"base_model.model.norm.weight": (HIDDEN,)}, ())
    found = refusals(judge_adapter(content, LLAMA_3B))
    assert len(found) == 4
    assert all("norm.weight" in reason for reason in found.values())


def test_an_unknown_architecture_is_not_said_to_be_taken() -> None:
    strange = BaseFacts("mamba", "MambaForCausalLM", is_tied=True, vocab_size=100)
    assert set(refusals(judge_adapter(content_of(LoraSettings()), strange))) == {"llama.cpp", "Ollama"}
    assert len(refusals(judge_merged(strange))) == 4


def test_a_saved_adapter_is_read_as_what_it_is(tmp_path: Path) -> None:
    model = make_model_dir(tmp_path / "model", make_tokenizer().vocab_size)
    base = load_base_model(ModelSettings(path=str(model), precision="fp32"))
    adapted = add_lora(base, LoraSettings(r=3, alpha=6, targets=("q_proj", "lm_head")), seed=0)
    save_adapter(tmp_path / "adapter", adapted, adapter_state(adapted))
    content = read_content(tmp_path / "adapter")
    assert (content.rank, content.targets, content.other_tensors) == (3, frozenset({"q_proj", "lm_head"}), ())
    assert isinstance(content.settings["lora_alpha"], int)

    weights = load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS) | {
        "base_model.model.lm_head.weight": torch.zeros(2)
    }
    save_file(weights, tmp_path / "adapter" / ADAPTER_WEIGHTS)
    assert read_content(tmp_path / "adapter").other_tensors == ("base_model.model.lm_head.weight",)


def test_a_folder_without_an_adapter_or_with_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected adapter_config"):
        read_content(tmp_path)
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / ADAPTER_WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="damaged"):
        read_content(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / ADAPTER_WEIGHTS)
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(CheckpointError, match="peft LoRA"):
        read_content(tmp_path)
