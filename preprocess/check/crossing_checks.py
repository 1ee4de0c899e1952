"""Whether a song that evaluation uses has been trained on: by its id, and by its lyrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, combinations
from pathlib import Path

import numpy as np

from preprocess.check.frame import Frame, read_lyrics
from preprocess.check.report import VerifyReport
from preprocess.check.split_checks import SplitCounts, open_whole_shards
from preprocess.choose.crossing import Crossing, CrossingIndex
from preprocess.forest import check_row
from preprocess.manifest import Manifest
from preprocess.split_counts import hash_song

TRAIN = "train"


def check_songs(
    folder: Path, manifest: Manifest, counts: Mapping[str, SplitCounts], report: VerifyReport
) -> None:
    """No song may be in two splits: evaluation would see what was trained on."""
    hashes = {split: count.songs.hashes() for split, count in counts.items()}
    report.num_checked["songs"] += sum(map(len, hashes.values()))
    for first, second in combinations(sorted(hashes, key=lambda split: split != TRAIN), 2):
        shared = set(np.intersect1d(hashes[first], hashes[second]).tolist())
        # The later of the two is no training split, so it is the small one.
        for song_id in _list_songs(folder, second, manifest) if shared else ():
            if hash_song(song_id) in shared:
                report.add("songs", f"song {song_id}", f"is in split {second} and in split {first}")


def _list_songs(folder: Path, split: str, manifest: Manifest) -> list[str]:
    shards = open_whole_shards(folder, split, manifest)
    return sorted({song_id for rows in shards for row in rows for song_id in row.song_ids})


def check_lyrics(folder: Path, manifest: Manifest, frame: Frame, report: VerifyReport) -> None:
    """No song of one split may be a copy, a near-duplicate or a part of a song of another one."""
    splits = list(manifest.splits)
    held_out = [split for split in splits if split != TRAIN]
    if not held_out:
        return
    index = CrossingIndex(pair for split in held_out for pair in _read_split(folder, split, manifest, frame))
    seen: set[tuple[str, str]] = set()
    for split in splits:
        for crossing in index.search(_count(_read_split(folder, split, manifest, frame), report)):
            _note(crossing, seen, report)


def _read_split(folder: Path, split: str, manifest: Manifest, frame: Frame) -> Iterator[tuple[str, str]]:
    """(split and song id, lyrics) of each group of a split; a song that was stored twice in turn comes once."""
    last = None
    for row in chain.from_iterable(open_whole_shards(folder, split, manifest)):
        try:
            check_row(row)
        except ValueError:
            continue  # found and reported where rows are checked
        for song_id, lyrics in read_lyrics(row, frame):
            if (song_id, lyrics) != last:
                yield f"{split} {song_id}", lyrics
            last = (song_id, lyrics)


def _count(songs: Iterator[tuple[str, str]], report: VerifyReport) -> Iterator[tuple[str, str]]:
    for song in songs:
        report.num_checked["lyrics"] += 1
        yield song


def _note(crossing: Crossing, seen: set[tuple[str, str]], report: VerifyReport) -> None:
    """Report a crossing once, unless both are of one split (an answer's song may be stored in several rows)."""
    (first_split, first), (second_split, second) = (
        name.split(" ", 1) for name in (crossing.eval_id, crossing.train_id)
    )
    if first_split == second_split:
        return
    pair = (min(crossing.eval_id, crossing.train_id), max(crossing.eval_id, crossing.train_id))
    if pair not in seen:
        seen.add(pair)
        report.add(
            "lyrics",
            f"song {first} of split {first_split}",
            f"is a {crossing.kind} of song {second} of split {second_split} (similarity {crossing.similarity:.2f}, "
            f"{crossing.containment:.0%} of the shorter one in the longer)",
        )
