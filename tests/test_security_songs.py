"""Songs whose titles, artists and lyrics are attacks, from the input to the pages: they are shown, and do nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.demo.items import Demo, DemoItem, write_demo
from harness.demo.terminal import print_demo
from harness.report import write_report
from preprocess.__main__ import app
from preprocess.terminal import make_console
from tests.hostile import CONTROLS, HOSTILE
from tests.test_quality_page import needs_chromium, run_chromium
from tests.toys import make_tokenizer

DANGEROUS_TAGS = {
    *(
        "script",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "input",
        "button",
        "textarea",
        "frame",
        "applet",
    ),
    *("img", "video", "audio", "foreignobject", "animate", "set"),
}
"""None of them stands in the project's own pages."""


class Dangers(HTMLParser):
    """Gathers what could act in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: (value or "").strip().lower() for name, value in attrs}
        if tag in DANGEROUS_TAGS or (tag == "meta" and values.get("http-equiv") == "refresh"):
            self.found.append(tag)
        self.found += [
            f"{tag} {name}" for name in values if name.startswith("on") or name in ("srcdoc", "formaction")
        ]
        for name in ("href", "src", "xlink:href", "action"):
            value = values.get(name, "")
            if value and not value.startswith(("#", "data:,", "data:image/")):
                self.found.append(f"{tag} {name}={value}")


def test_the_reader_of_pages_sees_attacks_that_are_not_escaped() -> None:
    texts = [text for text in HOSTILE if "alert(1)" in text and "<" in text]
    assert len(texts) >= 10
    for text in texts:
        assert Dangers(f"<html><body><p>{text}</p></body></html>").found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A data set of one song for each text, and what the build said on the terminal."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "here").mkdir()
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text(make_tokenizer().to_json(), encoding="utf-8")
    with (folder / "songs.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(HOSTILE):
            lines = [
                f"The river {number} ran by the mill {text}",
                f"And the moon {number} went down",
                text,
                "We sang again",
            ]
            song = {
                "title": text,
                "artist": text if number % 2 else f"Band {number % 7}",
                "genre": "rock",
                "year": 1990,
            }
            file.write(json.dumps({"id": str(number), **song, "lyrics": "\n".join(lines * 3)}) + "\n")
    options = ["--input", str(folder / "songs.jsonl"), "--output", str(folder / "data")]
    options += ["--tokenizer", str(folder / "tokenizer")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "here")
        result = CliRunner().invoke(app, ["build", *options])
        assert result.exit_code == 0, result.output
        shown = CliRunner().invoke(app, ["quality", *options[:2]])
        asked = [CliRunner().invoke(app, ["inspect", str(folder / "data")])]
    assert [one.exit_code for one in (shown, *asked)] == [0, 0]
    yield folder, "".join(one.output for one in (result, shown, *asked))
    assert not list(folder.rglob("canary"))


def test_a_build_from_hostile_songs_writes_its_own_files_and_no_others(built: tuple[Path, str]) -> None:
    folder, _ = built
    names = {path.name for path in folder.iterdir()}
    assert names <= {"here", "tokenizer", "songs.jsonl", "data", ".songs.jsonl.lock"}
    assert not list((folder / "here").iterdir())
    files = {
        path.relative_to(folder / "data").as_posix()
        for path in (folder / "data").rglob("*")
        if path.is_file()
    }
    assert all(name.isascii() and not set(name) & set("<>$`;&|'\" ") for name in files)
    kept = (folder / "data" / "eval_songs.jsonl").read_text(encoding="utf-8")
    assert kept.count("\n") >= 1


def test_a_build_shows_nothing_that_a_terminal_obeys(built: tuple[Path, str]) -> None:
    assert len(built[1]) > 500
    assert not CONTROLS & set(built[1])


def test_the_quality_page_holds_no_attack(built: tuple[Path, str]) -> None:
    page = (built[0] / "data" / "quality.html").read_text(encoding="utf-8")
    assert "alert(1)" in page  # they are there, as text
    assert Dangers(page).found == []


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, built: tuple[Path, str]) -> Path:
    """A run's folder whose every text is hostile."""
    run = tmp_path_factory.mktemp("report") / "<script>alert(1)<"
    run.mkdir()
    demo = make_demo()
    write_demo(run, demo)
    shutil.copy(built[0] / "data" / "quality.json", run / "quality.json")
    (run / "config.yaml").write_text(json.dumps({"output_dir": HOSTILE[3], "model": {"path": HOSTILE[60]}}))
    (run / "versions.json").write_text(json.dumps({text: text for text in HOSTILE if text}))
    return run


def make_demo() -> Demo:
    return Demo(
        [DemoItem(text, text, text, text, text, text, text) for text in HOSTILE], 1.0, 7, note=HOSTILE[-9]
    )


def test_the_report_holds_no_attack(run_dir: Path) -> None:
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert page.count("alert(1)") >= 100
    assert Dangers(page).found == []
    assert "default-src 'none'" in page


def test_answers_are_printed_without_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    print_demo(make_demo(), make_console())
    said = capsys.readouterr().out
    assert "[bold]x[/bold]" in said
    assert not CONTROLS & set(said)


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("name", ["report", "quality"])
def test_a_browser_runs_nothing_of_the_pages(
    tmp_path: Path, run_dir: Path, built: tuple[Path, str], name: str
) -> None:
    path = write_report(run_dir) if name == "report" else built[0] / "data" / "quality.html"
    page = tmp_path / "page.html"
    page.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    assert Dangers(run_chromium(tmp_path, "--dump-dom", page.as_uri())).found == []
