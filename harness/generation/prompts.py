"""What is asked of a model and what it answers, in ids."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SEED = 2**63 - 1
"""Of draws: what a signed integer of 64 bits holds."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to continue.

    Attributes:
        prefix: Ids that other prompts may begin with too (the lyrics); computed once for all that do. May be empty.
        ids: Ids of its own after the prefix, at least one.
        max_new_tokens: At most so many tokens of the answer, the stop token included; at least 1.
    """

    prefix: tuple[int, ...]
    ids: tuple[int, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer.

    Attributes:
        ids: Its tokens without the stop token.
        is_finished: Whether the stop token came; False where `max_new_tokens` ended it.
        logprobs: For each generated token, the stop token's last where it came, its log-probability in nats: of the
            model's own distribution, whatever the sampling, by a log-softmax in float32 (float64 of a float64 model).
    """

    ids: tuple[int, ...]
    is_finished: bool
    logprobs: tuple[float, ...]
