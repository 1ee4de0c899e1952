"""The closed sets that evaluation ranks: the names in training songs, and what is true of each held-out song."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from preprocess.schema import Song
from preprocess.tasks.instruct import answer_stem

LABELLED: dict[str, Callable[[Song], str | None]] = {
    "artist": lambda song: song.artist,
    "genre": lambda song: song.genre,
    "context": lambda song: song.decade,
}
"""Tasks that ask for one fact of a song, and that fact."""


def make_labels(
    train: Mapping[str, Counter[str]], held_out: Iterable[tuple[Song, frozenset[str]]], tasks: Iterable[str]
) -> dict[str, Any]:
    """By task: how its answers begin, training songs of each name, and what is true of each held-out song.

    Both of the songs that are asked for it: a song that sings its artist's name teaches no artist.

    Args:
        train: Task → name → training songs that are asked for it.
        held_out: Held-out songs, and the tasks that each is asked.
        tasks: Of the data set.
    """
    songs = list(held_out)
    return {
        task: {
            "stem": answer_stem(task),
            "train_counts": dict(sorted(train.get(task, Counter()).items())),
            "truth": {song.id: name for song, asked in songs if task in asked and (name := fact(song))},
        }
        for task, fact in LABELLED.items()
        if task in tasks
    }
