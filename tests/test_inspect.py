from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from preprocess.__main__ import app
from preprocess.check.inspect import (
    describe_dataset,
    describe_example,
    describe_row,
    describe_task,
    print_dataset,
    print_example,
    print_row,
    print_task,
)
from preprocess.errors import ConfigError, DataError
from preprocess.forest import position_ids
from preprocess.manifest import read_manifest
from preprocess.schema import Song
from preprocess.shards import open_split, write_split
from tests.test_verify import row_without_lyrics
from tests.toys import TASKS, encode_songs, make_dataset, make_songs, make_tokenizer, write_toy_manifest

GREEN, DIM = "\x1b[1;32m", "\x1b[2m"


def text_of(segment: dict[str, Any]) -> str:
    return "".join(run["text"] for run in segment["runs"])


def plain_console(width: int = 200) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=False), out


def colour_console(width: int = 200) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=True, color_system="standard", no_color=False), out


def write_dataset_of(folder: Path, songs: list[Song]) -> None:
    """A data set whose train split holds these songs."""
    make_dataset(folder, num_eval_songs=0)
    tokenizer = make_tokenizer()
    info = write_split(folder / "train", encode_songs(songs, tokenizer, 512), TASKS, 100)
    write_toy_manifest(folder, {"train": info}, tokenizer, 512)


def test_a_described_row_is_the_row(toy_dataset: Path) -> None:
    row, tokenizer = open_split(toy_dataset, "train")[1], make_tokenizer()
    value = describe_row(toy_dataset, "train", 1)
    assert json.loads(json.dumps(value)) == value
    assert (value["num_tokens"], value["seq_len"]) == (len(row.input_ids), 512)
    assert value["num_supervised"] == int(row.label_mask.sum())
    assert "".join(text_of(segment) for segment in value["segments"]) == tokenizer.decode(
        row.input_ids.tolist()
    )
    positions, end = position_ids(row), 0
    for segment, length, parent in zip(value["segments"], row.seq_lens, row.parents, strict=True):
        start, end = end, end + int(length)
        assert segment["parent"] == (None if parent < 0 else parent)
        assert (segment["first_position"], segment["last_position"]) == (positions[start], positions[end - 1])
        assert (segment["num_tokens"], segment["num_supervised"]) == (length, row.label_mask[start:end].sum())
        is_prefix = segment["task"] is None
        assert is_prefix == (parent < 0) == ("ends_in_stop_token" not in segment)


def test_runs_split_prompt_from_answer_and_show_special_tokens(toy_dataset: Path) -> None:
    song = make_songs(12)[0]
    (row,) = describe_example(toy_dataset, f"{song.id}/artist")["rows"]
    prefix, leaf = row["segments"]
    assert song.lyrics in text_of(prefix)
    assert not any(run["supervised"] for run in prefix["runs"])
    assert leaf["runs"][-2:] == [
        {"text": song.artist, "supervised": True, "special": False},
        {"text": "<|im_end|>", "supervised": True, "special": True},
    ]
    assert {run["text"] for run in prefix["runs"] if run["special"]} == {"<|im_start|>", "<|im_end|>"}
    assert leaf["last_supervised"] == {"id": 2, "text": "<|im_end|>"}
    assert song.artist is not None
    assert song.artist.startswith(leaf["first_supervised"]["text"])
    assert leaf["ends_in_stop_token"] is True


def test_an_answer_without_the_stop_token_is_shown_as_such(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_eval_songs=0)
    tokenizer = make_tokenizer()
    (row,) = encode_songs(make_songs(1), tokenizer, 512)
    ids = np.where(row.input_ids == tokenizer.special_id("<|im_end|>"), 65, row.input_ids).astype(np.int32)
    info = write_split(tmp_path / "train", [replace(row, input_ids=ids)], TASKS, 9)
    write_toy_manifest(tmp_path, {"train": info}, tokenizer, 512)
    assert [s.get("ends_in_stop_token") for s in describe_row(tmp_path, "train", 0)["segments"]] == [None] + [
        False
    ] * 4
    console, out = plain_console()
    print_row(tmp_path, "train", 0, console)
    assert out.getvalue().count("DOES NOT END IN THE STOP TOKEN") == 4


@pytest.mark.parametrize("index", [-1, 6, 10**9])
def test_a_row_out_of_range_is_refused_with_the_range(toy_dataset: Path, index: int) -> None:
    assert len(open_split(toy_dataset, "train")) == 6
    with pytest.raises(ConfigError, match=rf"row {index}: split 'train' of .* has rows 0 … 5"):
        describe_row(toy_dataset, "train", index)
    with pytest.raises(DataError, match="no split 'test'"):
        describe_row(toy_dataset, "test", 0)


def test_a_malformed_row_is_a_data_error(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_eval_songs=0)
    (row,) = encode_songs(make_songs(1), make_tokenizer(), 512)
    wrong = replace(row, parents=np.array([-1, 0, 3, 0, 0], dtype=np.int32))
    info = write_split(tmp_path / "train", [row], TASKS, 9)
    write_toy_manifest(tmp_path, {"train": info}, make_tokenizer(), 512)
    describe_row(tmp_path, "train", 0)
    shards = write_split(tmp_path / "wrong", [wrong], TASKS, 9).shards
    (tmp_path / "wrong" / shards[0].file).replace(tmp_path / "train" / shards[0].file)
    with pytest.raises(DataError, match="row 0 of split 'train' is malformed"):
        describe_row(tmp_path, "train", 0)


def test_colours_tell_prompt_from_answer(toy_dataset: Path) -> None:
    song = make_songs(12)[0]
    console, out = colour_console()
    print_example(toy_dataset, f"{song.id}/artist", console)
    assert f"{GREEN}{song.artist}\x1b[0m" in out.getvalue()
    assert f"{DIM}{song.lyrics.splitlines()[0]}\x1b[0m" in out.getvalue()
    assert f"{GREEN}{song.lyrics.splitlines()[0]}" not in out.getvalue()
    assert "⟦" not in out.getvalue()


def test_without_a_terminal_brackets_tell_prompt_from_answer(toy_dataset: Path) -> None:
    song = make_songs(12)[0]
    console, out = plain_console()
    print_example(toy_dataset, f"{song.id}/artist", console)
    assert f"⟦{song.artist}<|im_end|>⟧" in out.getvalue()
    assert out.getvalue().count("⟦") == out.getvalue().count("⟧") == 1
    assert "\x1b" not in out.getvalue()


def test_the_tree_hangs_each_example_under_its_song(toy_dataset: Path) -> None:
    console, out = plain_console()
    print_row(toy_dataset, "train", 1, console)
    heads = [line for line in out.getvalue().splitlines() if " tokens, positions " in line]
    value = describe_row(toy_dataset, "train", 1)
    assert len(heads) == len(value["segments"]) == 10
    for line, segment in zip(heads, value["segments"], strict=True):
        indent = line.index(f"[{segment['segment']}] {segment['task'] or 'prefix'} · {segment['song_id']}")
        assert indent == (4 if segment["parent"] is None else 8)
        assert f"positions {segment['first_position']}..{segment['last_position']}, " in line
    assert out.getvalue().startswith("train row 1 of 6: ")


def test_lyrics_are_never_read_as_markup_nor_sent_as_control_characters(tmp_path: Path) -> None:
    lyrics = "[bold red]la[/bold red] [/] [link=http://x]y[/link]\n\x1b[31mred\x1b[0m bell\x07 \r end\x7f"
    song = replace(make_songs(1)[0], id="[red]id[/red]\x1b[1m", lyrics=lyrics)
    write_dataset_of(tmp_path, [song])
    console, out = plain_console()
    print_row(tmp_path, "train", 0, console)
    assert "[bold red]la[/bold red] [/] [link=http://x]y[/link]" in out.getvalue()
    assert "[red]id[/red]␛[1m" in out.getvalue()
    assert "␛[31mred␛[0m bell␇ ␍ end␡" in out.getvalue()
    assert not set("\x1b\x07\r\x7f") & set(out.getvalue())
    assert lyrics in text_of(describe_row(tmp_path, "train", 0)["segments"][0])


def test_all_examples_of_a_song_are_found_and_no_other_song_s(toy_dataset: Path) -> None:
    value = describe_example(toy_dataset, "song-0003")
    assert (value["song_id"], value["task"]) == ("song-0003", None)
    segments = [segment for row in value["rows"] for segment in row["segments"]]
    assert [segment["task"] for segment in segments] == [None, *TASKS]
    assert {segment["song_id"] for segment in segments} == {"song-0003"}
    assert describe_example(toy_dataset, "song-0013")["rows"][0]["split"] == "eval"


def test_a_song_id_with_a_slash_is_not_cut(tmp_path: Path) -> None:
    write_dataset_of(tmp_path, [replace(make_songs(1)[0], id="a/genre"), replace(make_songs(2)[1], id="a")])
    assert describe_example(tmp_path, "a/genre")["song_id"] == "a/genre"
    nested = describe_example(tmp_path, "a/genre/artist")
    assert (nested["song_id"], nested["task"]) == ("a/genre", "artist")


@pytest.mark.parametrize("name", ["nobody", "nobody/artist", "song-0003/colour", ""])
def test_an_example_that_is_not_there_is_refused(toy_dataset: Path, name: str) -> None:
    with pytest.raises(
        DataError, match=r"found no example .*expected a song's id or ID/TASK.* artist, genre"
    ):
        describe_example(toy_dataset, name)


def test_the_summary_holds_the_manifest_s_counts_and_what_follows(toy_dataset: Path) -> None:
    value, manifest = describe_dataset(toy_dataset), read_manifest(toy_dataset)
    assert json.loads(json.dumps(value)) == value
    split, train = value["splits"]["train"], manifest.splits["train"]
    assert (split["num_rows"], split["num_songs"], split["num_examples"]) == (6, 12, 48)
    assert split["fill"] == train.num_tokens / (6 * 512)
    assert split["supervised_share"] == train.num_supervised / train.num_tokens
    assert split["tokens_per_example"] == train.num_tokens / 48
    assert split["unshared_tokens_per_example"] == train.unshared_tokens / 48 > split["tokens_per_example"]
    assert split["by_task"] == train.by_task


def test_sharing_is_what_makes_the_difference(tmp_path: Path) -> None:
    make_dataset(tmp_path / "shared")
    make_dataset(tmp_path / "separate", share_prefix=False)
    shared, separate = (
        describe_dataset(tmp_path / name)["splits"]["train"] for name in ("shared", "separate")
    )
    assert separate["sharing_factor"] == 1.0
    assert shared["sharing_factor"] > 2.0
    assert shared["unshared_tokens_per_example"] == separate["tokens_per_example"]


def test_the_summary_prints_as_tables(toy_dataset: Path) -> None:
    console, out = plain_console()
    print_dataset(toy_dataset, console)
    train = read_manifest(toy_dataset).splits["train"]
    (line,) = [line for line in out.getvalue().splitlines() if f"{train.num_tokens:,}" in line]
    for cell in ("train", "12", "48", f"{train.num_tokens / 48:.1f}", f"{train.unshared_tokens / 48:.1f}"):
        assert f" {cell} " in line
    for task in TASKS:
        assert out.getvalue().count(f" {task} ") == 2


def test_the_summary_tells_how_even_the_rows_are(toy_dataset: Path) -> None:
    by_row = open_split(toy_dataset, "train").num_supervised()
    spread = describe_dataset(toy_dataset)["splits"]["train"]["supervised_per_row"]
    assert spread == {"min": by_row.min(), "mean": by_row.mean(), "max": by_row.max()}
    console, out = plain_console()
    print_dataset(toy_dataset, console)
    assert f"{by_row.mean():.0f} ({by_row.min()} to {by_row.max()})" in out.getvalue()


def test_a_row_tells_what_share_of_it_is_supervised(toy_dataset: Path) -> None:
    row = open_split(toy_dataset, "train")[0]
    share = row.label_mask.sum() / len(row.input_ids)
    assert describe_row(toy_dataset, "train", 0)["supervised_share"] == share
    console, out = plain_console()
    print_row(toy_dataset, "train", 0, console)
    assert f"{row.label_mask.sum()} supervised tokens ({share:.1%})" in out.getvalue()


@pytest.mark.parametrize("share_prefix", [True, False])
def test_the_examples_of_a_task_are_listed(tmp_path: Path, share_prefix: bool) -> None:
    make_dataset(tmp_path, share_prefix=share_prefix)
    value = describe_task(tmp_path, "train", "artist", limit=20)
    assert json.loads(json.dumps(value)) == value
    wanted = {song.id: song.artist for song in make_songs(12)}
    assert {example["song_id"]: example["answer"] for example in value["listed"]} == wanted
    assert {example["question"] for example in value["listed"]} == {"Who performs this song?"}
    assert all(example["with_lyrics"] for example in value["listed"])
    train = read_manifest(tmp_path).splits["train"]
    assert {key: value[key] for key in ("examples", "supervised_tokens")} == train.by_task["artist"]
    assert sum(e["num_supervised"] for e in value["listed"]) == value["supervised_tokens"]
    assert describe_task(tmp_path, "train", "artist", limit=3)["listed"] == value["listed"][:3]


def test_a_task_or_split_that_is_not_there_is_refused(toy_dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"task 'colour': the tasks of .* are artist, genre"):
        describe_task(toy_dataset, "train", "colour")
    with pytest.raises(DataError, match="no split 'test'"):
        describe_task(toy_dataset, "test", "artist")


def test_questions_that_follow_no_lyrics_are_shown_as_such(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_eval_songs=0)
    info = write_split(tmp_path / "rainy", [row_without_lyrics("chatml", "Write a [red] song.")], TASKS, 9)
    write_toy_manifest(tmp_path, {"rainy": info}, make_tokenizer(), 512)
    segments = describe_row(tmp_path, "rainy", 0)["segments"]
    assert [segment["with_lyrics"] for segment in segments] == [False, *[True] * 5]
    listed = describe_task(tmp_path, "rainy", "artist")["listed"]
    assert [(example["song_id"], example["with_lyrics"]) for example in listed] == [
        ("song-x", False),
        ("song-0000", True),
    ]
    assert listed[0]["question"] == "Write a [red] song."
    console, out = plain_console()
    print_row(tmp_path, "rainy", 0, console)
    assert out.getvalue().count("(without lyrics)") == 1
    console, out = plain_console()
    print_task(tmp_path, "rainy", "artist", console)
    assert "rainy row 0 · song-x · without lyrics · " in out.getvalue()
    assert "Write a [red] song." in out.getvalue()


def test_an_empty_split_has_no_ratios(tmp_path: Path) -> None:
    write_dataset_of(tmp_path, [])
    assert describe_dataset(tmp_path)["splits"]["train"]["fill"] is None
    console, out = plain_console()
    print_dataset(tmp_path, console)
    assert "—" in out.getvalue()


def test_a_folder_that_is_no_data_set_is_a_data_error(tmp_path: Path) -> None:
    console, _ = plain_console()
    with pytest.raises(DataError, match="not a finished data set"):
        print_dataset(tmp_path, console)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--row", "0", "--example", "x"], 2, "two of --row, --example and --task"),
        (["--split", "eval"], 2, "--split eval without --row"),
        (["--split", "eval", "--example", "x"], 2, "--split eval without --row"),
        (["--split", "eval", "--row", "0"], 0, "eval row 0 of"),
        (["--row", "0"], 0, "train row 0 of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    toy_dataset: Path, options: list[str], code: int, words: str
) -> None:
    result = CliRunner().invoke(app, ["inspect", str(toy_dataset), *options])
    assert result.exit_code == code, result.output
    assert words in result.output
