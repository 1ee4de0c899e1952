"""Chosen songs, cut into pieces of work that lie together on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from preprocess.build.spool import Chunk, Spool
from preprocess.read.columns import content_id
from preprocess.schema import BoolArray, Int64Array, Song

SONGS_PER_PIECE = 250
SONGS_PER_LARGE_PIECE = 2000
MANY_SONGS = 200_000
"""From so many songs on, pieces are larger: each is a file."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some songs that are worked on together.

    Attributes:
        number: Of the piece among those of its split.
        indices: int64[N], which songs of the spool, ascending.
        parts: Where they lie: a chunk and the rows in it.
        renamed: bool[N], whose id occurs twice among the chosen songs, so that a hash of the content joins it.
    """

    number: int
    indices: Int64Array
    parts: tuple[tuple[Chunk, Int64Array], ...]
    renamed: BoolArray

    def songs(self) -> list[Song]:
        """Read the songs."""
        songs = [song for chunk, rows in self.parts for song in chunk.songs(rows)]
        return [
            replace(song, id=f"{song.id}-{content_id(song.title, song.artist, song.lyrics)}")
            if again
            else song
            for song, again in zip(songs, self.renamed.tolist(), strict=True)
        ]


def cut_pieces(spool: Spool, indices: Int64Array, repeated: Int64Array) -> list[Piece]:
    """Cut songs into pieces of work.

    Args:
        spool: All songs.
        indices: int64[N], ascending, the songs to work on.
        repeated: Those whose id another chosen song has, too.
    """
    size = SONGS_PER_PIECE if len(indices) < MANY_SONGS else SONGS_PER_LARGE_PIECE
    cuts = range(size, len(indices), size)
    runs = np.split(indices, cuts) if len(indices) else []
    return [
        Piece(number, run, tuple(spool.locate(run)), np.isin(run, repeated))
        for number, run in enumerate(runs)
    ]


def read_songs_of(pieces: list[Piece]) -> Iterator[Song]:
    """The songs of pieces, one piece in memory at a time."""
    for piece in pieces:
        yield from piece.songs()
