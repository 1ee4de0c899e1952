"""LoRA through peft: put adapters on a frozen base, save them as a plain peft adapter, load them again.

A head that is tied to the embedding (Llama-3.2, SmolLM2) gets its LoRA like any other layer: the adapter sits on the
way out alone, and the shared matrix is frozen, so the embedding stays as it is. Only merging has to part the two: see
`harness.export.merge`.

    adapter_model.safetensors    lora_A and lora_B under peft's keys; K rows of each matrix for K new tokens, under the
                                 keys of peft's trainable tokens; in its metadata samples of the base (whose adapter is
                                 this) and the new tokens' names
    adapter_config.json          peft's; `trainable_token_indices` lists the new tokens
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from harness.base_identity import find_difference, sample_weights
from harness.vocabulary import PARAMETER, NewRows, NewTokens, grow_embeddings, new_rows_of, read_tokens
from preprocess.errors import CheckpointError, ConfigError
from preprocess.outside_text import parse_json

if TYPE_CHECKING:
    from harness.config import LoraSettings

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ROWS_KEY = "token_adapter.trainable_tokens_delta"
"""Under which peft's own trainable tokens keep their rows."""


def add_lora(
    model: nn.Module, settings: LoraSettings, seed: int, new_tokens: NewTokens | None = None
) -> PeftModel:
    """Put adapters on a frozen model, in its own precision.

    Args:
        model: The base, changed in place.
        settings: Rank, scale, dropout, targets.
        seed: Seed of lora_A's start; lora_B starts at zero, so the model's output does not change.
        new_tokens: Tokens whose rows are trained too; the embedding grows if it has none for them.

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
        # Ollama reads an integer here, and refuses 256.0.
        lora_alpha=int(settings.alpha) if settings.alpha.is_integer() else settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    base_samples = sample_weights(model)
    if new_tokens is not None:
        grow_embeddings(model, new_tokens)
    torch.manual_seed(seed)
    with _quiet():
        adapted = cast("Any", get_peft_model(model, config, autocast_adapter_dtype=False))
    adapted._base_samples = base_samples
    if new_tokens is not None:
        NewRows(adapted.get_base_model(), new_tokens)
    return cast("PeftModel", adapted)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of peft that are about its own code, or about what this module takes care of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings(
            "ignore", message="Found missing adapter keys"
        )  # `load_adapter` raises for them
        # The head's adapter does not touch the matrix that it shares; export unties the two before it merges.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        yield


def trainable_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The adapter's parameters, by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def adapter_state(
    model: PeftModel, weights: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The adapter's weights under peft's own keys, on the CPU, without any matrix of the base.

    Args:
        model: With the adapter.
        weights: Every trainable weight by its name, where the model itself does not hold them whole.
    """
    state = get_peft_model_state_dict(
        model, state_dict=None if weights is None else dict(weights), save_embedding_layers=False
    )
    lora = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    whole = lora | _rows_state(model, weights)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in whole.items()}


def _rows_state(model: PeftModel, weights: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    rows = new_rows_of(model.get_base_model())
    if rows is None:
        return {}
    wanted = [rows.embedding] if rows.is_tied else [rows.embedding, rows.head]
    own = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if any(parameter is row for row in wanted)
    ]
    return {
        f"{name.removesuffix(PARAMETER)}{ROWS_KEY}": parameter if weights is None else weights[name]
        for name, parameter in own
    }


def save_adapter(folder: Path, model: PeftModel, state: Mapping[str, torch.Tensor]) -> None:
    """Write a plain peft adapter: its config and its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = new_rows_of(model.get_base_model())
    metadata = {"format": "pt", "base_samples": model._base_samples}
    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    if rows is not None:
        ids = list(rows.tokens.ids)
        metadata["new_tokens"] = json.dumps(rows.tokens.names)
        # Of both, so that plain peft refuses, and does not go wrong, where the head has a LoRA besides.
        config["trainable_token_indices"] = {"embed_tokens": ids, "lm_head": ids}
    save_file(dict(state), str(folder / ADAPTER_WEIGHTS), metadata=metadata)
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True, default=str) + "\n")


def load_adapter(model: nn.Module, folder: Path) -> PeftModel:
    """Put a saved adapter on a base model, for inference; the embedding grows where it brings new tokens.

    Raises:
        CheckpointError: The folder holds no adapter, or one for another model.
    """
    if not (folder / ADAPTER_CONFIG).is_file() or not (folder / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"adapter {folder}: expected {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} there")
    try:
        with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as weights:
            metadata, keys = weights.metadata() or {}, set(weights.keys())
            rows = {key: weights.get_tensor(key) for key in keys if key.endswith(ROWS_KEY)}
        _check_base(model, metadata, folder)
        tuned = _load_lora(model, folder, metadata, rows)
    except (ValueError, RuntimeError, KeyError, OSError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"adapter {folder}: does not fit this model ({str(error).splitlines()[0]})"
        ) from error
    if differing := sorted(keys ^ set(adapter_state(tuned))):
        raise CheckpointError(
            f"adapter {folder}: does not fit this model: {len(differing)} weights have no counterpart, {differing[0]} "
            "first"
        )
    return tuned


def _check_base(model: nn.Module, metadata: Mapping[str, str], folder: Path) -> None:
    """An adapter of another base may have the right shapes, and would give nonsense.

    Raises:
        CheckpointError: It was trained on another one.
    """
    samples = metadata.get("base_samples")
    if samples is not None and (difference := find_difference(model, samples)) is not None:
        raise CheckpointError(
            f"adapter {folder}: was trained on another base than this model: {difference}. Pass the base it was "
            "trained on"
        )


def _load_lora(
    model: nn.Module, folder: Path, metadata: Mapping[str, str], rows: Mapping[str, torch.Tensor]
) -> PeftModel:
    config = LoraConfig.from_pretrained(str(folder))
    if getattr(config, "megatron_config", None) is not None:
        raise ValueError("megatron_config makes peft import the module that megatron_core names")
    indices = config.trainable_token_indices
    config.trainable_token_indices = None  # `NewRows` does it: peft would copy both matrices in each pass
    tokens = None
    if indices is not None:
        tokens = read_tokens(indices["embed_tokens"], parse_json(metadata["new_tokens"]))
        grow_embeddings(model, tokens)
    with _quiet():
        tuned = cast(
            "Any", PeftModel.from_pretrained(model, str(folder), config=config, autocast_adapter_dtype=False)
        )
    tuned._base_samples = metadata.get("base_samples", sample_weights(model))
    if tokens is not None:
        _load_rows(tuned, tokens, rows)
    return cast("PeftModel", tuned)


def _load_rows(tuned: PeftModel, tokens: NewTokens, rows: Mapping[str, torch.Tensor]) -> None:
    embedding = next(value for key, value in rows.items() if "lm_head" not in key)
    head = next((value for key, value in rows.items() if "lm_head" in key), embedding)
    attached = NewRows(tuned.get_base_model(), tokens)
    attached.load(embedding, head)
    for parameter in (attached.embedding, attached.head):
        parameter.requires_grad = False
