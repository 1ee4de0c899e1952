"""Decoder layers of Llama, Mistral and Qwen2 whose forward pass is made of `harness.lean.functions`."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, cast

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.lean.functions import gated_project, norm_project, project_one
from harness.lean.projection import read_group

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")

_CACHES = ("cache", "past_key_values", "past_key_value")
"""What releases of transformers call the key-value cache."""


class LeanLayer:
    """The forward pass to put before a decoder layer's own; see `lean_class`."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,  # noqa: ANN401 - what transformers passes to its layers
    ) -> torch.Tensor:
        """[R, T, H] to [R, T, H]; with a key-value cache, or adapters that are off or merged, the layer's own pass."""
        layer = cast("Any", self)
        if any(kwargs.get(name) is not None for name in _CACHES) or not _adapters_are_on(layer):
            own = cast("Any", super()).forward(hidden_states, attention_mask=attention_mask, **kwargs)
            return cast("torch.Tensor", own)
        hidden_states = hidden_states + _attend(layer, hidden_states, attention_mask, kwargs)
        norm, mlp = layer.post_attention_layernorm, layer.mlp
        group = read_group((mlp.gate_proj, mlp.up_proj), hidden_states)
        gate, up = norm_project(hidden_states, norm.weight, norm.variance_epsilon, group)
        return hidden_states + gated_project(gate, up, read_group((mlp.down_proj,), gate))


def _adapters_are_on(layer: Any) -> bool:  # noqa: ANN401 - a module of transformers or peft
    """Whether no projection's adapter was switched off or merged since."""
    modules = [getattr(layer.self_attn, name) for name in ATTENTION_PROJECTIONS]
    modules += [getattr(layer.mlp, name) for name in MLP_PROJECTIONS]
    return not any(
        module.disable_adapters or module.merged_adapters for module in modules if hasattr(module, "lora_A")
    )


def _attend(
    layer: Any,  # noqa: ANN401 - a module of transformers or peft
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    kwargs: dict[str, Any],
) -> torch.Tensor:
    """The attention's share of the residual stream, through the attention function that the model is set to."""
    attention, norm = layer.self_attn, layer.input_layernorm
    others = {key: value for key, value in kwargs.items() if key not in (*_CACHES, "position_embeddings")}
    group = read_group((attention.q_proj, attention.k_proj, attention.v_proj), hidden_states)
    parts = norm_project(hidden_states, norm.weight, norm.variance_epsilon, group)
    shape = (*hidden_states.shape[:-1], -1, attention.head_dim)
    query, key, value = (part.view(shape).transpose(1, 2) for part in parts)
    query, key = layer.rotate(query, key, *kwargs["position_embeddings"])
    if layer.has_window:
        own = getattr(attention.config, "sliding_window", None)
        others["sliding_window"] = getattr(attention, "sliding_window", own)
    output, _ = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, layer.attend_eagerly
    )(
        attention,
        query,
        key,
        value,
        attention_mask,
        dropout=attention.attention_dropout if attention.training else 0.0,
        scaling=attention.scaling,
        **others,
    )
    output = output.reshape(*hidden_states.shape[:-1], -1)
    return project_one(output, read_group((attention.o_proj,), output))


@cache
def lean_class(own: type) -> type:
    """A subclass of a decoder layer's class with the lean forward pass before its own.

    A subclass, not an attribute of the layer: transformers wraps the class's forward for recomputation.
    """
    modeling = cast("Any", sys.modules[own.__module__])
    members = {
        "rotate": staticmethod(modeling.apply_rotary_pos_emb),
        "attend_eagerly": staticmethod(modeling.eager_attention_forward),
        "has_window": own.__name__ != "LlamaDecoderLayer",
    }
    return type(f"Lean{own.__name__}", (LeanLayer, own), members)
