"""Greedy or sampled answers, token by token. Gives way to `harness.generation.batch` when that is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache

from harness.generation.plain import name_of_cache


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: softmax at a temperature over the likeliest that make up `top_p`."""

    temperature: float
    top_p: float
    seed: int


@torch.inference_mode()
def stream_answer(
    causal: nn.Module,
    ids: Sequence[int],
    stop_id: int,
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
) -> Iterator[tuple[int, float]]:
    """Yield each token of an answer with its log-probability; ends before the stop token."""
    device = next(causal.parameters()).device
    cache = {name_of_cache(causal): DynamicCache(config=cast("Any", causal).config)}
    step = torch.tensor([list(ids)], dtype=torch.int64, device=device)
    position = 0
    generator = None if sampling is None else torch.Generator().manual_seed(sampling.seed)
    for _ in range(max_new_tokens):
        positions = torch.arange(position, position + step.shape[1], device=device)[None]
        output = causal(input_ids=step, position_ids=positions, use_cache=True, logits_to_keep=1, **cache)
        logprobs = torch.log_softmax(output.logits[0, -1].float(), dim=-1)
        if sampling is None or generator is None:
            token = int(logprobs.argmax())
        else:
            chances = torch.softmax(logprobs.cpu() / sampling.temperature, dim=-1)
            ordered, order = chances.sort(descending=True)
            ordered[ordered.cumsum(0) - ordered >= sampling.top_p] = 0
            token = int(order[int(torch.multinomial(ordered, 1, generator=generator))])
        if token == stop_id:
            return
        yield token, float(logprobs[token])
        position += step.shape[1]
        step = torch.tensor([[token]], dtype=torch.int64, device=device)
