"""Exports that are refused, and the check, which writes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from typer.testing import CliRunner

from harness.__main__ import app
from harness.config import ATTENTION_AND_MLP, ModelSettings
from harness.model import load_base_model
from tests.exported import WITH_HEAD, make_models, run_export, train_adapter
from tests.toys import make_model_dir, make_tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


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
