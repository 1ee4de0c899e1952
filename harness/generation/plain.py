"""Greedy answers, one prompt at a time, with a key-value cache."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache


@torch.inference_mode()
def generate_answer(model: nn.Module, ids: Sequence[int], stop_id: int, max_new_tokens: int) -> list[int]:
    """Continue a prompt with the likeliest token each time.

    The cache is on whatever the model's own configuration says (training switches it off); it lives in this call
    alone. One sequence has no padding, so that neither a mask nor shifted positions can go wrong.

    Args:
        model: A `transformers` causal model in evaluation mode, adapter layers inside it or not; not peft's
            wrapper.
        ids: The prompt, at least one id; its first token has position 0.
        stop_id: Id of the token that ends an answer; training supervised it last.
        max_new_tokens: At most so many tokens, the stop token included.

    Returns:
        The answer's ids without the stop token. As many as `max_new_tokens` means: it did not stop by itself.

    Raises:
        ValueError: The prompt is empty or the limit is below 1.
    """
    if not ids or max_new_tokens < 1:
        raise ValueError(
            f"a prompt of {len(ids)} ids and {max_new_tokens} new tokens; both must be 1 or more"
        )
    device = next(model.parameters()).device
    cache = {name_of_cache(model): DynamicCache(config=cast("Any", model).config)}
    step = torch.tensor([list(ids)], dtype=torch.int64, device=device)
    position, answer = 0, list[int]()
    while len(answer) < max_new_tokens:
        positions = torch.arange(position, position + step.shape[1], device=device)[None]
        output = model(input_ids=step, position_ids=positions, use_cache=True, logits_to_keep=1, **cache)
        token = int(output.logits[0, -1].argmax())
        if token == stop_id:
            break
        answer.append(token)
        position += step.shape[1]
        step = torch.tensor([[token]], dtype=torch.int64, device=device)
    return answer


def name_of_cache(model: nn.Module) -> str:
    """What the model's forward pass calls its cache: transformers renamed it and warns of the old name."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
