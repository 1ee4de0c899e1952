"""Answers in batches are those that each prompt gets alone, whatever is answered beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import nn

from harness.generation import active
from harness.generation.attention import Decode, attend_part_plainly
from harness.generation.batch import Generated, Prompt, generate_batch
from harness.lean import make_lean
from harness.tuned import TunedModel
from preprocess.forest import PackedRow
from tests.answering import (
    STOP,
    VOCAB_SIZE,
    add_adapter,
    answer_alone,
    ids_of,
    make_causal,
    make_prompts,
    whole,
)
from tests.lean_models import exact_norms

PROMPTS = make_prompts()
NEVER = -1


@pytest.fixture(scope="module")
def causal() -> nn.Module:
    return make_causal()


@pytest.fixture(scope="module")
def expected(causal: nn.Module) -> list[tuple[int, ...]]:
    answers = answer_alone(causal, PROMPTS)
    assert len({token for answer in answers for token in answer}) > 20  # not one token over and over
    ends = [len(a) < p.max_new_tokens for a, p in zip(answers, PROMPTS, strict=True)]
    assert any(ends)
    assert not all(ends)
    return answers


@pytest.mark.parametrize("max_slots", [1, 150, 400, 8192])
def test_answers_do_not_depend_on_how_many_are_generated_at_once(
    causal: nn.Module, expected: list[tuple[int, ...]], max_slots: int
) -> None:
    assert ids_of(generate_batch(causal, PROMPTS, STOP, max_slots=max_slots)) == expected
    shuffled = PROMPTS[::2] + PROMPTS[1::2]
    assert (
        ids_of(generate_batch(causal, shuffled, STOP, max_slots=max_slots)) == expected[::2] + expected[1::2]
    )


@pytest.mark.parametrize("num_prompts", [1, 16])
def test_a_batch_of_one_and_a_batch_of_sixteen_give_the_same(causal: nn.Module, num_prompts: int) -> None:
    prompts = make_prompts(8, seed=4)[:16]
    assert len(prompts) == 16
    answers = [
        generated
        for start in range(0, 16, num_prompts)
        for generated in generate_batch(causal, prompts[start : start + num_prompts], STOP)
    ]
    assert ids_of(answers) == answer_alone(causal, prompts)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize(("num_heads", "num_key_heads"), [(4, 4), (4, 1)])
def test_key_heads_may_be_shared_by_any_number_of_query_heads(
    family: str, num_heads: int, num_key_heads: int
) -> None:
    model = make_causal(family, num_heads=num_heads, num_key_heads=num_key_heads)
    prompts = PROMPTS[:8]
    assert ids_of(generate_batch(model, prompts, STOP)) == answer_alone(model, prompts)


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_a_tied_head_and_the_positions_of_llama_3_give_the_same() -> None:
    model = make_causal(tie_word_embeddings=True, rope_parameters=LLAMA3)
    expected = answer_alone(model, PROMPTS)
    assert ids_of(generate_batch(model, PROMPTS, STOP)) == expected
    assert len({token for answer in expected for token in answer}) > 20
    plain = make_causal(tie_word_embeddings=True)
    assert answer_alone(plain, PROMPTS) != expected  # the scaling matters


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("new_tokens", [False, True])
def test_an_adapter_takes_part_when_it_is_on_and_not_when_it_is_off(*, lean: bool, new_tokens: bool) -> None:
    base = make_causal()
    prompts = make_prompts(3, seed=1, vocab_size=VOCAB_SIZE + 2 if new_tokens else VOCAB_SIZE)
    adapter = add_adapter(base, new_tokens=new_tokens)
    tuned = TunedModel(cast("nn.Module", adapter.get_base_model()), adapter)
    before_and_after = []
    for version in tuned.versions:
        with tuned.as_version(version) as model:
            before_and_after.append(answer_alone(model, prompts))
    assert before_and_after[0] != before_and_after[1]
    if lean:
        assert make_lean(adapter) is None
    for version, answers in zip(tuned.versions, before_and_after, strict=True):
        with tuned.as_version(version) as model:
            assert ids_of(generate_batch(model, prompts, STOP)) == answers
    if new_tokens:
        assert max(max(answer, default=0) for answer in before_and_after[1]) >= VOCAB_SIZE


def test_transformers_generate_with_padding_on_the_left_gives_the_same(
    causal: nn.Module, expected: list[tuple[int, ...]]
) -> None:
    prompts = [whole(prompt) for prompt in PROMPTS]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    longest = max(prompt.max_new_tokens for prompt in PROMPTS)
    options = {"max_new_tokens": longest, "do_sample": False, "eos_token_id": STOP, "pad_token_id": 0}
    found = cast("Any", causal).generate(ids, attention_mask=mask, **options)[:, width:].tolist()
    for prompt, row, answer in zip(PROMPTS, found, expected, strict=True):
        cut = row[: prompt.max_new_tokens]
        assert tuple(cut[: cut.index(STOP)] if STOP in cut else cut) == answer


def log_probabilities(model: nn.Module, prompt: Prompt, generated: Generated) -> list[float]:
    """Of an answer's tokens and its stop token, by one pass over all of them, without any cache."""
    answer = [*generated.ids, *([STOP] if generated.is_finished else [])]
    text = torch.tensor([[*whole(prompt), *answer]])
    with torch.no_grad():
        logits = model(input_ids=text, use_cache=False).logits[0, -len(answer) - 1 : -1]
    chosen = logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])
    return [float(value) for value in chosen]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_in_float64_every_token_has_the_log_probability_of_a_pass_over_the_whole_text(family: str) -> None:
    model = make_causal(family, dtype=torch.float64)
    with exact_norms():
        answers = generate_batch(model, PROMPTS, STOP, max_slots=400)
        for prompt, generated in zip(PROMPTS, answers, strict=True):
            reference = log_probabilities(model, prompt, generated)
            assert len(generated.logprobs) == len(generated.ids) + generated.is_finished
            assert generated.logprobs == pytest.approx(reference, rel=0, abs=1e-9)


def test_a_question_that_sees_the_one_before_it_is_noticed(
    causal: nn.Module, expected: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out = active.lay_out

    def leak(*arguments: Any) -> tuple[PackedRow, list[list[int]]]:
        row, questions = lay_out(*arguments)
        parents = row.parents.copy()
        for own in questions:
            parents[own[1:]] = own[:-1]
        return replace(row, parents=parents), questions

    monkeypatch.setattr(active, "lay_out", leak)
    assert ids_of(generate_batch(causal, PROMPTS, STOP)) != expected


def change_steps(
    monkeypatch: pytest.MonkeyPatch, causal: nn.Module, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Let `change` replace what the model is called with for a new token of each answer."""
    forward = causal.forward

    @functools.wraps(forward)
    def wrapped(**options: Any) -> object:
        is_step = isinstance(options["answering"].through, Decode)
        return forward(**(change(options) if is_step else options))

    monkeypatch.setattr(causal, "forward", wrapped)


def change_pass(**wrong: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A change of the attention's pass alone."""

    def change(options: dict[str, Any]) -> dict[str, Any]:
        running = options["answering"]
        running.through = replace(running.through, **wrong)
        return options

    return change


def shift_positions(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"position_ids": options["position_ids"] + 1}


def swap_songs(options: dict[str, Any]) -> dict[str, Any]:
    sharings = options["answering"].through.sharings
    prefixes = [sharing.prefix for sharing in sharings]
    swapped = [replace(s, prefix=p) for s, p in zip(sharings, reversed(prefixes), strict=True)]
    return change_pass(sharings=swapped)(options)


@pytest.mark.parametrize(
    "change",
    [shift_positions, swap_songs, change_pass(sharings=()), change_pass(mask=None)],
    ids=["shifted positions", "another song's lyrics", "no lyrics", "slots of answers that were here before"],
)
def test_a_wrong_step_is_noticed(
    causal: nn.Module,
    expected: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    change_steps(monkeypatch, causal, lambda options: options)
    assert ids_of(generate_batch(causal, PROMPTS, STOP)) == expected
    change_steps(monkeypatch, causal, change)
    assert ids_of(generate_batch(causal, PROMPTS, STOP)) != expected


def test_what_a_gpu_computes_with_is_the_same(
    causal: nn.Module, expected: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active, "choose_attention", lambda *_: "sdpa")  # no kernel without a mask
    monkeypatch.setattr("harness.generation.attention.attend_part", attend_part_plainly)
    assert ids_of(generate_batch(causal, PROMPTS, STOP)) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_likeliest_token_is_near_the_exact_one_s_probability(
    dtype: torch.dtype,
) -> None:
    model, exact = make_causal(dtype=dtype), make_causal(dtype=torch.float64)
    answers = generate_batch(model, PROMPTS, STOP)
    for prompt, generated in zip(PROMPTS, answers, strict=True):
        reference = log_probabilities(exact, prompt, generated)
        assert generated.logprobs == pytest.approx(reference, rel=0, abs=0.5)
