"""Models, tokenizers and adapters are data: nothing in them runs, whatever they name, unless the user asked for it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.config import ModelSettings
from harness.export.command import read_base_config
from harness.lora import load_adapter
from harness.model import find_stored_dtype, load_base_model
from preprocess.errors import CheckpointError, ConfigError
from preprocess.tokenizer import load_tokenizer
from tests.toys import make_model_dir

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({canary!r}).touch()

class XConfig(LlamaConfig):
    model_type = "x-llama"

class XForCausalLM(LlamaForCausalLM):
    config_class = XConfig
"""


class Evil:
    """Unpickling it makes the file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that every attack of this module would make."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "canary"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A harmless model folder."""
    return make_model_dir(tmp_path / "model", 384)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add_code(folder: Path, canary: Path, model_type: str) -> None:
    for name in ("configuration_x", "modeling_x", "tokenization_x"):
        (folder / f"{name}.py").write_text(CODE.format(canary=str(canary)))
    auto_map = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}
    change(folder / "config.json", auto_map=auto_map, model_type=model_type)


def settings_of(folder: Path, **values: Any) -> ModelSettings:
    return ModelSettings(path=str(folder), precision="fp32", attention="eager", **values)


@pytest.mark.parametrize("model_type", ["x-llama", "llama"])
@pytest.mark.parametrize(
    "use",
    [
        lambda path: load_base_model(ModelSettings(path=path)),
        read_base_config,
        find_stored_dtype,
    ],
    ids=["load", "export", "dtype"],
)
def test_a_model_with_code_of_its_own_is_refused_and_the_code_does_not_run(
    folder: Path, canary: Path, model_type: str, use: Callable[[str], object]
) -> None:
    add_code(folder, canary, model_type)
    with pytest.raises(
        ConfigError, match=r"configuration_x\.py.*was not run.*trust_remote_code=true"
    ) as caught:
        use(str(folder))
    assert caught.value.exit_code == 2
    assert not canary.exists()


def test_code_that_was_asked_for_runs(folder: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # transformers reads the variable when it is imported.
    modules = str(canary.parent / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    add_code(folder, canary, "x-llama")
    model = load_base_model(settings_of(folder, trust_remote_code=True))
    assert type(model).__name__ == "XForCausalLM"
    assert canary.exists()


def test_code_runs_only_by_the_models_own_setting() -> None:
    assert not ModelSettings(path="x").trust_remote_code


def test_a_tokenizer_with_code_of_its_own_is_refused_and_the_code_does_not_run(
    folder: Path, canary: Path
) -> None:
    add_code(folder, canary, "llama")
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]})
    for source in (folder, folder / "tokenizer.json"):
        with pytest.raises(ConfigError, match="Python code to run"):
            load_tokenizer(source)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError):
        load_tokenizer(folder)
    assert not canary.exists()


def test_a_template_is_text_and_is_never_executed(folder: Path, canary: Path) -> None:
    attack = f"{{{{ cycler.__init__.__globals__.os.system('touch {canary}') }}}}"
    (folder / "chat_template.jinja").write_text(attack)
    assert load_tokenizer(folder).chat_template == attack
    assert not canary.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "x.ckpt"])
def test_a_model_that_is_a_pickle_alone_is_refused_unread(folder: Path, canary: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Evil(canary)}, folder / name)
    with pytest.raises(ConfigError, match="pickle"):
        load_base_model(settings_of(folder))
    assert not canary.exists()
    torch.load(folder / name, weights_only=False)  # the attack is a real one
    assert canary.exists()


def test_a_pickle_beside_safetensors_is_not_read(folder: Path, canary: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Evil(canary)))
    load_base_model(settings_of(folder))
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    ["../other/model.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", "x.bin", "a\\b.safetensors",
     "pytorch_model.bin", "x\0.safetensors", 7, None, ["model.safetensors"]],
)  # fmt: skip
def test_an_index_that_leads_elsewhere_is_refused(folder: Path, canary: Path, name: object) -> None:
    other = make_model_dir(folder.parent / "other", 384, seed=1)
    torch.save({"weights": Evil(canary)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="weight_map names"):
        load_base_model(settings_of(folder))
    (folder / "model.safetensors.index.json").unlink()
    (other / "model.safetensors").rename(folder / "model.safetensors")
    if name is not None:
        change(folder / "config.json", transformers_weights=name)
        with pytest.raises(ConfigError, match="transformers_weights names"):
            load_base_model(settings_of(folder))
    assert not canary.exists()


def test_an_index_of_the_folders_own_files_is_read(folder: Path) -> None:
    model = load_base_model(settings_of(folder))
    names = [name for name, _ in model.named_parameters()]
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "part-1.safetensors")}
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    again = load_base_model(settings_of(folder))
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)  # type: ignore[arg-type,union-attr]


def test_a_folder_that_names_another_base_is_refused(folder: Path, canary: Path) -> None:
    other = make_model_dir(folder.parent / "other", 384)
    add_code(other, canary, "x-llama")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(other)})
    )
    with pytest.raises(ConfigError, match="names another base"):
        load_base_model(settings_of(folder))
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"vocab_size": ' + b"9" * 5000 + b"}", b"[]", b"\xff", b"",
     b'{"auto_map"'],
    ids=["lists", "objects", "a long number", "a list", "no UTF-8", "empty", "cut"],
)  # fmt: skip
def test_a_configuration_that_is_no_object_is_refused_in_one_line(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json: (not JSON|expected)"):
        load_base_model(settings_of(folder))


@pytest.fixture
def adapter(tmp_path: Path, folder: Path) -> tuple[nn.Module, Path]:
    """A base, and the folder of an adapter for it as peft writes one."""
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(
        load_base_model(settings_of(folder)),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    tuned.save_pretrained(str(tmp_path / "adapter"))
    return load_base_model(settings_of(folder)), tmp_path / "adapter"


def test_what_an_adapters_configuration_names_is_not_loaded(
    adapter: tuple[nn.Module, Path], canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = adapter
    (canary.parent / "evil_core.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n")
    monkeypatch.syspath_prepend(str(canary.parent))
    other = make_model_dir(canary.parent / "other", 384)
    add_code(other, canary, "x-llama")
    named = {"base_model_class": "X", "parent_library": "evil_core"}
    change(folder / "adapter_config.json", base_model_name_or_path=str(other), auto_mapping=named)
    load_adapter(base, folder)
    change(folder / "adapter_config.json", megatron_config={"a": 1}, megatron_core="evil_core")
    with pytest.raises(CheckpointError, match="megatron"):
        load_adapter(load_base_model(settings_of(canary.parent / "model")), folder)
    assert not canary.exists()


def test_an_adapter_that_is_a_pickle_alone_is_refused_unread(
    adapter: tuple[nn.Module, Path], canary: Path
) -> None:
    base, folder = adapter
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"weights": Evil(canary)}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_adapter(base, folder)
    assert not canary.exists()


OFFLINE = """
import socket
def refuse(*arguments, **_):
    print("CONNECTED", arguments)
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from harness.config import ModelSettings
from harness.model import load_base_model
from preprocess.errors import ConfigError
from preprocess.tokenizer import load_tokenizer
for load in (lambda: load_tokenizer("owner/name"), lambda: load_base_model(ModelSettings(path="owner/name"))):
    try:
        load()
    except ConfigError as error:
        print("refused:", str(error)[:60])
"""


def use_hub(tmp_path: Path, *, offline: bool) -> str:
    """What a process says that asks for a tokenizer and a model by hub ids."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "HF_HOME": str(tmp_path)}
    environment["HF_HUB_OFFLINE"] = str(int(offline))
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_offline_the_hub_is_not_asked(tmp_path: Path) -> None:
    said = use_hub(tmp_path, offline=True)
    assert said.count("refused:") == 2
    assert "CONNECTED" not in said


@pytest.mark.slow
def test_a_question_to_the_hub_would_be_seen(tmp_path: Path) -> None:
    assert "CONNECTED" in use_hub(tmp_path, offline=False)
