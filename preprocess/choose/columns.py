"""What is kept in memory of each song while a sample is chosen: numbers in columns, 110 bytes a song."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NONE = -1
"""Code of a fact that a song lacks."""

NUM_PERMUTATIONS = 64
"""Bytes of a song's near-duplicate signature."""


@dataclass(frozen=True, slots=True, eq=False)
class SongColumns:
    """N songs that cleaning kept, in the order of the input.

    Attributes:
        id_hash: uint64[N], of the id.
        lyrics: uint64[N], `preprocess.clean.lyrics.lyrics_hash`: equal for the same words.
        artist: uint64[N], of the artist's name without case; 0 for none.
        genre: int32[N], index into `genres`, `NONE` for none.
        decade: int32[N], year // 10, `NONE` for none.
        language: int32[N], index into `languages`.
        num_chars: int32[N], length of the lyrics.
        quality: float32[N], 0 to 1.
        signature: uint8[N, NUM_PERMUTATIONS], see `preprocess.choose.duplicates`.
        genres: Names of genres.
        languages: Codes of languages.
    """

    id_hash: npt.NDArray[np.uint64]
    lyrics: npt.NDArray[np.uint64]
    artist: npt.NDArray[np.uint64]
    genre: npt.NDArray[np.int32]
    decade: npt.NDArray[np.int32]
    language: npt.NDArray[np.int32]
    num_chars: npt.NDArray[np.int32]
    quality: npt.NDArray[np.float32]
    signature: npt.NDArray[np.uint8]
    genres: tuple[str, ...]
    languages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lyrics)
