"""The demo's answers: marks, confidence, what is shown where generating fails, and what is shipped."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from harness.demo.asking import Nobody, StoredItems, ask_all
from harness.demo.examples import read_examples
from harness.demo.items import Demo, DemoItem, Mark, parse_item, split_marked, to_json
from harness.demo.prompts import Prompt, choose_prompts, prompt_examples, read_songs
from harness.demo.screening import choose_examples
from harness.demo.speaker import (
    Asking,
    Said,
    Speaker,
    _Growing,
    find_likeliest,
    mean_probability,
    open_data,
    open_speaker,
)
from harness.demo.stored import Source, describe_source, read_stored, write_stored
from harness.demo.terminal import LiveTable, print_demo
from harness.evaluation.questions import open_held_out
from harness.generation.sampling import Sampling
from preprocess.clean.explicit import is_explicit
from preprocess.clean.sung import split_sung
from preprocess.errors import ConfigError, DataError
from tests.demos import make_adapter, make_asked, make_item, settings_of
from tests.toys import make_model_dir, make_tokenizer

SOURCE = Source("2026-11-28", "package:toy", "ab" * 32, "cd" * 32, "ef" * 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_asked(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def speaker(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Speaker:
    model_dir = make_model_dir(tmp_path_factory.mktemp("model"), make_tokenizer().vocab_size)
    adapter = make_adapter(model_dir, tmp_path_factory.mktemp("adapter"))
    return open_speaker(settings_of(model_dir), open_data(data), adapter)


@pytest.fixture(scope="module")
def prompts(data: Path) -> list[Prompt]:
    return choose_prompts(open_held_out(data), read_songs(data), 4)


def test_a_text_is_cut_at_its_claims_and_nothing_is_lost() -> None:
    marks = [Mark(4, 9, "supported", ""), Mark(7, 12, "contradicted", ""), Mark(30, 99, "supported", "")]
    text = "The river ran by the old mill, all day"
    cut = [(part.text, part.mark.verdict if part.mark else None) for part in split_marked(text, marks)]
    assert cut == [
        ("The ", None),
        ("river", "supported"),
        (" ra", "contradicted"),
        ("n by the old mill,", None),
        (" all day", "supported"),
    ]
    assert "".join(part for part, _ in cut) == text


def test_an_item_comes_back_from_json_as_it_was() -> None:
    value = json.loads(json.dumps(to_json(make_item())))
    assert parse_item(value) == make_item()
    assert set(value["claims_after"][0]) >= {"start", "end", "verdict", "why"}


CLAIM = {"start": 1, "end": 3, "verdict": "supported", "why": ""}


@pytest.mark.parametrize(
    "damage",
    [
        {"before": 7},
        {"question": "half a pair \ud800"},
        {"likeliest_after": 3},
        {"confidence_before": "much"},
        {"confidence_before": 1.5},
        {"confidence_after": math.nan},
        {"confidence_after": True},
        {"tokens_per_s_before": "10"},
        {"tokens_per_s_after": 10**400},
        {"claims_before": [CLAIM | {"end": 0}]},
        {"claims_before": [CLAIM | {"start": "1"}]},
        {"claims_before": [CLAIM | {"end": 3.5}]},
        {"claims_before": [CLAIM | {"verdict": "perhaps"}]},
        {"claims_before": [CLAIM | {"why": None}]},
        {"claims_after": [CLAIM | {"kind": ["artist"]}]},
    ],
)
def test_an_item_with_a_damaged_field_is_refused(damage: dict[str, Any]) -> None:
    value = json.loads(json.dumps(to_json(make_item())))
    assert parse_item(value | {"claims_before": [CLAIM]}).claims_before
    with pytest.raises((TypeError, ValueError), match=r"expected|claim|surrogates"):
        parse_item(value | damage)


def test_confidence_is_a_softmax_over_the_names_and_else_a_mean_over_the_tokens() -> None:
    name, probability = find_likeliest(["a", "b", "c"], [-1000.0, -999.0, -1003.0])
    assert name == "b"
    assert probability == pytest.approx(1 / (1 + math.exp(-1) + math.exp(-4)))
    assert mean_probability([math.log(0.5), math.log(0.25)]) == pytest.approx(0.375)
    assert mean_probability([]) is None


def test_both_answers_grow_in_turns_and_end_as_the_item_has_them(
    speaker: Speaker, prompts: list[Prompt]
) -> None:
    *said, item = list(speaker.ask(prompts[0], Asking(12)))
    assert isinstance(item, DemoItem)
    heard = [one for one in said if isinstance(one, Said)]
    assert [one.version for one in heard[:8]] == ["before"] * 4 + ["after"] * 4
    for version, reply in item.replies.items():
        texts = [one.text for one in heard if one.version == version]
        assert reply.text.startswith(texts[-1].rstrip())
        assert reply.confidence is not None
        assert 0 < reply.confidence <= 1
        assert reply.likeliest in speaker.data.labels["artist"].train_counts
        assert reply.tokens_per_s
    assert item.before != item.after


def test_an_answer_that_was_cut_within_a_character_ends_before_it(
    speaker: Speaker, prompts: list[Prompt]
) -> None:
    ids = speaker.data.tokenizer.encode("by the 夜")[:-1]
    assert speaker.data.tokenizer.decode(ids).endswith("\ufffd")
    themes = next(prompt for prompt in prompts if prompt.task == "themes")
    growing = _Growing(iter(()), ids=ids, logprobs=[-1.0] * len(ids))
    assert speaker._reply("before", growing, themes, len(ids)).text == "by the …"


def test_a_question_without_known_names_has_the_probability_of_its_tokens(
    speaker: Speaker, prompts: list[Prompt]
) -> None:
    themes = next(prompt for prompt in prompts if prompt.task == "themes")
    *_, item = speaker.ask(themes, Asking(4))
    assert isinstance(item, DemoItem)
    assert item.likeliest_before is None
    assert item.confidence_before is not None


def test_drawn_answers_are_the_same_with_the_same_seed_alone(speaker: Speaker, prompts: list[Prompt]) -> None:
    def answers(seed: int) -> tuple[str, str | None]:
        *_, item = speaker.ask(prompts[1], Asking(10, Sampling(1.5, 1.0, seed)))
        assert isinstance(item, DemoItem)
        return item.before, item.after

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)


class FailingSpeaker:
    """Answers some questions, and fails in the middle of the next."""

    def __init__(self, speaker: Speaker, num_answered: int) -> None:
        self.speaker = speaker
        self.left = num_answered

    def ask(self, prompt: Prompt, asking: Asking) -> Iterator[Said | DemoItem]:
        for number, event in enumerate(self.speaker.ask(prompt, asking)):
            if self.left == 0 and number == 2:
                raise torch.OutOfMemoryError("no memory left\nfurther lines")
            yield event
        self.left -= 1


def test_where_generating_fails_stored_answers_stand_in_and_the_failure_is_named(
    speaker: Speaker, prompts: list[Prompt]
) -> None:
    third = prompts[2]
    kept = replace(make_item(is_stored=True), song_id=third.song.id)
    stored: StoredItems = {(third.song.id, third.task): kept}
    failing: Any = FailingSpeaker(speaker, 1)
    demo, failure = ask_all(lambda: failing, prompts, Asking(6), Nobody(), stored)
    assert [item.is_stored for item in demo.items] == [False, True]
    assert demo.num_unanswered == 2
    assert demo.failure == "at question 2 of 4: OutOfMemoryError: no memory left"
    assert failure is not None
    assert isinstance(failure.error, torch.OutOfMemoryError)


class SlowToRank:
    """Says two tokens in a second each by a clock of its own, and takes a minute to rank."""

    now_s = 0.0

    def ask(self, prompt: Prompt, asking: Asking) -> Iterator[Said | DemoItem]:
        for text in ("one", "one two"):
            self.now_s += 1
            yield Said("before", text)
        self.now_s += 60
        yield make_item()


def test_the_time_of_ranking_is_not_that_of_generating(
    prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: Any = SlowToRank()
    monkeypatch.setattr(time, "perf_counter", lambda: slow.now_s)
    demo, _ = ask_all(lambda: slow, prompts[:2], Asking(2), Nobody(), {})
    assert (demo.num_tokens, demo.seconds) == (4, 4.0)


def test_a_model_that_cannot_be_loaded_is_a_failure_too(prompts: list[Prompt]) -> None:
    def fail() -> Speaker:
        raise ConfigError("model.path nowhere: no such folder")

    demo, failure = ask_all(fail, prompts, Asking(6), Nobody(), {})
    assert (demo.items, demo.num_unanswered) == ([], 4)
    assert demo.failure == "model.path nowhere: no such folder"
    assert failure is not None


def test_a_mistake_of_the_program_itself_is_not_hidden(speaker: Speaker, prompts: list[Prompt]) -> None:
    with pytest.raises(AttributeError):
        ask_all(lambda: None, [*prompts, None], Asking(1), Nobody(), {})  # type: ignore[arg-type, return-value, list-item] # wrong on purpose


def test_the_shipped_examples_are_the_screened_songs_of_their_seed() -> None:
    examples = read_examples()
    assert examples == choose_examples()
    assert len({song.artist for song in examples}) == len(examples) == 8
    assert not any(is_explicit(split_sung(song.lyrics)) for song in examples)
    assert is_explicit(split_sung(examples[0].lyrics + "\nfuck"))


def test_examples_are_asked_the_tasks_in_turn_but_not_for_names_that_the_data_set_lacks(data: Path) -> None:
    opened = open_data(data)
    rest = (opened.tokenizer, opened.prompt, 4)
    manifest = replace(opened.manifest, tasks=("artist", "genre", "themes"))
    prompts = prompt_examples(read_examples(), manifest, {}, *rest)
    assert [prompt.task for prompt in prompts] == ["artist", "genre", "themes", "artist"]
    assert prompts[0].expected is not None
    assert prompts[0].expected.startswith("The artist is Cashmere Parade.")
    known = prompt_examples(read_examples(), manifest, opened.labels, *rest)
    assert "artist" not in {prompt.task for prompt in known}
    asked = prompt_examples(read_examples(), manifest, opened.labels, *rest, "artist")
    assert {prompt.task for prompt in asked} == {"artist"}
    with pytest.raises(ConfigError, match="asks for lyrics"):
        prompt_examples(read_examples(), manifest, {}, *rest, "generation")
    with pytest.raises(ConfigError, match="--songs 3"):
        prompt_examples(read_examples(), replace(manifest, tasks=("decade",)), {}, *rest)


def test_the_shipped_answers_are_stored_ones_of_the_shipped_examples_with_their_hashes() -> None:
    stored = read_stored()
    songs = {song.id: song for song in read_examples()}
    assert len(stored.items) == len(songs)
    for item in stored.items:
        assert item.is_stored
        assert item.date == stored.source.date
        assert item.song_id is not None
        assert (item.title, item.artist) == (songs[item.song_id].title, songs[item.song_id].artist)
        assert item.after
        assert item.claims_after
    assert dict(stored.source.hashes).keys() == {"model", "adapter", "data"}
    assert all(len(sha256) == 64 for _, sha256 in stored.source.hashes)


def test_stored_answers_are_read_as_they_were_written_and_only_live_ones_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    write_stored(path, Demo([make_item()], 1.0, 2), SOURCE)
    found = read_stored(path)
    assert (found.source, found.items) == (SOURCE, (make_item(is_stored=True),))
    for demo in (
        Demo([], 1.0, 2),
        Demo([make_item(is_stored=True)], 1.0, 2),
        Demo([make_item()], 1.0, 2, failure="x"),
    ):
        with pytest.raises(ConfigError, match="only live ones"):
            write_stored(path, demo, SOURCE)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"format_version": 99}', '"x"'])
def test_a_damaged_file_of_stored_answers_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "answers.json"
    with pytest.raises(DataError, match="no such file"):
        read_stored(path)
    path.write_text(damage, encoding="utf-8")
    with pytest.raises(DataError, match="no file of stored answers"):
        read_stored(path)


def test_a_source_tells_models_and_adapters_apart(data: Path, tmp_path: Path) -> None:
    manifest = open_data(data).manifest
    model = make_model_dir(tmp_path / "model", 384)
    (tmp_path / "adapter").mkdir()
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    first = describe_source(str(model), tmp_path / "adapter", manifest, "2026-11-28")
    weights.write_bytes(b"two")
    second = describe_source(str(model), tmp_path / "adapter", manifest, "2026-11-28")
    assert first.model_sha256 == second.model_sha256 is not None
    assert first.adapter_sha256 != second.adapter_sha256
    assert describe_source("some/hub-id", None, manifest, "2026-11-28").hashes == [
        ("data", first.data_sha256)
    ]


def show(demo: Demo) -> str:
    file = io.StringIO()
    print_demo(demo, Console(file=file, width=120, color_system=None))
    return file.getvalue()


def test_the_terminal_shows_marks_confidence_and_what_is_wrong() -> None:
    text = " ".join(show(Demo([make_item(is_stored=True)], 2.0, 8)).split())
    assert "Ada Vale ✗. It is a song." in text
    assert "The artist is Jo Winter. ✓ It has 12 hits. ?" in text
    assert "likeliest name: Ada Vale, 31% · 1 ✗ · 11.5 tokens/s" in text
    assert "✗ before: Ada Vale: the artist is Jo Winter" in text
    assert "stored answers of 2026-11-28" in text
    assert "supported by the song" in text


def test_growing_answers_are_shown_on_a_terminal_and_taken_away_at_the_end(
    speaker: Speaker, prompts: list[Prompt]
) -> None:
    file = io.StringIO()
    table = LiveTable(Console(file=file, width=100, force_terminal=True, color_system=None))
    table.begin(prompts[0])
    table.hear(Said("before", "growing " * 200))
    table.hear(Said("after", "beside it"))
    assert table._live is not None
    table._live.refresh()
    table.end(make_item())
    shown = file.getvalue()
    assert "beside it" in shown
    assert "growing" in shown
    assert shown.index("beside it") < shown.index("likeliest name")
    assert shown.count(prompts[0].question) == 1


def test_a_stored_answer_stands_under_its_own_question_where_another_one_failed(
    speaker: Speaker, prompts: list[Prompt]
) -> None:
    file = io.StringIO()
    table = LiveTable(Console(file=file, width=100, force_terminal=True, color_system=None))
    second = prompts[1]
    kept = replace(make_item(is_stored=True), question="And the second?", song_id=second.song.id)
    failing: Any = FailingSpeaker(speaker, 0)
    ask_all(lambda: failing, prompts[:2], Asking(6), table, {(second.song.id, second.task): kept})
    shown = file.getvalue()
    failed, own, answer = (shown.rindex(text) for text in (prompts[0].question, "second?", "stored answers"))
    assert failed < own < answer
