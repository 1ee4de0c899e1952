"""Merge an adapter into its base, so that the result is a plain model with the same logits.

A layer's weight becomes W + (alpha / r) B A. The sum is taken in float64 and rounded once, to the precision that is
written. An update is small beside its weight, so the rounding, up to half a step of the weight's own precision, is a
far larger share of the update: it is measured while merging. A head that is tied to the embedding is untied first
where it alone changes: merged in place it would change the embedding as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn

from harness.vocabulary import PARAMETER, new_rows_of
from preprocess.errors import ConfigError

ROWS_AT_A_TIME = 4096
"""Rows of a matrix whose sum exists in float64 at a time: 100 MB for 3,072 columns."""


@dataclass(frozen=True, slots=True)
class RoundingError:
    """The rounding of merged matrices as a share of what the adapter adds to them: ||M' - M|| / ||M - W||.

    W is the base's matrix, M the float64 sum, M' what is written of it; norms are Frobenius norms.

    Attributes:
        total: Over all merged matrices together.
        worst: Of the matrix that it is the highest for; a matrix to which nothing is added does not count.
        worst_matrix: Its name.
    """

    total: float
    worst: float
    worst_matrix: str


@dataclass(slots=True)
class RoundingSums:
    """Squared norms of the rounding and of the update, by matrix.

    Attributes:
        by_matrix: (rounding, update) by the matrix's name.
    """

    by_matrix: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, name: str, written: torch.Tensor, exact: torch.Tensor, update: torch.Tensor) -> None:
        """Count some rows of a matrix; `exact` and `update` are float64."""
        rounding, whole = self.by_matrix.get(name, (0.0, 0.0))
        more = float((written.double() - exact).square().sum())
        self.by_matrix[name] = (rounding + more, whole + float(update.square().sum()))

    def compare(self) -> RoundingError:
        """The shares; zero where the adapter adds nothing."""
        found = {name: sqrt(error / whole) for name, (error, whole) in self.by_matrix.items() if whole > 0}
        if not found:
            return RoundingError(0.0, 0.0, "")
        worst = max(found, key=lambda name: found[name])
        errors, wholes = zip(*(self.by_matrix[name] for name in found), strict=True)
        return RoundingError(sqrt(sum(errors) / sum(wholes)), found[worst], worst)


@dataclass(frozen=True, slots=True)
class MergedModel:
    """A plain model's weights.

    Attributes:
        weights: By the names of the base's own state dict; a tied head is not in it.
        is_tied: Whether the head is the embedding still.
        vocab_size: Rows of the embedding.
        rounding: What rounding the sums cost.
    """

    weights: dict[str, torch.Tensor]
    is_tied: bool
    vocab_size: int
    rounding: RoundingError


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
    weights, sums = dict[str, torch.Tensor](), RoundingSums()
    for name, tensor in causal.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        plain = name.replace(".base_layer.", ".")
        if ".lora_" in name or leaf == PARAMETER or (is_tied and causal.get_submodule(owner) is head):
            continue
        layer = adapted.get(owner.removesuffix(".base_layer")) if leaf == "weight" else None
        weights[plain] = tensor.to(dtype) if layer is None else merge_layer(plain, layer, dtype, sums)
    _put_rows(causal, weights, dtype)
    return MergedModel(weights, is_tied, embedding.weight.shape[0], sums.compare())


def merge_layer(name: str, layer: nn.Module, dtype: torch.dtype, sums: RoundingSums) -> torch.Tensor:
    """[out, in]: the merged weight of a peft LoRA layer, its rounding counted in `sums` under `name`.

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
        update = up[rows].double() @ down
        exact = weight[rows].double() + update
        merged[rows] = exact.to(dtype)
        sums.add(name, merged[rows], exact, update)
    return merged


def _put_rows(causal: Any, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> None:  # noqa: ANN401 - a module of transformers or peft
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
