"""Five ways to the same greedy answers, and the check that they are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from bench.record import WrongResultError
from harness.generation.batch import generate_batch
from harness.generation.plain import generate_answer
from harness.generation.prompts import Prompt

ONE = "transformers_one_at_a_time"
PADDED_SONG, PADDED_ALL = "transformers_left_padding_by_song", "transformers_left_padding_all"
HARNESS_ONE, BATCH = "harness_one_at_a_time", "harness_batch"

Answers = list[tuple[int, ...]]

MIN_DIFFERENT_TOKENS = 8
"""In all answers together: a model that says one token over and over gives the same whatever it attends to."""


def answer_by_transformers(
    model: torch.nn.Module, stop_id: int, at_a_time: int, prompts: Sequence[Prompt]
) -> Answers:
    """By transformers' `generate` with its cache, so many at a time, the shorter ones padded on the left.

    It knows one limit for all prompts of a call: the largest of theirs, at which the others are cut afterwards.
    """
    answers: Answers = []
    for start in range(0, len(prompts), at_a_time):
        part = prompts[start : start + at_a_time]
        texts = [[*prompt.prefix, *prompt.ids] for prompt in part]
        width = max(map(len, texts))
        ids = torch.tensor([[stop_id] * (width - len(text)) + text for text in texts])
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts])
        found = cast("Any", model).generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(prompt.max_new_tokens for prompt in part),
            do_sample=False,
            use_cache=True,
            eos_token_id=stop_id,
            pad_token_id=stop_id,
        )
        for prompt, row in zip(part, found[:, width:].tolist(), strict=True):
            cut = row[: prompt.max_new_tokens]
            answers.append(tuple(cut[: cut.index(stop_id)] if stop_id in cut else cut))
    return answers


def answer_one_by_one(model: torch.nn.Module, stop_id: int, prompts: Sequence[Prompt]) -> Answers:
    """By the harness, prompt by prompt."""
    return [
        tuple(generate_answer(model, [*prompt.prefix, *prompt.ids], stop_id, prompt.max_new_tokens))
        for prompt in prompts
    ]


def answer_in_batch(model: torch.nn.Module, stop_id: int, prompts: Sequence[Prompt]) -> Answers:
    """By the harness, all at once."""
    return [answer.ids for answer in generate_batch(model, prompts, stop_id)]


def check_answers(answers: Mapping[str, Sequence[Sequence[int]]]) -> int:
    """Tokens of all answers, after every way was found to give the same.

    Raises:
        WrongResultError: A way gives other answers than the first one, or the answers hold fewer than
            `MIN_DIFFERENT_TOKENS`.
    """
    baseline, *_ = answers
    expected = answers[baseline]
    for way, found in answers.items():
        differing = sum(tuple(one) != tuple(other) for one, other in zip(found, expected, strict=True))
        if differing:
            raise WrongResultError(
                f"{way}: {differing} of {len(expected)} answers are not those of {baseline}"
            )
    different = {token for answer in expected for token in answer}
    if len(different) < MIN_DIFFERENT_TOKENS:
        raise WrongResultError(
            f"all answers together hold {len(different)} different tokens, so nothing is compared; expected "
            f"{MIN_DIFFERENT_TOKENS} or more"
        )
    return sum(map(len, expected))
