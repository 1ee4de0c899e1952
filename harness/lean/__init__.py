"""LoRA whose forward pass keeps little for the backward pass; the same result as peft's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from peft import PeftModel
from peft.tuners.lora import Linear
from torch import nn

from harness.dropout import WindowDropout
from harness.lean.fp8 import Float8Linear, fp8_supported, why_not_float8
from harness.lean.layer import ATTENTION_PROJECTIONS, MLP_PROJECTIONS, LeanLayer, lean_class
from preprocess.errors import ConfigError

KNOWN_LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")

__all__ = ["KNOWN_LAYERS", "fp8_supported", "make_lean"]


def make_lean(model: nn.Module, *, fp8: bool = False) -> str | None:
    """Replace the forward pass of a causal model's decoder layers by one that keeps little for backward.

    Parameters stay where peft put them, so saving, loading and merging don't change. Where a layer is given a key-value
    cache, or its adapters are switched off or merged, it runs its own forward pass.

    Args:
        model: A causal model of transformers, or a `PeftModel` around one; changed in place, or left alone whole.
        fp8: Quantize the frozen projections to float8 and multiply in it, forward and for the gradient of the input.
            There is no way back: merge into a base that is loaded anew.

    Returns:
        None when done; else why not, as half a sentence.

    Raises:
        ConfigError: The device does not multiply in float8.
    """
    causal = cast("Any", model.get_base_model() if isinstance(model, PeftModel) else model)
    layers = list(causal.model.layers)
    for index, layer in enumerate(layers):
        if reason := _why_not(layer) or (_why_not_float8(layer) if fp8 else None):
            return f"layer {index}: {reason}"
    if fp8 and layers and (reason := fp8_supported(layers[0].self_attn.q_proj.weight.device)):
        raise ConfigError(f"model.fp8: {reason}. Leave it false")
    for layer in layers:
        if fp8:
            _quantize(layer)
        if not isinstance(layer, LeanLayer):
            layer.__class__ = lean_class(cast("Any", type(layer)))
    return None


def _why_not(layer: Any) -> str | None:  # noqa: ANN401 - a module of transformers or peft
    """Why a decoder layer cannot be replaced, or None."""
    kind = type(layer)
    if isinstance(layer, LeanLayer):
        return None
    if kind.__name__ not in KNOWN_LAYERS or not kind.__module__.startswith("transformers."):
        return f"{kind.__name__} is none of {', '.join(KNOWN_LAYERS)}"
    if (activation := layer.self_attn.config.hidden_act) not in ("silu", "swish"):
        return f"its activation is {activation}, expected silu"
    for norm in (layer.input_layernorm, layer.post_attention_layernorm):
        if norm.weight.requires_grad:
            return "its norms are trained"
    named = dict(_projections(layer))
    reasons = (f"{name} {reason}" for name, module in named.items() if (reason := _why_not_linear(module)))
    return next(reasons, None) or _why_not_dropout(named)


def _why_not_float8(layer: Any) -> str | None:  # noqa: ANN401 - a module of transformers or peft
    for name, module in _projections(layer):
        base = getattr(module, "base_layer", module)
        if type(base) is nn.Linear and (reason := why_not_float8(base)):
            return f"{name} {reason}"
    return None


def _quantize(layer: Any) -> None:  # noqa: ANN401 - a module of transformers or peft
    """Put float8 weights in the place of a layer's frozen projections."""
    for parent in (layer.self_attn, layer.mlp):
        for name, module in list(parent.named_children()):
            if isinstance(module, Linear):
                module.base_layer = Float8Linear(module.base_layer)
            elif type(module) is nn.Linear:
                setattr(parent, name, Float8Linear(module))


def _projections(layer: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - a module of transformers or peft
    for parent, names in ((layer.self_attn, ATTENTION_PROJECTIONS), (layer.mlp, MLP_PROJECTIONS)):
        yield from ((name, getattr(parent, name)) for name in names)


def _why_not_linear(module: Any) -> str | None:  # noqa: ANN401 - a module of transformers or peft
    """Why a projection is not a frozen matrix with at most one plain adapter, or None."""
    base = getattr(module, "base_layer", module)
    if type(module) not in (Linear, nn.Linear) or type(base) is not nn.Linear:
        return (
            f"is a {type(module).__name__} over a {type(base).__name__}, expected lora.Linear over nn.Linear"
        )
    if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
        return "trains the base's own weight"
    return _why_not_adapter(module) if isinstance(module, Linear) else None


def _why_not_adapter(module: Any) -> str | None:  # noqa: ANN401 - a module of transformers or peft
    if module.merged_adapters:
        return "has a merged adapter"
    if len(module.active_adapters) != 1:
        return f"has {len(module.active_adapters)} active adapters, expected 1"
    name = module.active_adapters[0]
    if name not in module.lora_A:
        return None
    if name in module.lora_variant:
        return f"has the adapter variant {type(module.lora_variant[name]).__name__}, expected plain LoRA"
    if module.lora_B[name].bias is not None or module.fan_in_fan_out:
        return "has an adapter with a bias, or a transposed base"
    if module.lora_A[name].weight.dtype != module.base_layer.weight.dtype:
        return "has an adapter of another precision than its base"
    return None


def _why_not_dropout(named: dict[str, Any]) -> str | None:
    """Why the dropout of a layer cannot be redrawn, or one input has several masks; else None."""
    for group in (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)):
        inputs = set()
        for name in group:
            for module in getattr(named[name], "lora_dropout", {}).values():
                if isinstance(module, nn.Dropout) and module.p > 0:
                    return f"{name} has a dropout that cannot be redrawn; call install_dropout first"
                inputs.add(module.index if isinstance(module, WindowDropout) else None)
        if len(inputs) > 1:
            return f"{', '.join(group)} differ in their dropout"
    return None
