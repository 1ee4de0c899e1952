"""What a model must be for its answers to be exact: a token sees all before it, at a position that the model knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from harness.generation.prompts import Prompt
from preprocess.errors import ConfigError


def check_reach(causal: nn.Module, prompts: Sequence[Prompt]) -> None:
    """Refuse prompts whose answers would see less of them than all, or go on behind the model's positions.

    Args:
        causal: A causal model of transformers.
        prompts: What it is asked.

    Raises:
        ConfigError: A prompt with its answer is longer than the model's attention window, or than its positions.
    """
    longest = max(len(prompt.prefix) + len(prompt.ids) + prompt.max_new_tokens for prompt in prompts)
    check_length(causal, longest, "ask for fewer new tokens, or shorten the lyrics")


def check_length(causal: nn.Module, num_tokens: int, advice: str) -> None:
    """Refuse a prompt that is too long with its answer. The answer's last token may lie outside: nothing follows it.

    Args:
        causal: A causal model of transformers.
        num_tokens: Of the prompt with its answer.
        advice: What the user may do.

    Raises:
        ConfigError: It is longer than the model's attention window, or than its positions.
    """
    config = cast("Any", causal).config
    limits = {
        "attends to": getattr(config, "sliding_window", None),
        "has positions for": getattr(config, "max_position_embeddings", None),
    }
    for verb, limit in limits.items():
        if limit is not None and num_tokens - 1 > limit:
            raise ConfigError(
                f"a prompt with its answer takes up to {num_tokens:,} tokens, but the model {verb} {limit:,}; {advice}"
            )
