"""LoRA through peft: put adapters on a frozen base, save them as a plain peft adapter, load them again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from harness.config import LoraSettings
from preprocess.errors import CheckpointError, ConfigError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def add_lora(model: nn.Module, settings: LoraSettings, seed: int) -> PeftModel:
    """Put adapters on a frozen model, in its own precision.

    Args:
        model: The base, changed in place.
        settings: Rank, scale, dropout, targets.
        seed: Seed of lora_A's start; lora_B starts at zero, so the model's output does not change.

    Raises:
        ConfigError: A target names no linear layer of the model.
    """
    linear = {
        name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    if missing := sorted(set(settings.targets) - linear):
        raise ConfigError(
            f"lora.targets: no linear layer is called {', '.join(missing)}; the model has {', '.join(sorted(linear))}"
        )
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    with _quiet():
        return cast("PeftModel", get_peft_model(model, config, autocast_adapter_dtype=False))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of peft that are about its own code, or that this module turns into errors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        yield


def trainable_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The adapter's parameters, by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def adapter_state(
    model: PeftModel, weights: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The adapter's weights under peft's own keys, on the CPU, without any matrix of the base."""
    state = get_peft_model_state_dict(
        model, state_dict=None if weights is None else dict(weights), save_embedding_layers=False
    )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def save_adapter(folder: Path, model: PeftModel, state: Mapping[str, torch.Tensor]) -> None:
    """Write a plain peft adapter: its config and its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), str(folder / ADAPTER_WEIGHTS), metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True, default=str) + "\n")


def load_adapter(model: nn.Module, folder: Path) -> PeftModel:
    """Put a saved adapter on a base model, for inference.

    Raises:
        CheckpointError: The folder holds no adapter, or one for another model.
    """
    if not (folder / ADAPTER_CONFIG).is_file() or not (folder / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"adapter {folder}: expected {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} there")
    try:
        with _quiet():
            model = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    except (ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"adapter {folder}: does not fit this model ({str(error).splitlines()[0]})"
        ) from error
    with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as weights:
        differing = sorted(set(weights.keys()) ^ set(adapter_state(model)))
    if differing:
        raise CheckpointError(
            f"adapter {folder}: does not fit this model: {len(differing)} weights have no counterpart, {differing[0]} "
            "first"
        )
    return cast("PeftModel", model)
