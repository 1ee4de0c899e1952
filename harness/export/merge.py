"""Merge an adapter into its base, so that the result is a plain model with the same logits.

A layer's weight becomes W + (alpha / r) B A. The sum is taken in float64 and rounded once, to the precision that is
written. A head that is tied to the embedding is untied first where it alone changes: merged in place it would change
the embedding as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn

from harness.vocabulary import PARAMETER, new_rows_of
from preprocess.errors import ConfigError

ROWS_AT_A_TIME = 4096
"""Rows of a matrix whose sum exists in float64 at a time: 100 MB for 3,072 columns."""


@dataclass(frozen=True, slots=True)
class MergedModel:
    """A plain model's weights.

    Attributes:
        weights: By the names of the base's own state dict; a tied head is not in it.
        is_tied: Whether the head is the embedding still.
        vocab_size: Rows of the embedding.
    """

    weights: dict[str, torch.Tensor]
    is_tied: bool
    vocab_size: int


@torch.no_grad()
def merge_adapter(tuned: PeftModel, dtype: torch.dtype) -> MergedModel:
    """Merge an adapter, leaving the model itself as it is.

    Args:
        tuned: The base with its adapter, from `harness.lora.load_adapter`.
        dtype: Precision of the result.

    Raises:
        ConfigError: The adapter is of a kind that is not a plain sum (DoRA, a bias).
    """
    causal = cast("Any", tuned.get_base_model())
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    adapted = {name: module for name, module in causal.named_modules() if hasattr(module, "base_layer")}
    is_tied = getattr(head, "base_layer", head).weight is embedding.weight and not hasattr(head, "base_layer")
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in causal.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        plain = name.replace(".base_layer.", ".")
        if ".lora_" in name or leaf == PARAMETER or (is_tied and causal.get_submodule(owner) is head):
            continue
        layer = adapted.get(owner.removesuffix(".base_layer")) if leaf == "weight" else None
        weights[plain] = tensor.to(dtype) if layer is None else merge_layer(layer, dtype)
    _put_rows(causal, weights, dtype)
    return MergedModel(weights, is_tied, embedding.weight.shape[0])


def merge_layer(layer: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """[out, in]: the merged weight of a peft LoRA layer.

    Raises:
        ConfigError: It is no plain LoRA.
    """
    lora = cast("Any", layer)
    if lora.use_dora["default"] or lora.lora_bias["default"] or getattr(lora, "fan_in_fan_out", False):
        raise ConfigError(
            "the adapter uses DoRA, a bias or transposed weights, which are not merged here; use peft's own merging"
        )
    weight = lora.base_layer.weight
    down = lora.lora_A["default"].weight.double() * lora.scaling["default"]
    up = lora.lora_B["default"].weight
    merged = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    for start in range(0, len(weight), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        merged[rows] = (weight[rows].double() + up[rows].double() @ down).to(dtype)
    return merged


def _put_rows(causal: Any, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> None:  # noqa: ANN401
    """Set the trained rows of new tokens, in the head's matrix too where it has one of its own."""
    rows = new_rows_of(causal)
    if rows is None:
        return
    parts = ((causal.get_input_embeddings(), rows.embedding), (causal.get_output_embeddings(), rows.head))
    names = {id(module): name for name, module in causal.named_modules()}
    for module, trained in parts:
        key = f"{names[id(module)]}.weight"
        if key in weights:
            weights[key] = weights[key].clone()  # it may be the model's own
            weights[key][list(rows.tokens.ids)] = trained.to(dtype)
