"""Put a model together for training: adapters, dropout, attention, recomputation, compilation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftModel
from torch import nn

from harness.attention.choice import (
    IMPLEMENTATIONS,
    Kind,
    choose_attention,
    read_head_dim,
    register_attention,
)
from harness.dropout import install_dropout
from harness.lean import fp8_supported, make_lean
from harness.lora import add_lora
from harness.loss import ForestLanguageModel
from harness.recompute import decoder_layers, enable_recompute
from harness.vocabulary import NewTokens
from preprocess.errors import ConfigError

if TYPE_CHECKING:
    from harness.config import Attention, LoraSettings, ModelSettings


VARIANTS_OF_A_LAYER = 64
"""How often `torch.compile` may compile the code of a decoder layer before it gives up."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """A model that is ready for the engine.

    Attributes:
        model: Takes micro-batches, returns losses.
        adapter: The peft wrapper around the same weights.
        attention: The kernel.
        notes: What is not as the settings ask, in a line each, for the user.
    """

    model: ForestLanguageModel
    adapter: PeftModel
    attention: Kind
    notes: tuple[str, ...]


def assemble(
    base: nn.Module,
    settings: ModelSettings,
    lora: LoraSettings,
    *,
    seed: int,
    device: torch.device,
    zero_stage: int = 0,
    new_tokens: NewTokens | None = None,
) -> Assembly:
    """Put a frozen base together for training; nothing is moved to the device.

    Args:
        base: A causal model of transformers, changed in place.
        settings: How its forward pass runs.
        lora: The adapters.
        seed: Of the adapters' start.
        device: Where it will compute.
        zero_stage: Of DeepSpeed.
        new_tokens: Tokens whose rows are trained too.

    Raises:
        ConfigError: A setting does not fit the model, the device, or another setting.
    """
    check_float8(settings, device, zero_stage)
    attention = set_attention(base, settings.attention, device)
    adapter = add_lora(base, lora, seed, new_tokens)
    draw = install_dropout(adapter)
    causal = cast("nn.Module", adapter.get_base_model())
    notes = list(_lighten(causal, settings, zero_stage))
    enable_recompute(causal, settings.recompute_layers)
    if settings.compile:
        _allow_variants()
        for layer in decoder_layers(causal):
            layer.compile(dynamic=True)  # in place: names and parameters stay
    model = ForestLanguageModel(causal, settings.loss_chunk, draw=draw if lora.dropout else None)
    return Assembly(model, adapter, attention, tuple(notes))


def _allow_variants() -> None:
    """Let torch compile a layer anew more often than its 8 times, after which it would run the layer uncompiled.

    The variants of all layers count together: with and without gradients, dropout, recomputation.
    """
    config = cast("Any", torch._dynamo.config)
    config.recompile_limit = max(config.recompile_limit, VARIANTS_OF_A_LAYER)


def _lighten(causal: nn.Module, settings: ModelSettings, zero_stage: int) -> Iterator[str]:
    """Take the lean kernel, in float8 where that is asked for, and say where it cannot be taken.

    Raises:
        ConfigError: float8 is asked for and cannot be had.
    """
    if settings.lora_kernel == "peft":
        return
    reason = make_lean(causal, fp8=settings.fp8)
    if reason is None:
        return
    if settings.fp8:
        raise ConfigError(f"model.fp8: {reason}. Set it to false")
    yield f"model.lora_kernel: peft instead of lean, for {reason}"


def check_float8(settings: ModelSettings, device: torch.device, zero_stage: int) -> None:
    """Refuse float8 where it cannot be had.

    Raises:
        ConfigError: The device does not multiply in it, or another setting excludes it.
    """
    if not settings.fp8:
        return
    if settings.lora_kernel == "peft":
        raise ConfigError("model.fp8 needs model.lora_kernel lean; set one of them otherwise")
    if zero_stage == 3:
        raise ConfigError("model.fp8: ZeRO-3 would not split the float8 weights; use zero0, zero1 or zero2")
    if device.type != "cpu" and settings.precision != "bf16":
        raise ConfigError(
            f"model.fp8: on a GPU its products come in bf16, but model.precision is {settings.precision}. "
            "Set model.precision to bf16, or model.fp8 to false"
        )
    if reason := fp8_supported(device):
        raise ConfigError(f"model.fp8: {reason}. Set it to false")


def set_attention(causal: nn.Module, setting: Attention, device: torch.device) -> Kind:
    """Let a model attend by the kernel that a setting asks for, or the best for a device.

    Raises:
        ConfigError: The device does not have it.
    """
    register_attention()
    kind = choose_attention(setting, device, next(causal.parameters()).dtype, read_head_dim(causal))
    cast("Any", causal).set_attn_implementation(IMPLEMENTATIONS[kind])
    return kind
