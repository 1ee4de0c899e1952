"""The course of answers in batches: what is computed when, what is handed out, what is refused."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from torch import nn

from harness.generation.attention import Decode
from harness.generation.batch import Generated, Prompt, Sampling, generate_batch, stream_answer
from harness.tuned import TunedModel
from preprocess.errors import ConfigError
from tests.answering import (
    STOP,
    add_adapter,
    answer_alone,
    ids_of,
    make_causal,
    make_prompts,
    whole,
)

PROMPTS = make_prompts()
NEVER = -1


@pytest.fixture(scope="module")
def causal() -> nn.Module:
    return make_causal()


@pytest.mark.parametrize("max_slots", [300, 8192])
def test_lyrics_are_computed_once_and_no_padding_ever(
    causal: nn.Module, monkeypatch: pytest.MonkeyPatch, max_slots: int
) -> None:
    prompts = [prompt for prompt in PROMPTS if prompt.prefix]
    forward, lengths = causal.forward, []

    @functools.wraps(forward)
    def watch(**options: Any) -> object:
        lengths.append((type(options["answering"].through).__name__, options["input_ids"].shape))
        return forward(**options)

    monkeypatch.setattr(causal, "forward", watch)
    answers = generate_batch(causal, prompts, NEVER, max_slots=max_slots)
    assert all(rows == 1 for _, (rows, _) in lengths)
    questions = sum(len(prompt.ids) for prompt in prompts)
    lyrics = sum(map(len, {prompt.prefix for prompt in prompts}))
    assert sum(slots for kind, (_, slots) in lengths if kind == "Prefill") == lyrics + questions
    generated = sum(len(answer.ids) for answer in answers)
    assert sum(slots for kind, (_, slots) in lengths if kind == "Decode") == generated - len(prompts)


def test_no_more_keys_and_values_are_kept_than_allowed(
    causal: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, held = 250, []
    forward = causal.forward

    @functools.wraps(forward)
    def watch(**options: Any) -> object:
        through = options["answering"].through
        if isinstance(through, Decode):
            prefixes = sum(sharing.prefix.store.shape[3] for sharing in through.sharings)
            held.append(prefixes + through.own.num_rows * through.own.row_slots)
        return forward(**options)

    monkeypatch.setattr(causal, "forward", watch)
    generate_batch(causal, PROMPTS, NEVER, max_slots=limit)
    assert limit / 2 < max(held) <= limit


def test_an_answer_is_handed_out_as_soon_as_it_is_there(causal: nn.Module) -> None:
    order: list[tuple[int, Generated]] = []
    answers = generate_batch(
        causal, PROMPTS, STOP, max_slots=400, on_done=lambda index, answer: order.append((index, answer))
    )
    assert [index for index, _ in order] != list(range(len(PROMPTS)))
    assert dict(order) == dict(enumerate(answers))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.is_finished == (len(answer.ids) < prompt.max_new_tokens)
    assert {answer.is_finished for answer in answers} == {True, False}
    assert generate_batch(causal, [], STOP) == []


def test_an_answer_may_be_empty_or_end_with_its_first_token(causal: nn.Module) -> None:
    prompt = replace(PROMPTS[0], max_new_tokens=5)
    (first, *_) = generate_batch(causal, [prompt], NEVER)[0].ids
    empty, limited = generate_batch(causal, [prompt], first)[0], replace(prompt, max_new_tokens=1)
    assert (empty.ids, empty.is_finished, len(empty.logprobs)) == ((), True, 1)
    one = generate_batch(causal, [limited, *PROMPTS], NEVER)[0]
    assert (one.ids, one.is_finished, len(one.logprobs)) == ((first,), False, 1)
    assert list(stream_answer(causal, whole(prompt), first, 5)) == []
    assert [token for token, _ in stream_answer(causal, whole(prompt), NEVER, 1)] == [first]


def test_a_stream_is_the_answer_token_by_token(causal: nn.Module) -> None:
    answers = generate_batch(causal, PROMPTS, STOP)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        pairs = list(stream_answer(causal, whole(prompt), STOP, prompt.max_new_tokens))
        assert tuple(token for token, _ in pairs) == answer.ids
        assert [logprob for _, logprob in pairs] == pytest.approx(
            answer.logprobs[: len(answer.ids)], rel=0, abs=1e-4
        )


def test_two_streams_of_one_model_with_the_adapter_off_and_on_may_take_turns() -> None:
    adapter = add_adapter(make_causal())
    tuned = TunedModel(cast("nn.Module", adapter.get_base_model()), adapter)
    prompt = Prompt((), tuple(whole(PROMPTS[0])), 16)
    before: dict[str, tuple[int, ...]] = {}
    for version in tuned.versions:
        with tuned.as_version(version) as model:
            (before[version],) = answer_alone(model, [prompt], NEVER)
    streams: dict[str, Iterator[tuple[int, float]]] = {
        version: stream_answer(tuned.causal, prompt.ids, NEVER, 16) for version in tuned.versions
    }
    found: dict[str, list[int]] = {version: [] for version in tuned.versions}
    for _ in range(16):
        for version in tuned.versions:
            with tuned.as_version(version):
                found[version].append(next(streams[version])[0])
    assert {version: tuple(tokens) for version, tokens in found.items()} == before
    assert before["before"] != before["after"]


def test_the_model_attends_as_before_afterwards_even_where_it_fails(causal: nn.Module) -> None:
    config = cast("Any", causal).config
    assert config._attn_implementation == "sdpa"
    generate_batch(causal, PROMPTS[:2], STOP)
    assert config._attn_implementation == "sdpa"

    def fail(index: int, answer: Generated) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_batch(causal, PROMPTS[:2], STOP, on_done=fail)
    assert config._attn_implementation == "sdpa"


@pytest.mark.parametrize("prompt", [Prompt((1,), (), 5), Prompt((1,), (2,), 0)])
def test_nothing_to_continue_or_nothing_asked_for_is_refused(causal: nn.Module, prompt: Prompt) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        generate_batch(causal, [PROMPTS[0], prompt], STOP)
    with pytest.raises(ValueError, match="1 or more"):
        stream_answer(causal, prompt.ids, STOP, prompt.max_new_tokens)  # before a token is asked for


@pytest.mark.parametrize(
    ("limit", "verb"), [("sliding_window", "attends to"), ("max_position_embeddings", "has positions for")]
)
def test_a_prompt_longer_than_the_model_reaches_is_refused(limit: str, verb: str) -> None:
    model = make_causal("mistral")
    prompts = [
        Prompt((1,) * 20, (2, 3), 9),
        Prompt((1,) * 20, (2, 3), 11),
    ]  # the last token of 33 sees no other
    setattr(cast("Any", model).config, limit, 32)
    expected = answer_alone(model, prompts)
    assert ids_of(generate_batch(model, prompts, STOP)) == expected
    with pytest.raises(ConfigError, match=f"34 tokens, but the model {verb} 32"):
        generate_batch(model, [replace(prompts[0], max_new_tokens=12)], STOP)
    with pytest.raises(ConfigError, match=f"{verb} 32"):
        stream_answer(model, [1] * 30, STOP, 4)


def test_a_model_whose_attention_goes_its_own_way_is_refused(
    causal: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = cast("Any", causal).model.layers[1].self_attn
    monkeypatch.setattr(layer, "forward", lambda hidden_states, **_: (hidden_states, None))
    with pytest.raises(ConfigError, match="1 of 2 layers attend"):
        generate_batch(causal, PROMPTS[:1], STOP)


def test_a_drawn_answer_depends_on_its_seed_and_not_on_its_neighbours(causal: nn.Module) -> None:
    sampling = Sampling(temperature=0.8, top_p=0.9, seed=4)
    answers = generate_batch(causal, PROMPTS, STOP, sampling=sampling)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert ids_of(generate_batch(causal, [prompt], STOP, sampling=sampling)) == [answer.ids]
        tokens = stream_answer(causal, whole(prompt), STOP, prompt.max_new_tokens, sampling=sampling)
        assert tuple(token for token, _ in tokens) == answer.ids
    assert ids_of(generate_batch(causal, PROMPTS[::-1], STOP, sampling=sampling)) == ids_of(answers)[::-1]
    other = generate_batch(causal, PROMPTS, STOP, sampling=replace(sampling, seed=5))
    assert ids_of(other) != ids_of(answers) != ids_of(generate_batch(causal, PROMPTS, STOP))
