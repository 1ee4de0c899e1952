"""Answers to many prompts at once: lyrics computed once for all their questions, all active answers in one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from harness.generation.prompts import Generated, Prompt
from harness.generation.sampling import Sampling

__all__ = ["Generated", "Prompt", "Sampling", "generate_batch", "stream_answer"]

MAX_SLOTS = 8192


def generate_batch(
    causal: nn.Module,
    prompts: Sequence[Prompt],
    stop_id: int,
    *,
    max_slots: int = MAX_SLOTS,
    sampling: Sampling | None = None,
    on_done: Callable[[int, Generated], None] | None = None,
) -> list[Generated]:
    """Answer prompts, each as if it were the only one.

    Args:
        causal: A `transformers` causal model in evaluation mode, adapter layers inside it or not; not peft's
            wrapper.
        prompts: In any order; those of one prefix are computed together.
        stop_id: Id of the token that ends an answer.
        max_slots: Keys and values (of one token each, in every layer) that are kept at a time. More means more answers
            at once; a prompt that needs more than this runs alone.
        sampling: How tokens are drawn; None takes the likeliest.
        on_done: Called with a prompt's index and its answer as soon as it is there, in the order they end.

    Returns:
        An answer for each prompt, in the order of the prompts.

    Raises:
        ValueError: A prompt has no ids of its own, or asks for no token.
    """
    answers = []
    for index, prompt in enumerate(prompts):
        answer = _answer_alone(causal, prompt, stop_id, sampling)
        if on_done is not None:
            on_done(index, answer)
        answers.append(answer)
    return answers


def stream_answer(
    causal: nn.Module,
    ids: Sequence[int],
    stop_id: int,
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
) -> Iterator[tuple[int, float]]:
    """Answer one prompt, token by token. Between two tokens the model is free for other work.

    Args:
        causal: As for `generate_batch`.
        ids: The prompt.
        stop_id: Id of the token that ends the answer; it is not handed out.
        max_new_tokens: At most so many tokens, the stop token included.
        sampling: How tokens are drawn; None takes the likeliest.

    Yields:
        A token and its log-probability, as in `Generated`.

    Raises:
        ValueError: The prompt is empty or asks for no token.
    """
    answer = _answer_alone(causal, Prompt((), tuple(ids), max_new_tokens), stop_id, sampling)
    yield from zip(answer.ids, answer.logprobs, strict=False)


@torch.inference_mode()
def _answer_alone(causal: nn.Module, prompt: Prompt, stop_id: int, sampling: Sampling | None) -> Generated:
    if not prompt.ids or prompt.max_new_tokens < 1:
        raise ValueError(
            f"a prompt of {len(prompt.ids)} ids and {prompt.max_new_tokens} new tokens; both must be 1 or more"
        )
    assert sampling is None, "not there yet"
    device = next(causal.parameters()).device
    text = [*prompt.prefix, *prompt.ids]
    ids, logprobs = list[int](), list[float]()
    while len(ids) < prompt.max_new_tokens:
        step = torch.tensor([[*text, *ids]], device=device)
        logits = causal(input_ids=step, use_cache=False, logits_to_keep=1).logits[0, -1]
        token = int(logits.argmax())
        logprobs.append(float(logits.float().log_softmax(-1)[token]))
        if token == stop_id:
            return Generated(tuple(ids), is_finished=True, logprobs=tuple(logprobs))
        ids.append(token)
    return Generated(tuple(ids), is_finished=False, logprobs=tuple(logprobs))
