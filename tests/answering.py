"""Tiny models whose attention matters and prompts of mixed lengths, for the tests of answers in batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

import torch
from peft import PeftModel
from torch import nn

from harness.config import ATTENTION_AND_MLP, LoraSettings
from harness.generation.batch import Generated, Prompt
from harness.generation.plain import generate_answer
from harness.lora import add_lora
from harness.vocabulary import NewTokens, grow_embeddings, new_rows_of
from tests.lean_models import FAMILIES, SHAPE

VOCAB_SIZE = 96
STOP = 43
NEW_TOKENS = NewTokens((VOCAB_SIZE, VOCAB_SIZE + 1), ("[VERSE]", "[CHORUS]"), ((), ()))


def make_causal(
    family: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    num_heads: int = 4,
    num_key_heads: int = 2,
    **others: object,
) -> nn.Module:
    """A random base in evaluation mode, its projections made larger, so that its likeliest tokens vary.

    Args:
        family: Of `FAMILIES`.
        dtype: Of its weights.
        num_heads: Query heads.
        num_key_heads: Key heads.
        others: Settings of its configuration.
    """
    make_config, make = FAMILIES[family]
    torch.manual_seed(0)
    heads = {"num_attention_heads": num_heads, "num_key_value_heads": num_key_heads}
    config = make_config(
        **{**SHAPE, "vocab_size": VOCAB_SIZE, "max_position_embeddings": 512, **heads, **others}
    )
    causal = cast("nn.Module", make(config).requires_grad_(requires_grad=False).eval().to(dtype))
    for name, parameter in causal.named_parameters():
        if "proj" in name:
            parameter.mul_(8)
    return causal


def add_adapter(causal: nn.Module, *, new_tokens: bool = False) -> PeftModel:
    """An adapter that changes the answers; with rows of tokens that the base does not know."""
    if new_tokens:
        grow_embeddings(causal, NEW_TOKENS)
    settings = LoraSettings(r=4, alpha=16, targets=ATTENTION_AND_MLP)
    model = add_lora(causal, settings, seed=1, new_tokens=NEW_TOKENS if new_tokens else None)
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    if (rows := new_rows_of(causal)) is not None:
        nn.init.normal_(rows.embedding, std=1.0)
        nn.init.normal_(rows.head, std=1.0)
    return cast("PeftModel", model.eval())


def make_prompts(
    num_songs: int = 5, *, seed: int = 0, longest: int = 30, vocab_size: int = VOCAB_SIZE
) -> list[Prompt]:
    """Songs of one to four questions, all of other lengths; the third song's questions share nothing."""
    draw = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocab_size) for _ in range(length))

    prompts: list[Prompt] = []
    for song in range(num_songs):
        prefix = () if song == 2 else ids(draw.randrange(1, 2 * longest))
        for _ in range(draw.randrange(1, 5)):
            prompts.append(Prompt(prefix, ids(draw.randrange(1, 12)), draw.randrange(1, longest)))
    return prompts


def answer_alone(causal: nn.Module, prompts: Sequence[Prompt], stop_id: int = STOP) -> list[tuple[int, ...]]:
    """The answers one by one, with a key-value cache of transformers."""
    return [
        tuple(generate_answer(causal, whole(prompt), stop_id, prompt.max_new_tokens)) for prompt in prompts
    ]


def whole(prompt: Prompt) -> list[int]:
    """All ids of a prompt."""
    return [*prompt.prefix, *prompt.ids]


def ids_of(answers: Sequence[Generated]) -> list[tuple[int, ...]]:
    """The ids of answers."""
    return [answer.ids for answer in answers]
