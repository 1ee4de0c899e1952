"""The demo: which songs and questions it shows, that its prompts are training's, and what it prints."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.demo.asking import Failure, Nobody, ask_all
from harness.demo.items import DEMO_FILE, EXCERPT_CHARS, Demo, DemoItem, shorten, write_demo
from harness.demo.lyrics import fit_lyrics, prompt_lyrics, prompt_question, read_lyrics
from harness.demo.prompts import (
    Prompt,
    choose_prompts,
    choose_songs,
    encode_prompt,
    leave_out_explicit,
    read_songs,
)
from harness.demo.speaker import Asking, open_data, open_speaker
from harness.demo.terminal import print_demo
from harness.evaluation.questions import open_held_out
from harness.generation.plain import generate_answer
from harness.model import load_base_model
from harness.report.records import read_run
from preprocess.errors import ConfigError, DataError
from preprocess.prompt import find_format
from preprocess.schema import Example
from tests.demos import make_adapter, make_asked, settings_of
from tests.toys import Family, make_dataset, make_examples, make_model_dir, make_songs, make_tokenizer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_asked(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("model"), make_tokenizer().vocab_size)


@pytest.fixture(scope="module")
def adapter_dir(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(model_dir, tmp_path_factory.mktemp("adapter"))


def ask(
    data: Path, model_dir: Path, adapter: Path | None, prompts: Sequence[Prompt], asking: Asking
) -> tuple[Demo, Failure | None]:
    opened = open_data(data)
    return ask_all(
        lambda: open_speaker(settings_of(model_dir), opened, adapter), prompts, asking, Nobody(), {}
    )


def some_prompts(data: Path, num_songs: int, task: str | None = None) -> list[Prompt]:
    return choose_prompts(open_held_out(data), read_songs(data), num_songs, task)


def example_of(question: str, title: str) -> Example:
    song = next(song for song in make_songs(12, num_lines=9) if song.title == title)
    return next(example for example in make_examples(song) if example.instruction == question)


def test_each_song_is_asked_another_task_and_the_expected_answer_is_its_own(data: Path) -> None:
    prompts = choose_prompts(open_held_out(data), read_songs(data), 5)
    asked = [example_of(prompt.question, str(prompt.song.title)) for prompt in prompts]
    assert [example.task for example in asked] == ["artist", "genre", "decade", "themes", "artist"]
    assert [prompt.expected for prompt in prompts] == [example.answer for example in asked]
    assert len({prompt.song.title for prompt in prompts}) == 5
    assert prompts == choose_prompts(open_held_out(data), read_songs(data), 5)


@pytest.mark.parametrize("family", ["chatml", "llama3", "plain"])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_question_typed_in_gives_the_ids_of_the_data_set(
    tmp_path: Path, family: Family, share_prefix: bool
) -> None:
    make_dataset(tmp_path, family=family, share_prefix=share_prefix, num_songs=2, num_eval_songs=4)
    held_out = open_held_out(tmp_path)
    for prompt in choose_prompts(held_out, read_songs(tmp_path), 4):
        typed = encode_prompt(prompt.song.lyrics, prompt.question, held_out.tokenizer, held_out.prompt)
        assert typed == prompt.ids
        other = encode_prompt(
            prompt.song.lyrics + "\nla", prompt.question, held_out.tokenizer, held_out.prompt
        )
        assert other != prompt.ids


def test_songs_by_artists_and_of_genres_not_yet_shown_come_first() -> None:
    facts = [("A", "Pop"), ("A", "Rock"), ("B", "Pop"), ("B", "Folk"), ("C", "Pop")]
    songs = {str(i): {"artist": artist, "genre": genre} for i, (artist, genre) in enumerate(facts)}
    assert choose_songs(songs, 3) == ["0", "3", "4"]
    assert choose_songs(songs, 99) == ["0", "3", "4", "1", "2"]


def test_one_task_alone_is_asked_where_it_is_wished(data: Path) -> None:
    assert [prompt.task for prompt in some_prompts(data, 3, "genre")] == ["genre"] * 3
    with pytest.raises(
        ConfigError, match="'genres' is not among those of the data set: artist, genre, decade"
    ):
        some_prompts(data, 3, "genres")


def test_songs_with_words_of_the_lexicon_are_left_out() -> None:
    songs = {"a": {"lyrics": "La la\nla"}, "b": {"lyrics": "What the fuck\nla"}}
    assert list(leave_out_explicit(songs)) == ["a"]


def test_both_models_answer_and_the_report_reads_it(
    data: Path, model_dir: Path, adapter_dir: Path, tmp_path: Path
) -> None:
    prompts = some_prompts(data, 3)
    demo, failure = ask(data, model_dir, adapter_dir, prompts, Asking(6))
    assert failure is None
    assert demo.failure is None
    held_out = open_held_out(data)
    base = load_base_model(settings_of(model_dir)).eval()
    for item, prompt in zip(demo.items, prompts, strict=True):
        ids = generate_answer(base, prompt.ids, held_out.manifest.stop_token_id, 6)
        assert item.before.startswith(held_out.tokenizer.decode(ids, skip_special_tokens=True).strip())
        assert item.after is not None
        assert (item.title, item.artist) == (prompt.song.title, prompt.song.artist)
        assert not item.is_stored
        assert item.date
    assert any(item.before != item.after for item in demo.items)
    assert 0 < demo.num_tokens <= 3 * 2 * 6
    write_demo(tmp_path / "run", demo)
    assert json.loads((tmp_path / "run" / DEMO_FILE).read_text("utf-8")) == demo.to_json()
    assert [sample.question for sample in read_run(tmp_path / "run").demo] == [i.question for i in demo.items]


def test_without_an_adapter_only_the_base_model_answers(data: Path, model_dir: Path) -> None:
    demo, _ = ask(data, model_dir, None, some_prompts(data, 99), Asking(2))
    assert len(demo.items) == 8
    assert all(item.after is None and list(item.replies) == ["before"] for item in demo.items)


def test_an_answer_that_did_not_stop_is_marked(data: Path, model_dir: Path) -> None:
    demo, _ = ask(data, model_dir, None, some_prompts(data, 1), Asking(3))
    assert demo.items[0].before.endswith(" …")


def test_the_users_own_lyrics_are_asked_the_users_question(data: Path, model_dir: Path) -> None:
    prompt, note = own_prompt(data, "Sing of the river\nSing of the rain", question=" What is it about? ")
    demo, _ = ask(data, model_dir, None, [prompt], Asking(4))
    (item,) = demo.items
    shown = (item.question, item.lyrics_excerpt, item.expected)
    assert shown == ("What is it about?", "Sing of the river\nSing of the rain", None)
    assert note is None


def own_prompt(
    data: Path,
    lyrics: str,
    *,
    task: str | None = None,
    question: str | None = None,
    max_new_tokens: int = 4,
) -> tuple[Prompt, str | None]:
    opened = open_data(data)
    return prompt_lyrics(
        opened.manifest,
        opened.tokenizer,
        opened.prompt,
        lyrics,
        task=task,
        question=question,
        max_new_tokens=max_new_tokens,
    )


def test_the_users_own_lyrics_are_asked_a_task_and_a_task_that_was_not_trained_is_told(data: Path) -> None:
    prompt, note = own_prompt(data, "Sing of the river", task="artist")
    assert (prompt.task, prompt.question) == ("artist", "Which artist most likely performs this song?")
    assert note is None
    assert "no task structure" in str(own_prompt(data, "Sing of the river", task="structure")[1])
    with pytest.raises(ConfigError, match="did you mean 'themes'"):
        own_prompt(data, "Sing of the river", task="theme")


def test_own_lyrics_lose_the_names_in_their_headings_as_training_lyrics_did(data: Path) -> None:
    prompt, _ = own_prompt(data, "[Verse 1: Ada Vale]\nSing of the river", task="artist")
    assert "Ada" not in prompt.song.lyrics
    assert "Sing of the river" in prompt.song.lyrics


def test_lyrics_that_are_too_long_are_cut_at_a_line_end_with_a_note(data: Path) -> None:
    lyrics = "\n".join(f"Line {number} of the river and the road" for number in range(100))
    _, note = own_prompt(data, lyrics, question="Which genre?")
    assert note is not None
    assert "of 100" in note


def test_explicit_lyrics_are_told(data: Path) -> None:
    assert "explicit" in str(own_prompt(data, "What the fuck is this\nla", question="Why?")[1])


def test_a_question_of_the_users_is_asked_of_several_songs(data: Path) -> None:
    opened = open_data(data)
    songs = [prompt.song for prompt in some_prompts(data, 2)]
    ask_why = partial(prompt_question, songs, " Why? ", opened.tokenizer, opened.prompt)
    prompts, note = ask_why(400)
    assert [(prompt.song.id, prompt.question, prompt.task) for prompt in prompts] == [
        (song.id, "Why?", None) for song in songs
    ]
    assert note is None
    longest = max(len(prompt.ids) for prompt in prompts)
    num_cut = sum(len(prompt.ids) == longest for prompt in prompts)
    assert f"The lyrics of {num_cut} of 2 songs were cut" in str(ask_why(longest - 1)[1])


def test_the_cut_keeps_as_many_whole_lines_as_fit() -> None:
    tokenizer = make_tokenizer()
    prompt = find_format(tokenizer)
    lines = [f"Line {number} of the river" + "\n" * (number % 3 == 0) for number in range(30)]
    lyrics = "\n".join(lines)
    lengths = [
        len(encode_prompt("\n".join(lines[:n]).rstrip(), "Which?", tokenizer, prompt)) for n in range(31)
    ]
    for room in range(lengths[1], lengths[-1] + 20, 13):
        kept = fit_lyrics(lyrics, "Which?", tokenizer, prompt, room)
        fitting = max(n for n in range(31) if lengths[n] <= room)
        assert kept == "\n".join(lines[:fitting]).rstrip()
    with pytest.raises(ConfigError, match="not even the first line"):
        fit_lyrics(lyrics, "Which?", tokenizer, prompt, lengths[1] - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"question": " "}, "question is empty"),
        ({}, "question is empty"),
        ({"question": "Why \udcff?"}, "no UTF-8"),
        ({"question": "Why?", "task": "artist"}, "expected one of them"),
        ({"question": "Why?", "max_new_tokens": 5000}, "not even the first line"),
        ({"task": "generation"}, "asks for lyrics"),
    ],
)
def test_what_cannot_be_asked_is_a_bad_setting(data: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own_prompt(data, "la", **options)


def test_lyrics_are_read_with_any_line_ends(tmp_path: Path) -> None:
    (tmp_path / "song.txt").write_bytes(b"\xef\xbb\xbf\r\nOne  \r\nTwo\r\n\r\nThr\xc3\xa9e\r\n")
    assert read_lyrics(tmp_path / "song.txt") == "One\nTwo\n\nThrée"


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b" \n", "empty"), (b"\xff\xfe\x00", "UTF-8")]
)
def test_a_file_without_lyrics_is_bad_data(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "song.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_lyrics(tmp_path / "song.txt")


@pytest.mark.parametrize(("content", "message"), [(None, "missing"), ('{"id": "a"}\n', "without lyrics")])
def test_held_out_songs_that_are_missing_or_damaged_are_bad_data(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "eval_songs.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_songs(tmp_path)


def test_an_excerpt_has_six_lines_and_a_mark() -> None:
    assert shorten("a\nb") == "a\nb"
    assert shorten("a\nb\nc\nd\ne\nf\ng") == "a\nb\nc\nd\ne\nf\n…"
    assert shorten("a\nb\nc\nd\ne\n\ng") == "a\nb\nc\nd\ne\n…"
    assert shorten("la " * 3000) == "la " * 160 + "…"
    assert shorten("x" * EXCERPT_CHARS) == "x" * EXCERPT_CHARS


def test_held_out_songs_are_not_asked_for_the_lyrics_that_stand_before_them(data: Path) -> None:
    held_out = open_held_out(data)
    asked = [
        replace(one, task={"artist": "generation"}.get(one.task, one.task)) for one in held_out.questions
    ]
    manifest = replace(held_out.manifest, tasks=("generation", "genre", "decade", "themes"))
    held_out = replace(held_out, manifest=manifest, questions=asked)
    tasks = {prompt.task for prompt in choose_prompts(held_out, read_songs(data), 8)}
    assert tasks == {"genre", "decade", "themes"}
    with pytest.raises(ConfigError, match="asks for lyrics"):
        choose_prompts(held_out, read_songs(data), 1, "generation")


def print_to_text(demo: Demo) -> str:
    file = io.StringIO()
    print_demo(demo, Console(file=file, width=100, force_terminal=True, color_system=None))
    return file.getvalue()


def test_answers_stand_side_by_side_and_text_is_neither_markup_nor_control() -> None:
    item = DemoItem(
        title="[red]Title[/red]",
        artist="A\x1b]0;pwned\x07B",
        lyrics_excerpt="[link=x]line\x9b31m",
        question="Which [bold]genre[/bold]?",
        expected="[/]",
        before="left [/] \x1b[2J",
        after="right\x08",
    )
    text = print_to_text(Demo([item], 2.0, 10, note="cut [here]"))
    for shown in (
        "[red]Title[/red]",
        "[link=x]line",
        "Which [bold]genre[/bold]?",
        "expected: [/]",
        "cut [here]",
    ):
        assert shown in text
    assert not set(text) & {"\x1b", "\x07", "\x08", "\x9b"}
    assert any("left [/]" in line and "right" in line for line in text.splitlines())
    assert "10 tokens in 2.0 s, 5.0 tokens/s" in text


def test_a_demo_of_the_base_alone_has_one_column() -> None:
    item = DemoItem(None, None, "la", "Why?", None, "Because", None)
    text = print_to_text(Demo([item], 0.0, 1))
    assert "after" not in text
    assert "Because" in text
