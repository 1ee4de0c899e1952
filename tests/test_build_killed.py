"""A build that is killed goes on where it was, and ends in the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from preprocess.corpus import generate_songs, write_corpus
from preprocess.terminal import WIDTH_OFF_TERMINAL
from tests.toys import make_tokenizer

ROOT = Path(__file__).parents[1]
SETTINGS = ("sample.songs_per_genre=150", "encode.seq_len=1024", "rows_per_shard=64")


class Place:
    """A folder with songs and a tokenizer, in which builds are started, killed and finished."""

    def __init__(self, folder: Path, num_songs: int) -> None:
        self.folder = folder
        self.songs = folder / "songs.csv"
        write_corpus(self.songs, generate_songs(num_songs, seed=1, length="short"), "genius", num_songs)
        (folder / "tokenizer.json").write_text(make_tokenizer().to_json(), encoding="utf-8")

    def start(self, output: Path, num_workers: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "preprocess", "build", "--input", self.songs, "--output", output]
        command += ["--tokenizer", self.folder / "tokenizer.json", "--workers", num_workers]
        command += [part for setting in SETTINGS for part in ("--set", setting)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH_OFF_TERMINAL)}
        return subprocess.Popen(
            [str(part) for part in command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, output: Path, num_workers: int) -> float:
        """Run a build to its end; its seconds."""
        start = time.monotonic()
        process = self.start(output, num_workers)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return time.monotonic() - start

    def kill(self, output: Path, num_workers: int, after_s: float, *, workers_too: bool) -> bool:
        """Kill a build after some time; whether it had already ended."""
        process = self.start(output, num_workers)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=after_s)
        ended = process.poll() is not None
        if not ended:
            children = psutil.Process(process.pid).children(recursive=True)
            if workers_too:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            psutil.wait_procs(children, timeout=30)
        process.communicate()
        return ended


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_and_finish(place: Place, num_chains: int, kills_per_chain: int, seed: int) -> int:
    """Kill builds at random moments, each chain of kills going on with one build; the number of kills that hit."""
    whole = place.folder / "whole"
    seconds = place.finish(whole, 1)
    expected = digest(whole)
    draw = random.Random(seed)
    num_hits = 0
    for chain in range(num_chains):
        output = place.folder / f"chain-{chain}"
        for kill in range(kills_per_chain):
            num_workers, workers_too = draw.choice([1, 2]), draw.random() < 0.5
            ended = place.kill(output, num_workers, draw.uniform(0.3, seconds), workers_too=workers_too)
            num_hits += not ended
            if ended or kill == kills_per_chain - 1:
                break
        place.finish(output, draw.choice([1, 2]))
        assert digest(output) == expected
        assert not output.with_name(output.name + ".building").exists()
    return num_hits


def test_a_build_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path) -> None:
    assert kill_and_finish(Place(tmp_path, 1500), num_chains=1, kills_per_chain=3, seed=0) > 0


@pytest.mark.slow
def test_fifty_kills_change_no_byte(tmp_path: Path) -> None:
    assert kill_and_finish(Place(tmp_path, 12_000), num_chains=20, kills_per_chain=5, seed=1) >= 50


def test_another_setting_does_not_go_on_with_what_was_left(tmp_path: Path) -> None:
    """The negative control: had the key not changed, the first build's songs would be in the second data set."""
    place = Place(tmp_path, 600)
    assert not place.kill(tmp_path / "data", 1, 2.0, workers_too=True)
    place.songs.unlink()
    write_corpus(place.songs, generate_songs(600, seed=2, length="short"), "genius", 600)
    place.finish(tmp_path / "data", 1)
    place.finish(tmp_path / "fresh", 1)
    assert digest(tmp_path / "data") == digest(tmp_path / "fresh")
