"""`harness demo` and `harness generate` as commands: what goes where, what is told, and how they end."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from harness.__main__ import app
from harness.demo import command, songwriting
from harness.demo.page import DemoPage
from harness.demo.songwriting import Wish, run_generate, settle_wish, spell_wish, tell_overlap
from harness.demo.speaker import open_data
from harness.demo.stored import read_stored
from harness.evaluation.overlap import Overlap
from preprocess.errors import ConfigError, DataError
from tests.demos import make_asked, settings_of
from tests.toys import make_model_dir, make_tokenizer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_asked(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("model"), make_tokenizer().vocab_size)


def run(*arguments: str | Path, code: int = 0) -> str:
    """What the command says: on standard output where it ends well, else on standard error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def test_without_a_model_the_stored_answers_are_shown_and_said_to_be_stored(tmp_path: Path) -> None:
    said = run("demo")
    stored = read_stored()
    assert f"Stored answers of {stored.source.date}" in said
    assert "stored answers of" in said
    run("demo", "--html", tmp_path / "page.html")
    assert "stored answers of" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(item["is_stored"] for item in json.loads(run("demo", "--json")))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--songs", "2"), "pass --run RUN"),
        (("--lyrics", "x.txt"), "--task NAME or --question TEXT"),
        (("--songs", "2", "--examples", "2"), "expected one of them"),
        (("--task", "artist", "--question", "Why?"), "expected one of them"),
        (("--web", "--json"), "leave out"),
        (("--html", "no/such/folder/page.html"), "a folder that is there"),
        (("--store", "."), "a folder that is there"),
        (("--output", "."), "pass --run RUN"),
        (("--output", ".", "--question", "Why?"), "--output takes a demo.json"),
        (("--web", "--question", "Why?"), "leave out --lyrics and --question"),
        (("--web", "--lyrics", "x.txt", "--task", "themes"), "leave out --lyrics and --question"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...], told: str) -> None:
    assert told in " ".join(run("demo", *options, code=2).split())


def test_live_answers_go_to_the_terminal_the_page_the_store_and_the_run(
    data: Path, model_dir: Path, tmp_path: Path
) -> None:
    kept, page = tmp_path / "kept.json", tmp_path / "page.html"
    common = ("--model", model_dir, "--data", data, "--max-new-tokens", "3")
    said = run("demo", *common, "--songs", "2", "--output", tmp_path, "--html", page, "--store", kept)
    assert "likeliest name" in said
    assert len(json.loads((tmp_path / "demo.json").read_text("utf-8"))) == 2
    assert "live answers of" in page.read_text("utf-8")
    assert [item.is_stored for item in read_stored(kept).items] == [True, True]
    again = run("demo", "--stored", kept)
    assert "Stored answers of" in again


def test_a_model_that_is_not_there_leaves_a_page_that_names_the_failure(data: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("demo", "--model", "./nowhere", "--data", data, "--task", "themes", "--html", page, code=2)
    text = page.read_text("utf-8")
    assert "Generation failed" in text
    assert "no such folder" in text
    run("demo", "--model", "./nowhere", "--data", tmp_path, "--html", page, code=4)
    assert "stored answers of" in page.read_text("utf-8")


def test_a_taken_port_is_told_before_any_model_is_loaded(
    data: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_speaker", lambda *_: pytest.fail("the model was loaded"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = run(
            "demo",
            "--model",
            model_dir,
            "--data",
            data,
            "--task",
            "themes",
            "--web",
            "--port",
            str(port),
            code=3,
        )
    assert f"port {port}" in said


def test_the_served_page_is_told_what_the_reader_must_know(
    data: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[DemoPage] = []
    monkeypatch.setattr(command, "serve_page", lambda page, *_: pages.append(page))
    run("demo", "--model", model_dir, "--data", data, "--task", "structure", "--web", "--port", "0")
    (page,) = pages
    assert "no task structure" in str(page.note)
    assert "generation" not in page.tasks
    assert len(page.items) == 8


def test_a_page_that_cannot_be_written_costs_no_stored_answers(
    data: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DataError("the page cannot be written")

    monkeypatch.setattr(command, "write_page", fail)
    kept, page = tmp_path / "kept.json", tmp_path / "page.html"
    asked = ("demo", "--model", model_dir, "--data", data, "--songs", "1", "--max-new-tokens", "2")
    run(*asked, "--html", page, "--store", kept, code=4)
    assert len(read_stored(kept).items) == 1


def test_a_wish_is_put_in_the_words_of_training_with_the_artists_own_genre(data: Path) -> None:
    knowledge = open_data(data).knowledge
    song = next(iter(knowledge.songs.values()))
    wish, notes = settle_wish(Wish(str(song.artist).upper(), ("rain",)), knowledge)
    assert notes == []
    assert wish.artist == song.artist
    assert spell_wish(wish).startswith(
        f"In the style of {song.artist} in the genre {wish.genre}, about rain: "
    )
    assert "No training song is by Nobody" in settle_wish(Wish("Nobody"), knowledge)[1][0]
    with pytest.raises(ConfigError, match="--artist"):
        settle_wish(Wish(None, ("rain",)), knowledge)
    with pytest.raises(ConfigError, match="no UTF-8"):
        settle_wish(Wish("Ada", ("ra\udcffin",)), knowledge)


class FixedOverlap:
    """Stands for the training lyrics; finds what it was told to."""

    found = Overlap(3, "la la la", "song-1")

    def __init__(self, texts: object) -> None:
        assert texts == [("song-1", "la la la")]

    def longest(self, text: str) -> Overlap:
        assert text
        return self.found


def test_lyrics_come_with_their_overlap_and_the_same_seed_gives_the_same(
    data: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(songwriting, "TrainingLyrics", FixedOverlap)
    monkeypatch.setattr(songwriting, "read_seen_lyrics", lambda _: [("song-1", "la la la")])

    def write(seed: int) -> dict[str, object]:
        wish = Wish("Ada Vale", ("rain",))
        run_generate(
            settings_of(model_dir),
            data,
            None,
            wish,
            temperature=1.5,
            seed=seed,
            max_new_tokens=8,
            as_json=True,
        )
        value: dict[str, object] = json.loads(capsys.readouterr().out)
        del value["tokens_per_s"]
        return value

    first = write(1)
    assert first == write(1)
    assert first["lyrics"] != write(2)["lyrics"]
    assert first["overlap"] == {"num_words": 3, "text": "la la la", "song_id": "song-1"}
    assert first["is_trained"] is False
    assert "no adapter" in str(first["notes"])
    monkeypatch.setattr(FixedOverlap, "found", Overlap(20, "la", "song-1"))
    assert "20 words in a row are those of a training song" in str(write(1)["notes"])


def test_no_more_than_a_line_of_the_training_lyrics_is_told() -> None:
    told = tell_overlap(Overlap(40, "la " * 40, "song-1"))
    assert (told.count("la "), "40 words" in told, "…" in told) == (25, True, True)
    assert "…" not in tell_overlap(Overlap(25, "la " * 25, "song-1"))


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (torch.OutOfMemoryError("no memory left"), 8, "take --max-new-tokens lower"),
        (RuntimeError("a kernel\x1b[2J failed"), 1, "generation failed: RuntimeError: a kernel␛[2J failed"),
    ],
)
def test_writing_that_fails_ends_in_one_line_and_a_code(
    data: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, told: str
) -> None:
    def fail(*_: object, **__: object) -> Iterator[tuple[int, float]]:
        yield 5, -0.5
        raise error

    monkeypatch.setattr(songwriting, "stream_answer", fail)
    said = run("generate", "--model", model_dir, "--data", data, "--artist", "Ada Vale", code=code)
    assert told in said.splitlines()[-1]


def test_a_seed_that_no_generator_takes_is_refused(data: Path, model_dir: Path) -> None:
    asked = ("--model", model_dir, "--data", data, "--seed", str(2**64))
    assert "--seed" in run("generate", *asked, "--artist", "Ada Vale", code=2)
    assert "--seed" in run("demo", *asked, code=2)
