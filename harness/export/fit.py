"""Whether an adapter belongs to a base, told before the base is loaded: by sizes, and by samples of stored weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from harness.base_identity import find_difference
from harness.export.content import LORA_SUFFIXES, AdapterContent
from harness.lora import ADAPTER_WEIGHTS, ROWS_KEY
from harness.model import locate_model
from preprocess.errors import CheckpointError, ConfigError

PREFIX = "base_model.model."
"""What peft puts before a layer's name."""


def check_fit(folder: Path, content: AdapterContent, model: str, config: PreTrainedConfig) -> None:
    """Refuse an adapter of another base.

    Sizes are compared with those of the base's configuration. Where the base is a folder of safetensors files, the
    samples of the base that the adapter holds are compared with it too; a few pages of the files are read.

    Args:
        folder: Of the adapter.
        content: Of the adapter.
        model: The base, as `model.path` names it.
        config: The base's.

    Raises:
        CheckpointError: It was trained on another one.
        ConfigError: The configuration is of no causal language model.
    """
    try:
        with torch.device("meta"):
            base: nn.Module = AutoModelForCausalLM.from_config(config)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"--model {model}: cannot be read ({str(error).splitlines()[0]})") from error
    if misfit := next(find_misfits(content, base), None):
        raise CheckpointError(
            f"adapter {folder}: does not fit this model: {misfit}. Pass the base it was trained on"
        )
    if difference := _find_stored_difference(folder, model, base):
        raise CheckpointError(
            f"adapter {folder}: was trained on another base than this model: {difference}. Pass the base it was "
            "trained on"
        )


def find_misfits(content: AdapterContent, base: nn.Module) -> Iterator[str]:
    """What of an adapter's tensors has no place in a base, and which of the base's layers it should have had.

    Args:
        content: The adapter's.
        base: On any device, "meta" too.
    """
    layers = dict(base.named_modules())
    adapted = {_layer_of(name): name for name in content.shapes if name.endswith(LORA_SUFFIXES)}
    if strangers := sorted(set(adapted) - set(layers)):
        yield f"the base has no layer {strangers[0]}"
        return
    for name, shape in content.shapes.items():
        wanted = _expected_size(name, layers, content)
        if wanted is not None and shape[_side(name)] != wanted:
            yield f"{name} is {list(shape)}, where the base's layer has a size of {wanted}"
    if bare := sorted(_targeted(content, layers) - set(adapted)):
        yield f"it has nothing for the base's layer {bare[0]}"


def _layer_of(name: str) -> str:
    for suffix in LORA_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.removeprefix(PREFIX)


def _side(name: str) -> int:
    """Which size of a tensor is the base's: the other one is the rank, or the number of tokens."""
    return 0 if name.endswith(LORA_SUFFIXES[1]) else 1


def _expected_size(name: str, layers: dict[str, nn.Module], content: AdapterContent) -> int | None:
    """The size that a tensor must have on its base's side; None where nothing is known of it."""
    if name.endswith(ROWS_KEY):
        owner: Any = layers.get(name.removeprefix(PREFIX).removesuffix(f".{ROWS_KEY}"))
        return getattr(owner, "embedding_dim", getattr(owner, "in_features", None))
    layer: Any = layers.get(_layer_of(name))
    if not name.endswith(LORA_SUFFIXES) or not isinstance(layer, nn.Linear):
        return None
    if _side(name) == 1:
        return layer.in_features
    is_head = _layer_of(name) == "lm_head"
    return (
        max(layer.out_features, content.new_ids[-1] + 1)
        if is_head and content.new_ids
        else layer.out_features
    )


def _targeted(content: AdapterContent, layers: dict[str, nn.Module]) -> set[str]:
    """The base's layers that peft gives a LoRA by the adapter's settings; none where these are not plain names."""
    targets = content.settings.get("target_modules")
    if not isinstance(targets, list) or content.has("layers_to_transform") or content.has("exclude_modules"):
        return set()
    return {name for name in layers for target in targets if name == target or name.endswith(f".{target}")}


def _find_stored_difference(folder: Path, model: str, base: nn.Module) -> str | None:
    """How a folder's weights differ from those that the adapter was trained on; None if not, or if nothing tells."""
    with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as weights:
        samples = (weights.metadata() or {}).get("base_samples")
    source = locate_model(model)
    if samples is None or "gguf_file" in source:
        return None
    matrices = {name for name, parameter in base.named_parameters() if parameter.dim() == 2}
    stored: dict[str, torch.Tensor] = {}
    for file in sorted(Path(source["pretrained_model_name_or_path"]).glob("*.safetensors")):
        with safe_open(str(file), "pt") as weights:
            names = matrices & set(weights.keys())
            stored |= {name: weights.get_tensor(name) for name in names}  # mapped, not read
    if stored.keys() != matrices:
        return None  # a hub id, or other names than the model's own
    base.load_state_dict(stored, strict=False, assign=True)
    return find_difference(base, samples)
