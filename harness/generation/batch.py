"""Answers to many prompts at once: lyrics computed once for all their questions, all active answers in one row.

::

    lyrics A ─┬─ question 0 ─ answer               pass over prompts    [A A A A 0 0 1 1 1 B B B 2 2]
              └─ question 1 ─ answer               step                 [0 1 2]
    lyrics B ─── question 2 ─ answer               step                 [0 1 2]
                                                   answer 1 ends, C comes in
    lyrics C ─── question 3 ─ answer               pass over prompts    [C C C C C 3 3]
                                                   step                 [0 2 3]

A step computes one new token of each active answer, as one row without padding: the weights, which a step mostly waits
for, are read once for all of them. What each token sees is for the attention to know (`harness.generation.attention`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from harness.generation.active import ActiveAnswers, Done
from harness.generation.prompts import Generated, Prompt
from harness.generation.reach import check_reach
from harness.generation.sampling import Sampling
from harness.generation.schedule import Tree, check_prompts, fill_rows, plan_trees

__all__ = ["MAX_SLOTS", "Generated", "Prompt", "Sampling", "generate_batch", "stream_answer"]

MAX_SLOTS = 8192
"""Keys and values that are kept at a time, unless another number is asked for; of SmolLM2-135M in float32 360 MiB."""


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

    Greedy answers are those of `generate_answer`, up to the rounding of sums that are taken in another order.

    Args:
        causal: A `transformers` causal model in evaluation mode, adapter layers inside it or not; not peft's
            wrapper.
        prompts: In any order; those of one prefix are computed together.
        stop_id: Id of the token that ends an answer.
        max_slots: Keys and values (of one token each, in every layer) that are kept at a time, room for answers yet to
            be generated among them. More means more answers at once; a prompt that needs more than this runs alone.
            While rows grow or shrink, the old ones and the new ones exist for a moment.
        sampling: How tokens are drawn; None takes the likeliest.
        on_done: Called with a prompt's index and its answer as soon as it is there, in the order they end.

    Returns:
        An answer for each prompt, in the order of the prompts.

    Raises:
        ValueError: A prompt has no ids of its own, or asks for no token.
        ConfigError: The model's attention or its positions do not reach over a prompt and its answer, or its attention
            is of a kind that these kernels do not compute.
        CheckpointError: The model's logits are not finite.
    """
    check_prompts(prompts)
    if not prompts:
        return []
    check_reach(causal, prompts)
    waiting = deque(plan_trees(prompts, max_slots))
    active = ActiveAnswers(causal, prompts, stop_id, sampling, max_slots)
    answers: dict[int, Generated] = {}

    def finish(done: Done) -> None:
        for index, generated in done:
            answers[index] = generated
            if on_done is not None:
                on_done(index, generated)

    while waiting or active.answers:
        for row in fill_rows(take_fitting(waiting, active, max_slots)):
            finish(active.begin(row))
        if active.answers:
            finish(active.step())
    return [answers[index] for index in range(len(prompts))]


def take_fitting(waiting: deque[Tree], active: ActiveAnswers, max_slots: int) -> list[Tree]:
    """Take the next trees that fit beside what is active; at least one where nothing is."""
    taken: list[Tree] = []
    need = active.need
    while waiting:
        grown = need.with_tree(waiting[0])
        if grown.num_slots > max_slots and need.num_rows:
            break
        need = grown
        taken.append(waiting.popleft())
    return taken


def stream_answer(
    causal: nn.Module,
    ids: Sequence[int],
    stop_id: int,
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
) -> Iterator[tuple[int, float]]:
    """Answer one prompt, token by token: the same answer that `generate_batch` gives.

    Between two tokens the model is free for other work, another stream among it. What is switched on while a token is
    asked for (an adapter, say) is what computes it.

    Args:
        causal: As for `generate_batch`.
        ids: The prompt.
        stop_id: Id of the token that ends the answer; it is not handed out.
        max_new_tokens: At most so many tokens, the stop token included.
        sampling: How tokens are drawn; None takes the likeliest.

    Returns:
        Tokens and their log-probabilities, as in `Generated`, each computed when it is asked for.

    Raises:
        ValueError: The prompt is empty or asks for no token.
        ConfigError: As `generate_batch`.
    """
    prompts = [Prompt((), tuple(ids), max_new_tokens)]
    check_prompts(prompts)
    check_reach(causal, prompts)
    return _stream(ActiveAnswers(causal, prompts, stop_id, sampling, 0), next(plan_trees(prompts, len(ids))))


def _stream(active: ActiveAnswers, tree: Tree) -> Iterator[tuple[int, float]]:
    done = active.begin([tree])
    while not done:
        answer = active.answers[0]
        yield answer.ids[-1], answer.logprobs[-1]
        done = active.step()
    ((_, generated),) = done
    if not generated.is_finished:
        yield generated.ids[-1], generated.logprobs[-1]
