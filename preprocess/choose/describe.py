"""Songs turned into the columns that choosing needs: chunk by chunk, then one behind the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from preprocess.choose.columns import NONE, NUM_PERMUTATIONS, SongColumns
from preprocess.choose.duplicates import sign_lyrics
from preprocess.choose.order import hash_text
from preprocess.clean.lyrics import lyrics_hash
from preprocess.schema import Int32Array, Song, Traits

UNKNOWN_LANGUAGE = "und"

_DTYPES: dict[str, type[np.generic]] = {
    "id_hash": np.uint64,
    "lyrics": np.uint64,
    "artist": np.uint64,
    "genre": np.int32,
    "decade": np.int32,
    "language": np.int32,
    "num_chars": np.int32,
    "quality": np.float32,
    "signature": np.uint8,
}

NUMBERS = tuple(_DTYPES)
"""Names of the arrays of `SongColumns`."""


def hash_artist(name: str | None) -> int:
    """A 64-bit hash of an artist's name without case; 0 for none."""
    return (hash_text(name.casefold()) or 1) if name else 0


def describe_songs(songs: Sequence[Song], traits: Sequence[Traits] | None = None) -> SongColumns:
    """The columns of some cleaned songs, with code tables of their own.

    Args:
        songs: N cleaned songs.
        traits: What was judged of each; without them every song has quality 1.
    """
    genres, genre = _encode([song.genre for song in songs])
    languages, language = _encode([song.language or UNKNOWN_LANGUAGE for song in songs])
    return SongColumns(
        id_hash=np.array([hash_text(song.id) for song in songs], np.uint64),
        lyrics=np.array([lyrics_hash(song.lyrics) for song in songs], np.uint64),
        artist=np.array([hash_artist(song.artist) for song in songs], np.uint64),
        genre=genre,
        decade=np.array([NONE if song.year is None else song.year // 10 for song in songs], np.int32),
        language=language,
        num_chars=np.array([len(song.lyrics) for song in songs], np.int32),
        quality=np.array([1.0] * len(songs) if traits is None else [of.quality for of in traits], np.float32),
        signature=sign_lyrics([song.lyrics for song in songs]),
        genres=genres,
        languages=languages,
    )


def _encode(names: Sequence[str | None]) -> tuple[tuple[str, ...], Int32Array]:
    known = tuple(sorted({name for name in names if name}))
    codes = {name: code for code, name in enumerate(known)}
    return known, np.array([codes[name] if name else NONE for name in names], np.int32)


def concatenate(parts: Iterable[SongColumns], num_songs: int | None = None) -> SongColumns:
    """Columns one behind the other, under one table of codes, in alphabetical order.

    Args:
        parts: Columns whose tables may differ; read one at a time.
        num_songs: Songs in all parts, when it is known: then nothing is held twice. Otherwise the parts are kept
            until their sum is known.
    """
    if num_songs is None:
        parts = list(parts)
        num_songs = sum(len(part) for part in parts)
    arrays = {
        name: np.empty((num_songs, NUM_PERMUTATIONS) if name == "signature" else num_songs, dtype)
        for name, dtype in _DTYPES.items()
    }
    tables: dict[str, dict[str, int]] = {"genre": {}, "language": {}}
    end = 0
    for part in parts:
        start, end = end, end + len(part)
        for name, array in arrays.items():
            array[start:end] = getattr(part, name)
        for name, names in (("genre", part.genres), ("language", part.languages)):
            codes = [tables[name].setdefault(word, len(tables[name])) for word in names]
            _recode(arrays[name][start:end], codes)
    assert end == num_songs, f"{end} songs in the parts, {num_songs} announced"
    for name, table in tables.items():
        place = {word: code for code, word in enumerate(sorted(table))}
        _recode(arrays[name], [place[word] for word in table])
    genres, languages = (tuple(sorted(tables[name])) for name in ("genre", "language"))
    return SongColumns(**arrays, genres=genres, languages=languages)


def _recode(codes: np.ndarray[Any, Any], new_codes: Sequence[int]) -> None:
    """Put the new code in the place of each code."""
    codes[:] = np.array([*new_codes, NONE], codes.dtype)[codes]
