"""How the next token is chosen from the logits: the likeliest, or drawn with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch

from harness.generation.prompts import MAX_SEED
from preprocess.errors import CheckpointError

MIN_TEMPERATURE = 1e-6
"""A lower temperature counts as this one, which takes the likeliest token already; logits stay finite."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Draw tokens instead of taking the likeliest one.

    What is drawn for a prompt depends on the seed, the prompt's ids and nothing else: not on what is answered beside
    it, nor on the device. So the same prompt with the same seed gets the same draws, and of the same model the same
    answer up to the rounding of its logits.

    Attributes:
        temperature: The logits are divided by it; above 0.
        top_p: Only the likeliest tokens that together reach this probability are drawn from (Holtzman et al. 2020,
            nucleus sampling); above 0, at most 1.
        seed: Of the draws; at least 0, at most `MAX_SEED`.

    Raises:
        ValueError: A value is out of its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        is_known = 0 < self.temperature < float("inf") and 0 < self.top_p <= 1 and 0 <= self.seed <= MAX_SEED
        if not is_known:
            raise ValueError(
                f"temperature {self.temperature}, top_p {self.top_p}, seed {self.seed}; expected a temperature "
                "above 0, a top_p above 0 and up to 1, a seed from 0 to 2**63 - 1"
            )


def open_draws(seed: int, ids: Sequence[int]) -> np.random.Generator:
    """The source of a prompt's draws, one number a token."""
    key = blake2b(np.array([seed, *ids], dtype=np.uint64).tobytes(), digest_size=16)
    return np.random.default_rng(int.from_bytes(key.digest(), "little"))


def draw_tokens(logits: torch.Tensor, draws: Sequence[np.random.Generator], sampling: Sampling) -> list[int]:
    """A token for each row of logits [N, V], by the inverse of the cumulative distribution, in float64 on the CPU.

    Args:
        logits: As the model gives them.
        draws: The source of each row's draw.
        sampling: Temperature and nucleus.
    """
    scaled = logits.cpu().double() / max(sampling.temperature, MIN_TEMPERATURE)
    sorted_, tokens = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    reached = sorted_.cumsum(dim=-1)
    in_nucleus = reached - sorted_ < sampling.top_p
    kept = (sorted_ * in_nucleus).cumsum(dim=-1)
    uniform = torch.tensor([[source.random()] for source in draws], dtype=torch.float64)
    places = torch.searchsorted(kept, uniform * kept[:, -1:], right=True)
    # A draw may be so near 1 that its product is rounded to the sum.
    last = in_nucleus.sum(dim=-1, keepdim=True) - 1
    found: list[int] = tokens.gather(-1, torch.minimum(places, last))[:, 0].tolist()
    return found


def choose_tokens(
    logits: torch.Tensor, draws: Sequence[np.random.Generator], sampling: Sampling | None
) -> tuple[list[int], list[float]]:
    """The next token of each answer, and its log-probability under the model.

    Args:
        logits: [N, V].
        draws: The source of each row's draw; not looked at without `sampling`.
        sampling: None takes the likeliest token.

    Returns:
        N tokens, and N log-probabilities in nats, in float32 at least.

    Raises:
        CheckpointError: A logit is NaN or positive infinity, or all of a row are negative infinity.
    """
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = precise.logsumexp(dim=-1)
    if not bool(total.isfinite().all()):
        raise CheckpointError(
            "the model's logits are not finite, so no token can be chosen: its weights or its adapter's are damaged, "
            "or their precision overflows (bf16 and fp32 reach further than fp16)"
        )
    tokens = logits.argmax(dim=-1).tolist() if sampling is None else draw_tokens(logits, draws, sampling)
    chosen = precise.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    return tokens, (chosen - total).tolist()
