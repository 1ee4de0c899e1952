"""A full disk ends a build with one line and its own exit code, and the same command goes on when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from preprocess.__main__ import app
from preprocess.check.verify import verify_dataset
from preprocess.corpus import generate_songs, write_corpus
from tests.toys import make_tokenizer

NUM_SONGS = 3000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_build_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    songs = tmp_path / "songs.csv"
    write_corpus(songs, generate_songs(NUM_SONGS, seed=0, length="short"), "genius", NUM_SONGS)
    (tmp_path / "tokenizer.json").write_text(make_tokenizer().to_json(), encoding="utf-8")
    arguments = ["build", "--input", songs, "--output", small_disk / "data", "--workers", "1"]
    arguments += ["--tokenizer", tmp_path / "tokenizer.json", "--set", "encode.seq_len=1024"]
    command = [str(argument) for argument in arguments]
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 9, failed.output
    assert "no space left" in failed.output
    assert not (small_disk / "data").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert verify_dataset(small_disk / "data").ok
    assert [path.name for path in small_disk.iterdir()] == ["data"]
