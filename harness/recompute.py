"""Which decoder layers recompute their activations in the backward pass instead of keeping them."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, cast

from torch import nn
from torch.utils.checkpoint import checkpoint

from preprocess.errors import ConfigError


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a causal model (`model.model.layers`), in order."""
    return cast("nn.ModuleList", cast("Any", model).model.layers)


def enable_recompute(model: nn.Module, layers: int | Literal["all"]) -> None:
    """Let the first `layers` decoder layers keep their input alone and run again in the backward pass.

    The first ones, because they run last in the backward pass, when what the others kept is freed already. Works over
    a frozen base, since it is not re-entrant.

    Raises:
        ConfigError: The model has fewer layers.
    """
    own = decoder_layers(model)
    count = len(own) if layers == "all" else layers
    if count > len(own):
        raise ConfigError(
            f"model.recompute_layers {count}: the model has {len(own)} layers; use 0 to {len(own)}"
        )
    for index, layer in enumerate(own):
        switch = cast("Any", layer)
        switch.gradient_checkpointing = index < count
        switch._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
