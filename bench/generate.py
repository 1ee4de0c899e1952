"""How many questions a second are answered and ranked, all of a song's at once, against one at a time?

Answered: greedy answers of the lengths that a data set's own answers have, to four and to eight questions about each
song of real length, by a toy and by SmolLM2-135M. The baseline is transformers' `generate` with its key-value cache,
one prompt at a time. Beside it: the same with one song's prompts at a time, and with all prompts at once, padded on the
left; the harness's own loop over single prompts; and the harness's batches, which compute lyrics once for all their
questions and give every active answer a token in each step.

Ranked: the scores of the closed sets of names that songs are asked about. The plain loop computes prompt and name again
for every name; with transformers' cache each prompt is computed once and its names in one batch; the harness hangs all
of a song's questions and names under its lyrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from bench.answer_ways import (
    BATCH,
    HARNESS_ONE,
    ONE,
    PADDED_ALL,
    PADDED_SONG,
    Answers,
    answer_by_transformers,
    answer_in_batch,
    answer_one_by_one,
    check_answers,
)
from bench.material import SMOLLM2, find_tokenizer
from bench.prefix import VOCAB_SIZE, Size, make_model
from bench.questions import make_prompts
from bench.rank_ways import Ranking, time_ranking
from bench.record import Figure, Outcome, compare, rates, summarize, time_in_turns
from harness.assembly import set_attention
from harness.config import ModelSettings
from harness.generation.prompts import Prompt
from harness.model import load_base_model
from preprocess.corpus import Length
from preprocess.tokenizer import TextTokenizer

CPU = torch.device("cpu")
PRETRAINED = "SmolLM2-135M"
STOP_ID = VOCAB_SIZE - 1
"""Of the toy."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of one model.

    Attributes:
        per_song: Questions about each song, one case for each number.
        num_songs: Songs.
        num_counted: See `make_prompts`.
        length: Of a song.
        num_turns: Timed turns.
    """

    per_song: tuple[int, ...]
    num_songs: int
    num_counted: int
    length: Length
    num_turns: int


@dataclass(frozen=True, slots=True)
class Work:
    """What is measured.

    Attributes:
        size: Of the toy.
        toy: What it is asked.
        pretrained: What SmolLM2-135M is asked, where its package is installed; None leaves it out.
        ranking: What the toy ranks.
    """

    size: Size
    toy: Asked
    pretrained: Asked | None
    ranking: Ranking


SIZE = Size(6, "short", 2048, 256, 4, 5)
SMALL = Size(2, "short", 2048, 64, 2, 3)
FULL = Work(
    SIZE,
    Asked((4, 8), 4, 200, "full", 3),
    Asked((4, 8), 2, 200, "full", 2),
    Ranking(SIZE, 4, 24),
)
QUICK = Work(SMALL, Asked((4,), 2, 12, "short", 2), None, Ranking(SMALL, 1, 6))


def open_toy(size: Size) -> torch.nn.Module:
    """A random Llama with adapters inside, in evaluation mode; its projections are large, so that answers vary."""
    causal = make_model(size).causal
    with torch.no_grad():
        for name, parameter in causal.named_parameters():
            if "proj" in name:
                parameter.mul_(8)
    set_attention(causal, "sdpa", CPU)
    return causal.eval()


def open_pretrained() -> torch.nn.Module:
    """SmolLM2-135M in float32."""
    model = load_base_model(ModelSettings(path=f"package:{SMOLLM2}", precision="fp32")).eval()
    set_attention(model, "sdpa", CPU)
    return model


def fold(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The same prompts in the ids of the toy: as much work, other words."""
    return [
        replace(
            prompt,
            prefix=tuple(id_ % VOCAB_SIZE for id_ in prompt.prefix),
            ids=tuple(id_ % VOCAB_SIZE for id_ in prompt.ids),
        )
        for prompt in prompts
    ]


def time_case(
    case: str, model: torch.nn.Module, prompts: Sequence[Prompt], stop_id: int, asked: Asked, per_song: int
) -> tuple[dict[str, Figure], dict[str, Figure], dict[str, Any]]:
    """Answer prompts every way; the first one beforehand, untimed, so that no way pays for what a first call sets up.

    Returns:
        Figures, ratios and facts, all named after the case.

    Raises:
        WrongResultError: A way gives other answers than the baseline, or see `check_answers`.
    """
    ways: dict[str, Callable[[Sequence[Prompt]], Answers]] = {
        ONE: partial(answer_by_transformers, model, stop_id, 1),
        PADDED_SONG: partial(answer_by_transformers, model, stop_id, per_song),
        PADDED_ALL: partial(answer_by_transformers, model, stop_id, len(prompts)),
        HARNESS_ONE: partial(answer_one_by_one, model, stop_id),
        BATCH: partial(answer_in_batch, model, stop_id),
    }
    for answer in ways.values():
        answer(prompts[:1])
    timed = {way: partial(answer, prompts) for way, answer in ways.items()}
    turns = time_in_turns(timed, asked.num_turns, num_warmups=0)
    num_tokens = check_answers(turns.results)
    figures = {
        f"{case}: {way}_questions_per_s": summarize(rates(seconds, len(prompts)), "questions/s")
        for way, seconds in turns.seconds.items()
    }
    ratios = {f"{case}: {way}": compare(turns.seconds[ONE], turns.seconds[way]) for way in ways if way != ONE}
    facts = {
        f"{case}: prompts": len(prompts),
        f"{case}: tokens_of_lyrics": sum(len(prompt.prefix) for prompt in prompts) / len(prompts),
        f"{case}: tokens_of_question": sum(len(prompt.ids) for prompt in prompts) / len(prompts),
        f"{case}: tokens_of_answer": num_tokens / len(prompts),
    }
    return figures, ratios, facts


def measure_model(
    name: str, model: torch.nn.Module, stop_id: int, asked: Asked, tokenizer: TextTokenizer, *, folded: bool
) -> tuple[dict[str, Figure], dict[str, Figure], dict[str, Any]]:
    """All cases of one model; what is returned and raised as by `time_case`."""
    found: tuple[dict[str, Figure], dict[str, Figure], dict[str, Any]] = ({}, {}, {})
    for per_song in asked.per_song:
        prompts = make_prompts(
            tokenizer, asked.num_songs, per_song, num_counted=asked.num_counted, length=asked.length
        )
        case = f"{name}, {per_song} questions a song"
        results = time_case(case, model, fold(prompts) if folded else prompts, stop_id, asked, per_song)
        for whole, part in zip(found, results, strict=True):
            whole.update(part)
    return found


def measure(*, quick: bool) -> Outcome:
    """Answer questions five ways, and rank names three ways.

    Raises:
        WrongResultError: Two ways give other answers, or other scores.
    """
    work = QUICK if quick else FULL
    tokenizer = find_tokenizer(quick=quick)
    toy = open_toy(work.size)
    figures, ratios, facts = measure_model("toy", toy, STOP_ID, work.toy, tokenizer, folded=True)
    model = f"a toy: random Llama, hidden {work.size.hidden_size}, {work.size.num_layers} layers, {VOCAB_SIZE} ids, "
    model += "float32, LoRA r=16"
    if work.pretrained is not None and find_spec(SMOLLM2) is not None:
        model += f"; {PRETRAINED}, float32"
        stop_id = tokenizer.special_id("<|im_end|>")
        found = measure_model(
            PRETRAINED, open_pretrained(), stop_id, work.pretrained, tokenizer, folded=False
        )
        figures, ratios, facts = figures | found[0], ratios | found[1], facts | found[2]
    ranked_figures, ranked_facts = time_ranking(toy, work.ranking)
    return Outcome(
        baseline=ONE,
        figures=figures | ranked_figures,
        ratios=ratios,
        facts={
            "model": model,
            "tokenizer": tokenizer.source,
            **facts,
            **ranked_facts,
            "torch_threads": torch.get_num_threads(),
        },
    )
