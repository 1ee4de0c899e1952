"""Load a base model from a folder, a GGUF file or a hub id, frozen, in the run's precision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from harness.config import ModelSettings, Precision
from harness.model_folder import check_model_folder, refuse_code
from harness.vocabulary import NewTokens, num_rows
from preprocess.errors import ConfigError, DataError
from preprocess.manifest import Manifest
from preprocess.tokenizer import locate_source

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_base_model(settings: ModelSettings, dtype: torch.dtype | None = None) -> nn.Module:
    """Load a causal language model with every weight frozen.

    Args:
        settings: Which one, and how it computes.
        dtype: Precision of the weights, where it is not `settings.precision`.

    Raises:
        ConfigError: There is no such model, or it is of a kind without `.model` and `.lm_head`.
    """
    implementation = "eager" if settings.attention == "eager" else "sdpa"
    logging.disable_progress_bar()  # every rank would draw its own
    # Without it, a hub's model that has pickles alone is fetched from whoever offered a conversion.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    source = locate_model(settings.path, trusted=settings.trust_remote_code)
    if "gguf_file" not in source:
        source["use_safetensors"] = True
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **source,
            dtype=dtype or DTYPES[settings.precision],
            attn_implementation=implementation,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"model.path {settings.path}: cannot be loaded ({reason}). Expected a model folder, a .gguf file, or "
            "a hub id that this machine can reach"
        ) from error
    if not settings.trust_remote_code:
        refuse_code(getattr(model.config, "auto_map", None), settings.path)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ConfigError(f"model.path {settings.path}: is an adapter, not a base model; pass its base")
    if not hasattr(model, "model") or not hasattr(model, "lm_head"):
        raise ConfigError(f"model.path {settings.path}: {type(model).__name__} has no .model and .lm_head")
    _refuse_altered_logits(model, settings.path)
    _refuse_moving_frequencies(model, settings.path)
    model.requires_grad_(requires_grad=False)
    model.config.use_cache = False
    return cast("nn.Module", model)


def locate_model(path: str, *, trusted: bool = False) -> dict[str, Any]:
    """The arguments of `from_pretrained` for a model folder, a .gguf file (or a folder with one) or a hub id.

    Args:
        path: As `model.path` names it.
        trusted: Whether a model's own Python code may run. Never asked at the terminal, as transformers would.

    Raises:
        ConfigError: There is no such folder or file, or the folder holds more than data.
    """
    local = Path(locate_source(path))
    if local.is_dir() and not (local / "config.json").is_file():
        files = sorted(local.glob("*.gguf"))
        if len(files) != 1:
            raise ConfigError(
                f"model.path {path}: the folder holds neither config.json nor exactly one .gguf file"
            )
        local = files[0]
    if local.suffix == ".gguf":
        if not local.is_file():
            raise ConfigError(f"model.path {path}: no such file")
        source: dict[str, Any] = {
            "pretrained_model_name_or_path": str(local.parent),
            "gguf_file": local.name,
            "trust_remote_code": False,
        }
        if hasattr(
            transformers, "GgufConfig"
        ):  # newer releases can keep the file's blocks; LoRA needs matrices
            source["quantization_config"] = transformers.GgufConfig(dequantize=True)
        return source
    if not local.exists() and path.startswith((".", "/", "~")):
        raise ConfigError(f"model.path {path}: no such folder")
    if local.is_dir():
        check_model_folder(local, path, trusted=trusted)
    name = str(local) if local.exists() else path
    return {"pretrained_model_name_or_path": name, "trust_remote_code": trusted}


STORED_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
"""As safetensors spells them."""


def find_stored_dtype(path: str) -> torch.dtype:
    """The precision that loses nothing of a model's stored weights.

    A folder's safetensors files tell it themselves, for a config.json may name a lower one. A GGUF file's blocks stand
    for float32 numbers. Of a hub id the configuration is believed.

    Raises:
        ConfigError: There is no such model.
    """
    source = locate_model(path)
    if "gguf_file" in source:
        return torch.float32
    found = [
        widest_dtype(file)
        for file in sorted(Path(source["pretrained_model_name_or_path"]).glob("*.safetensors"))
    ]
    if found:
        return max(found, key=lambda dtype: dtype.itemsize)
    try:
        named = AutoConfig.from_pretrained(**source).dtype
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model.path {path}: cannot be read ({str(error).splitlines()[0]})") from error
    return named if isinstance(named, torch.dtype) else torch.float32


def widest_dtype(file: Path) -> torch.dtype:
    """The widest precision among the tensors of a safetensors file."""
    with safe_open(str(file), "pt") as weights:
        spelt = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 - not a dictionary, its keys cannot be iterated over
    return max((STORED_DTYPES.get(name, torch.float32) for name in spelt), key=lambda dtype: dtype.itemsize)


def _refuse_moving_frequencies(model: Any, path: str) -> None:  # noqa: ANN401 - a transformers model
    """Some rotary embeddings turn by the longest row at hand, so a token's meaning would depend on its neighbours.

    Raises:
        ConfigError: This model's do.
    """
    kind = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type")
    if kind in ("dynamic", "longrope"):
        raise ConfigError(
            f"model.path {path}: its rotary embeddings ({kind}) depend on what else is in a batch; not supported"
        )


def _refuse_altered_logits(model: Any, path: str) -> None:  # noqa: ANN401 - a transformers model
    """The loss takes the head's output as the logits; some models scale or cap it afterwards.

    Raises:
        ConfigError: This model does.
    """
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(model.config, name, None) not in (None, 1.0):
            raise ConfigError(
                f"model.path {path}: its {name} changes the logits after the head; not supported"
            )


def check_vocabulary(model: nn.Module, manifest: Manifest, new_tokens: NewTokens | None = None) -> None:
    """Refuse shards whose ids the model does not have, or whose rows are longer than its attention reaches.

    Args:
        model: The base, or what an adapter with new tokens has grown.
        manifest: Of the data set.
        new_tokens: Tokens that the model's embedding will grow by.

    Raises:
        DataError: The tokenizer of the shards is larger than the model's embedding, or a row than its window.
    """
    rows = max(num_rows(model), new_tokens.vocab_size if new_tokens else 0)
    if manifest.vocab_size > rows:
        raise DataError(
            f"the shards were made with tokenizer {manifest.tokenizer_source} ({manifest.vocab_size} ids), but the "
            f"model has {rows}. Build the data set with the model's own tokenizer; where it has music tokens besides, "
            "pass an adapter that was trained with them"
        )
    window = getattr(cast("Any", model).config, "sliding_window", None)
    if window is not None and manifest.seq_len > window:
        raise DataError(
            f"rows of {manifest.seq_len} slots, but the model attends to {window}; build shorter rows"
        )
