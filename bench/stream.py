"""Does the memory of a build stay flat while its input grows, and how many songs a second does it read?

The build runs as a user starts it, in processes of its own, from made-up songs in the two-column shape, with the
plan's sample. Memory is the sum of what all its processes hold at one moment (proportional set size where the system
tells it), looked at ten times a second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.build import TOKENIZER
from bench.record import Outcome, WrongResultError, summarize
from preprocess.build.workers import count_cores
from preprocess.corpus import generate_songs, write_corpus
from preprocess.manifest import read_manifest

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Watched:
    """A finished process and its children: wall time, and the most memory that they held together."""

    seconds: float
    peak_mib: float


def measure(*, quick: bool) -> Outcome:
    """Build from a smaller and a larger file, one after the other.

    Raises:
        WrongResultError: A build failed, or the samples differ in size.
    """
    small, large = (2_000, 4_000) if quick else (200_000, 1_000_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watched = {num: _build(folder, num) for num in (small, large)}
        taken = {num: read_manifest(folder / str(num)).splits["train"].num_songs for num in (small, large)}
    return Outcome(
        baseline="small_input",
        figures={
            **{f"peak_at_{num}": summarize([run.peak_mib], "MiB") for num, run in watched.items()},
            **{
                f"songs_per_s_at_{num}": summarize([num / run.seconds], "songs/s")
                for num, run in watched.items()
            },
        },
        ratios={},
        facts={
            "processes": 1 + count_cores(),
            **{f"training_songs_at_{num}": count for num, count in taken.items()},
            "mib_per_million_songs_more": (watched[large].peak_mib - watched[small].peak_mib)
            / (large - small)
            * 1e6,
        },
    )


def _build(folder: Path, num_songs: int) -> Watched:
    songs = folder / f"{num_songs}.parquet"
    write_corpus(songs, generate_songs(num_songs, seed=0), "hub", num_songs)
    command = [sys.executable, "-m", "preprocess", "build", "--config", "plan", "--input", str(songs)]
    command += ["--output", str(folder / str(num_songs)), "--tokenizer", TOKENIZER]
    return watch(command)


def watch(command: list[str], every_s: float = 0.1) -> Watched:
    """Run a command and look at the memory of all its processes.

    Raises:
        WrongResultError: It failed.
    """
    start = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory_of(process))
        time.sleep(every_s)
    if process.returncode:
        raise WrongResultError(f"{' '.join(command)} ended with exit code {process.returncode}")
    return Watched(time.perf_counter() - start, peak / MIB)


def _memory_of(process: psutil.Process) -> int:
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    for member in family:
        try:
            memory = member.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except psutil.Error:
            continue  # it has just ended
    return total
