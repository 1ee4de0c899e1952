"""The shape of the model that a configuration names, read without loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from harness.planning.gguf_header import read_gguf_shape
from harness.shapes import SHAPES, ModelShape, check_kind, read_shape
from preprocess.errors import ConfigError
from preprocess.outside_text import parse_json

HUB_IDS: Mapping[str, str] = {
    "meta-llama/Llama-3.2-1B": "llama-3.2-1b",
    "meta-llama/Llama-3.2-1B-Instruct": "llama-3.2-1b",
    "meta-llama/Llama-3.2-3B": "llama-3.2-3b",
    "meta-llama/Llama-3.2-3B-Instruct": "llama-3.2-3b",
    "mistralai/Mistral-7B-v0.3": "mistral-7b",
    "mistralai/Mistral-7B-Instruct-v0.3": "mistral-7b",
    "Qwen/Qwen2.5-0.5B": "qwen2.5-0.5b",
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2.5-0.5b",
    "Qwen/Qwen2.5-1.5B": "qwen2.5-1.5b",
    "Qwen/Qwen2.5-1.5B-Instruct": "qwen2.5-1.5b",
    "HuggingFaceTB/SmolLM2-135M": "smollm2-135m",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2-135m",
}
"""Models of the hub whose shapes are built in. Other versions (Mistral v0.1 and v0.2) have other vocabularies."""


def find_model_shape(path: str) -> tuple[ModelShape, str]:
    """A model's shape, and where it was found.

    Args:
        path: As `model.path`: a folder, a .gguf file (or a folder with one), `package:NAME`, a hub id; or the name of a
            built-in shape.

    Raises:
        ConfigError: Nothing here tells the shape.
    """
    if path.lower() in SHAPES:
        return SHAPES[path.lower()], f"built-in shape {path.lower()}"
    local = _locate(path)
    if local.exists():
        return _read_local(path, local)
    if (cached := _find_cached(path)) is not None:
        return _read_config(cached), f"{cached}"
    if path in HUB_IDS:
        return SHAPES[HUB_IDS[path]], f"built-in shape {HUB_IDS[path]}"
    raise ConfigError(
        f"model {path}: its shape is not known: no such folder or file, not in the hub's cache on this machine, and "
        f"not one of {', '.join(SHAPES)}. Pass a folder with its config.json"
    )


def _locate(path: str) -> Path:
    if path.startswith("package:"):
        from preprocess.tokenizer import locate_source  # it loads tokenizers, which takes a moment

        return Path(locate_source(path))
    return Path(path).expanduser()


def _read_local(path: str, local: Path) -> tuple[ModelShape, str]:
    if local.is_dir() and (local / "config.json").is_file():
        return _read_config(local / "config.json"), str(local / "config.json")
    files = sorted(local.glob("*.gguf")) if local.is_dir() else [local]
    if len(files) != 1 or files[0].suffix != ".gguf":
        raise ConfigError(
            f"model {path}: holds neither config.json nor exactly one .gguf file, so its shape is not known"
        )
    return read_gguf_shape(files[0]), str(files[0])


def _read_config(path: Path) -> ModelShape:
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    try:
        check_kind(config)
        return read_shape(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _find_cached(hub_id: str) -> Path | None:
    """The newest config.json of a model in the hub's cache; see huggingface_hub's documentation of its cache."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    found = list((cache / f"models--{hub_id.replace('/', '--')}" / "snapshots").glob("*/config.json"))
    return max(found, key=lambda file: file.stat().st_mtime, default=None)
