"""Songs between the stages: what is written comes back, whole or by row, with and without the lyrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.build.spool import Chunk, Spool, open_chunk, write_chunk
from preprocess.schema import Song


def make_song(number: int) -> Song:
    return Song(
        id=f"song-{number}",
        lyrics=f"line {number}\nsecond line \u6771\u98a8",
        title=None if number % 3 == 0 else f"Title {number}",
        artist=f"Artist {number % 4}",
        year=1900 + number,
        themes=("love", "rain") if number % 2 else (),
        language="en",
        source="00000-000000.arrow",
    )


def write(path: Path, numbers: range) -> Chunk:
    songs = [make_song(number) for number in numbers]
    columns: dict[str, np.ndarray[Any, Any]] = {
        "lyrics_hash": np.array([2**63 + number for number in numbers], dtype=np.uint64),
        "signature": np.arange(len(numbers) * 4, dtype=np.uint8).reshape(-1, 4),
    }
    return write_chunk(path, songs, columns, {"seen": len(numbers)})


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    names = [tmp_path / f"00000-{i:06d}.arrow" for i in range(4)]
    return Spool.of([write(names[0], range(5)), write(names[1], range(0)), write(names[2], range(5, 12))])


def test_songs_numbers_and_note_come_back(tmp_path: Path) -> None:
    path = tmp_path / "00000-000000.arrow"
    written = write(path, range(7))
    chunk = open_chunk(path)
    assert chunk == written
    assert chunk.songs() == [make_song(number) for number in range(7)]
    assert chunk.note() == {"seen": 7}
    numbers = chunk.numbers(["lyrics_hash", "signature"])
    assert numbers["lyrics_hash"].tolist() == [2**63 + number for number in range(7)]
    assert numbers["signature"].tolist() == np.arange(28).reshape(-1, 4).tolist()
    assert chunk.texts("artist")[:2] == ["Artist 0", "Artist 1"]


def test_songs_are_found_by_their_index_over_all_chunks(spool: Spool) -> None:
    assert len(spool) == 12
    indices = np.array([0, 4, 5, 11])
    assert [song.id for song in spool.songs(indices)] == ["song-0", "song-4", "song-5", "song-11"]
    assert list(spool.songs(np.array([], dtype=np.int64))) == []


def test_artists_come_in_the_order_asked_for(spool: Spool) -> None:
    assert spool.artists(np.array([11, 0, 6, 1])) == ["Artist 3", "Artist 0", "Artist 2", "Artist 1"]


def test_nothing_stands_in_its_place_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "00000-000000.arrow"
    with pytest.raises(AttributeError):
        write_chunk(path, [None], {}, {})  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []
