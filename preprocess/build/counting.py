"""The second stage: what the training songs have in common is counted, and songs that cross a split are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.console import Console

from preprocess.build.known import KnownSongs
from preprocess.build.pieces import Piece
from preprocess.build.progress import show_progress
from preprocess.build.workers import Workers
from preprocess.choose.crossing import CrossingIndex
from preprocess.measure.song import measure_song
from preprocess.schema import Int64Array, Song
from preprocess.tasks.counts import CorpusCounts

LyricsById = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Counter:
    crossing: CrossingIndex
    pool_size: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted of training songs.

    Attributes:
        counts: Of all songs but those that cross.
        known: Their facts.
        crossing: int64[C], ascending, the songs that cross.
    """

    counts: CorpusCounts
    known: KnownSongs
    crossing: Int64Array


def _make_counter(held_out: LyricsById, pool_size: int) -> _Counter:
    return _Counter(CrossingIndex(held_out), pool_size)


def _count_piece(counter: _Counter, piece: Piece) -> Counted:
    songs = piece.songs()
    lyrics = ((str(place), song.lyrics) for place, song in enumerate(songs))
    crossing = {int(found.train_id) for found in counter.crossing.search(lyrics)}
    counts, known = CorpusCounts(pool_size=counter.pool_size), KnownSongs()
    for place, song in enumerate(songs):
        if place not in crossing:
            measures = measure_song(song.lyrics, song.language)
            counts.add(song, measures)
            known.add(song, measures)
    return Counted(counts, known, piece.indices[sorted(crossing)])


def count_songs(
    pieces: Sequence[Piece], held_out: Sequence[Song], pool_size: int, workers: Workers, console: Console
) -> Counted:
    """Count the training songs, without those that are, nearly or in part, a held-out song.

    Args:
        pieces: Of the training songs.
        held_out: Songs of the evaluation splits.
        pool_size: Training songs among which similar ones will be looked for.
        workers: Processes to share the work out to.
        console: For progress.
    """
    make_state = partial(_make_counter, tuple((song.id, song.lyrics) for song in held_out), pool_size)
    total, known = CorpusCounts(pool_size=pool_size), KnownSongs()
    crossing: list[Int64Array] = [np.zeros(0, np.int64)]
    with show_progress(console, "counting", sum(len(piece.indices) for piece in pieces)) as advance:
        for piece, counted in zip(pieces, workers.run(_count_piece, pieces, make_state), strict=True):
            total.merge(counted.counts)
            known.merge(counted.known)
            crossing.append(counted.crossing)
            advance(len(piece.indices))
    return Counted(total, known, np.concatenate(crossing))
