"""The build's benchmarks: what they compare is the same on both sides, and what they watch is seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import build as build_bench
from bench import stream
from bench.record import WrongResultError
from preprocess.corpus import generate_songs, write_corpus


@pytest.mark.model
def test_the_chats_given_to_the_baseline_hold_the_very_examples_of_the_shards(tmp_path: Path) -> None:
    songs = tmp_path / "songs.csv"
    write_corpus(songs, generate_songs(30, seed=0), "genius", 30)
    build_bench.build_shards(songs, tmp_path / "data", 1)
    examples = build_bench.read_examples(tmp_path / "data")
    build_bench.write_chats(tmp_path / "chats.jsonl", tmp_path / "data")
    lines = (tmp_path / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == sum(examples.values()) > 150
    rebuilt = build_bench.encode_chats(tmp_path / "chats.jsonl")
    assert rebuilt == examples


def test_the_memory_of_a_process_and_its_children_is_seen_together() -> None:
    child = "data = bytearray(60 << 20); import time; time.sleep(1.5)"
    parent = f"import subprocess, sys; data = bytearray(60 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    watched = stream.watch([sys.executable, "-c", parent])
    assert 115 < watched.peak_mib < 250
    assert watched.seconds > 1


def test_a_build_that_fails_is_no_figure() -> None:
    with pytest.raises(WrongResultError, match="exit code 3"):
        stream.watch([sys.executable, "-c", "raise SystemExit(3)"])
