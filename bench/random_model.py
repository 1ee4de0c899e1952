"""Models of a true shape with random weights: speed, memory and FLOPs are those of trained ones."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from harness.shapes import ModelShape


def make_random(
    shape: ModelShape, device: torch.device, dtype: torch.dtype, family: str = "llama"
) -> nn.Module:
    """A frozen causal model of transformers, made on the device itself.

    Args:
        shape: Its sizes.
        device: Where; "meta" makes one without memory.
        dtype: Of its weights.
        family: transformers' name of the architecture.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=131_072,
        tie_word_embeddings=shape.tied,
        use_cache=False,
    )
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return cast("nn.Module", model.requires_grad_(requires_grad=False))
