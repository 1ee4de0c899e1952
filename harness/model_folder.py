"""What a model folder may not hold: code that nobody asked for, pickles, names that lead elsewhere.

transformers reads a folder by what it finds there. Some of that is more than data: `auto_map` names Python files to
run, `pytorch_model.bin` is a pickle, an index may list files of other folders, and `adapter_config.json` names another
base or an adapter that would be loaded too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preprocess.errors import ConfigError
from preprocess.manifest import is_bare
from preprocess.outside_text import parse_json

CONFIG = "config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_model_folder(folder: Path, path: str, *, trusted: bool) -> None:
    """Refuse a model folder that holds more than data.

    Args:
        folder: With a config.json.
        path: As the user wrote it, for messages.
        trusted: Whether the folder's own code may run (`model.trust_remote_code`).

    Raises:
        ConfigError: It does.
    """
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"model.path {path}: holds an adapter_config.json, which names another base; pass a folder with a base "
            "model alone"
        )
    config = _read_object(folder / CONFIG)
    if not trusted:
        refuse_code(config.get("auto_map"), path)
    named = config.get("transformers_weights")
    if named is not None:
        _check_weights_name(named, f"model.path {path}: {CONFIG}: transformers_weights")
    indices = sorted(folder.glob("*.index.json"))
    for index in indices:
        names = _read_object(index).get("weight_map")
        for name in names.values() if isinstance(names, dict) else [names]:
            _check_weights_name(name, f"{index}: weight_map")
    if not any(folder.glob("*.safetensors")):
        _refuse_pickles(folder, path)


def refuse_code(auto_map: object, path: str) -> None:
    """Refuse a model whose configuration names Python files to run, also where transformers has a class of its own.

    Raises:
        ConfigError: It does.
    """
    if not auto_map:
        return
    named = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    files = sorted({str(name).split("--")[-1].split(".")[0] + ".py" for name in named})
    raise ConfigError(
        f"model.path {path}: comes with Python code of its own ({', '.join(files)[:200]}), which was not run. Read it; "
        "if you trust it, set model.trust_remote_code=true. To use transformers' own code for this kind of model, "
        f'remove "auto_map" from a copy of its {CONFIG}'
    )


def _check_weights_name(name: Any, where: str) -> None:  # noqa: ANN401 - what JSON holds
    """Raises a ConfigError for what is not a safetensors file of the same folder, or an index of such."""
    if isinstance(name, str) and is_bare(name) and name.endswith((".safetensors", ".safetensors.index.json")):
        return
    raise ConfigError(f"{where} names {name!r}; expected safetensors files in the same folder")


def _refuse_pickles(folder: Path, path: str) -> None:
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        raise ConfigError(
            f"model.path {path}: holds its weights as a pickle alone ({pickles[0]}), which can run code when it is "
            "read. Take the model's safetensors edition, or convert it where you trust it: "
            "AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)"
        )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return value
