"""The demo: which songs and questions it shows, that its prompts are training's, and what it prints."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from harness.config import LoraSettings, ModelSettings
from harness.demo import DEMO_FILE, Demo, DemoItem, demo_lyrics, demo_songs, print_demo, shorten, write_demo
from harness.demo_prompts import (
    choose_prompts,
    choose_songs,
    encode_prompt,
    fit_lyrics,
    read_lyrics,
    read_songs,
)
from harness.evaluation.questions import open_held_out
from harness.generation.plain import generate_answer
from harness.lora import adapter_state, add_lora, save_adapter, trainable_parameters
from harness.model import load_base_model
from harness.report.records import read_run
from preprocess.errors import ConfigError, DataError
from preprocess.prompt import find_format
from preprocess.schema import Example
from tests.toys import Family, make_dataset, make_examples, make_model_dir, make_songs, make_tokenizer

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder, num_songs=4, num_eval_songs=8, num_lines=9)
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("model"), make_tokenizer().vocab_size)


@pytest.fixture(scope="module")
def adapter_dir(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    adapted = add_lora(load_base_model(settings(model_dir)), LoraSettings(r=4, alpha=64), seed=1)
    torch.manual_seed(2)
    for name, parameter in trainable_parameters(adapted):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=1.0)
    save_adapter(folder, adapted, adapter_state(adapted))
    return folder


def settings(model_dir: Path) -> ModelSettings:
    return ModelSettings(path=str(model_dir), precision="fp32")


def example_of(question: str, title: str) -> Example:
    song = next(song for song in make_songs(12, num_lines=9) if song.title == title)
    return next(example for example in make_examples(song) if example.instruction == question)


def test_each_song_is_asked_another_task_and_the_expected_answer_is_its_own(data: Path) -> None:
    prompts = choose_prompts(open_held_out(data), read_songs(data), 5)
    asked = [example_of(prompt.question, str(prompt.title)) for prompt in prompts]
    assert [example.task for example in asked] == ["artist", "genre", "decade", "themes", "artist"]
    assert [prompt.expected for prompt in prompts] == [example.answer for example in asked]
    assert len({prompt.title for prompt in prompts}) == 5
    assert prompts == choose_prompts(open_held_out(data), read_songs(data), 5)


@pytest.mark.parametrize("family", ["chatml", "llama3", "plain"])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_question_typed_in_gives_the_ids_of_the_data_set(
    tmp_path: Path, family: Family, share_prefix: bool
) -> None:
    make_dataset(tmp_path, family=family, share_prefix=share_prefix, num_songs=2, num_eval_songs=4)
    held_out = open_held_out(tmp_path)
    for prompt in choose_prompts(held_out, read_songs(tmp_path), 4):
        typed = encode_prompt(prompt.lyrics, prompt.question, held_out.tokenizer, held_out.prompt)
        assert typed == prompt.ids
        other = encode_prompt(prompt.lyrics + "\nla", prompt.question, held_out.tokenizer, held_out.prompt)
        assert other != prompt.ids


def test_songs_by_artists_and_of_genres_not_yet_shown_come_first() -> None:
    facts = [("A", "Pop"), ("A", "Rock"), ("B", "Pop"), ("B", "Folk"), ("C", "Pop")]
    songs = {str(i): {"artist": artist, "genre": genre} for i, (artist, genre) in enumerate(facts)}
    assert choose_songs(songs, 3) == ["0", "3", "4"]
    assert choose_songs(songs, 99) == ["0", "3", "4", "1", "2"]


def test_both_models_answer_and_the_report_reads_it(
    data: Path, model_dir: Path, adapter_dir: Path, tmp_path: Path
) -> None:
    demo = demo_songs(settings(model_dir), data, adapter_dir, QUIET, num_songs=3, max_new_tokens=6)
    held_out = open_held_out(data)
    base = load_base_model(settings(model_dir)).eval()
    for item, prompt in zip(demo.items, choose_prompts(held_out, read_songs(data), 3), strict=True):
        ids = generate_answer(base, prompt.ids, held_out.manifest.stop_token_id, 6)
        assert item.before.startswith(held_out.tokenizer.decode(ids, skip_special_tokens=True).strip())
        assert item.after is not None
        assert (item.title, item.artist) == (prompt.title, prompt.artist)
    assert any(item.before != item.after for item in demo.items)
    assert 0 < demo.num_tokens <= 3 * 2 * 6
    write_demo(tmp_path / "run", demo)
    assert json.loads((tmp_path / "run" / DEMO_FILE).read_text("utf-8")) == demo.to_json()
    assert [sample.question for sample in read_run(tmp_path / "run").demo] == [i.question for i in demo.items]


def test_without_an_adapter_only_the_base_model_answers(data: Path, model_dir: Path) -> None:
    demo = demo_songs(settings(model_dir), data, None, QUIET, num_songs=99, max_new_tokens=2)
    assert len(demo.items) == 8
    assert all(item.after is None for item in demo.items)


def test_an_answer_that_did_not_stop_is_marked(data: Path, model_dir: Path) -> None:
    (item,) = demo_songs(settings(model_dir), data, None, QUIET, num_songs=1, max_new_tokens=3).items
    assert item.before.endswith(" …")


def test_the_users_own_lyrics_are_asked_the_users_question(data: Path, model_dir: Path) -> None:
    lyrics = "Sing of the river\nSing of the rain"
    demo = demo_lyrics(
        settings(model_dir),
        data,
        None,
        QUIET,
        lyrics=lyrics,
        question=" What is it about? ",
        max_new_tokens=4,
    )
    (item,) = demo.items
    assert (item.question, item.lyrics_excerpt, item.expected) == ("What is it about?", lyrics, None)
    assert demo.note is None


def test_lyrics_that_are_too_long_are_cut_at_a_line_end_with_a_note(data: Path, model_dir: Path) -> None:
    lyrics = "\n".join(f"Line {number} of the river and the road" for number in range(100))
    demo = demo_lyrics(
        settings(model_dir), data, None, QUIET, lyrics=lyrics, question="Which genre?", max_new_tokens=4
    )
    assert demo.note is not None
    assert "of 100" in demo.note


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
        ({"question": "Why?", "max_new_tokens": 0}, "0 new tokens"),
        ({"question": "Why?", "max_new_tokens": 5000}, "not even the first line"),
    ],
)
def test_what_cannot_be_asked_is_a_bad_setting(
    data: Path, model_dir: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        demo_lyrics(settings(model_dir), data, None, QUIET, lyrics="la", **options)  # type: ignore[arg-type]


def test_no_songs_is_a_bad_setting(data: Path, model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="0 songs"):
        demo_songs(settings(model_dir), data, None, QUIET, num_songs=0)


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
