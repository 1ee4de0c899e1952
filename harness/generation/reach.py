"""What a model must be for its answers to be exact: the same beside others as alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from harness.generation.prompts import Prompt
from preprocess.errors import ConfigError

ROPE_BY_LENGTH = ("dynamic", "longrope")
"""Position embeddings of transformers that change all positions of a pass with the longest one in it."""


def check_reach(causal: nn.Module, prompts: Sequence[Prompt]) -> None:
    """Refuse prompts whose answers would see less of them than all, or depend on what is answered beside them.

    Args:
        causal: A causal model of transformers.
        prompts: What it is asked.

    Raises:
        ConfigError: A prompt with its answer is longer than the model's attention window, or than what its position
            embedding was trained for where that embedding changes with the length.
    """
    config = cast("Any", causal).config
    longest = max(len(prompt.prefix) + len(prompt.ids) + prompt.max_new_tokens for prompt in prompts)
    rope = getattr(config, "rope_parameters", None) or {}
    limits = {"attends to": getattr(config, "sliding_window", None)}
    if rope.get("rope_type") in ROPE_BY_LENGTH:
        trained = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        limits[f"has one {rope['rope_type']} position embedding for up to"] = trained
    for verb, limit in limits.items():
        if limit is not None and longest > limit:
            raise ConfigError(
                f"a prompt with its answer takes up to {longest} tokens, but the model {verb} {limit}; ask for "
                "fewer new tokens, or shorten the lyrics"
            )
