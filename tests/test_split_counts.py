from __future__ import annotations

import pytest

from preprocess import split_counts
from preprocess.forest import unpack_examples
from preprocess.row_batch import RowBatch
from preprocess.split_counts import SongSet, SplitCounter, hash_song
from tests.toys import TASKS, encode_songs, make_songs, make_tokenizer


def test_counts_do_not_depend_on_the_batches() -> None:
    rows = encode_songs(make_songs(30), make_tokenizer(), 600)
    whole, single = SplitCounter(TASKS), SplitCounter(TASKS)
    whole.add(RowBatch.of(rows))
    for row in rows:
        single.add(RowBatch.of([row]))
    info = whole.info([])
    assert info == single.info([])
    by_row = [int(row.label_mask.sum()) for row in rows]
    assert (info.min_row_supervised, info.max_row_supervised) == (min(by_row), max(by_row))
    assert min(by_row) < max(by_row)
    assert info.unshared_tokens == sum(len(e.input_ids) for row in rows for e in unpack_examples(row))


def test_nothing_counted_is_all_zeros() -> None:
    info = SplitCounter(TASKS).info([])
    assert (info.num_rows, info.num_songs, info.min_row_supervised, info.max_row_supervised) == (0, 0, 0, 0)
    assert info.by_task == {task: {"examples": 0, "supervised_tokens": 0} for task in TASKS}


@pytest.mark.parametrize("kept_apart", [1, 10, 1 << 18])
def test_a_song_counts_once_however_often_it_comes(monkeypatch: pytest.MonkeyPatch, kept_apart: int) -> None:
    monkeypatch.setattr(split_counts, "NUM_HASHES_KEPT_APART", kept_apart)
    songs = SongSet()
    for number in range(100):
        songs.add([f"song-{number % 40}", f"song-{number % 7}"])
    assert len(songs) == 40
    hashes = songs.hashes().tolist()
    assert hashes == sorted(hash_song(f"song-{number}") for number in range(40))


def test_the_hash_of_a_song_is_the_same_on_every_machine() -> None:
    assert hash_song("雨-0001") == 3611387313008327363
    assert hash_song("雨-0001") != hash_song("雨-0002")
