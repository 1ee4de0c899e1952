from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from preprocess.build.encode import SongEncoder
from preprocess.build.group_file import GroupFile, mask_of, write_groups
from preprocess.errors import DataError, NoSpaceError
from preprocess.forest import PackedRow, concatenate
from preprocess.prompt import find_format
from tests.test_shards import as_lists
from tests.toys import TASKS, make_examples, make_songs, make_tokenizer


def make_groups(num_songs: int) -> list[PackedRow]:
    tokenizer = make_tokenizer()
    encoder = SongEncoder(tokenizer, find_format(tokenizer), TASKS, 512)
    return [group for song in make_songs(num_songs) for group in encoder.encode(song, make_examples(song))]


@pytest.fixture
def groups() -> list[PackedRow]:
    return make_groups(9)


def test_groups_come_back_as_they_were_written(tmp_path: Path, groups: list[PackedRow]) -> None:
    path = tmp_path / "a.arrow"
    write_groups(path, groups, {"counts": {"é": 1}})
    file = GroupFile(path)
    assert len(file) == len(groups) == 9
    assert file.note == {"counts": {"é": 1}}
    assert [as_lists(row) for row in file.rows(range(9))] == [as_lists(row) for row in groups]
    assert [as_lists(row) for row in file.rows([5, 0, 5])] == [as_lists(groups[i]) for i in (5, 0, 5)]
    assert file.rows([]) == []
    (row,) = file.rows([3])
    assert [array.dtype for array in (row.input_ids, row.seq_lens, row.parents, row.tasks)] == [np.int32] * 4
    assert row.label_mask.dtype == np.bool_


def test_sizes_are_those_of_the_groups(tmp_path: Path, groups: list[PackedRow]) -> None:
    write_groups(tmp_path / "a.arrow", groups, {})
    file = GroupFile(tmp_path / "a.arrow")
    assert file.lengths.tolist() == [len(group.input_ids) for group in groups]
    assert file.num_segments.tolist() == [len(group.seq_lens) for group in groups]
    assert file.num_supervised.tolist() == [int(group.label_mask.sum()) for group in groups]


def test_a_file_without_a_group_can_be_written_and_opened(tmp_path: Path) -> None:
    write_groups(tmp_path / "a.arrow", [], {"n": 0})
    file = GroupFile(tmp_path / "a.arrow")
    assert (len(file), file.rows([]), file.note) == (0, [], {"n": 0})
    assert file.num_supervised.tolist() == file.lengths.tolist() == []


@pytest.mark.parametrize("index", [9, -1])
def test_a_group_that_is_not_there_is_an_index_error(
    tmp_path: Path, groups: list[PackedRow], index: int
) -> None:
    write_groups(tmp_path / "a.arrow", groups, {})
    with pytest.raises(IndexError):
        GroupFile(tmp_path / "a.arrow").rows([index])


def test_a_group_of_two_songs_is_refused(tmp_path: Path, groups: list[PackedRow]) -> None:
    with pytest.raises(ValueError, match="a group is of one song, got"):
        write_groups(tmp_path / "a.arrow", [concatenate(groups[:2])], {})
    assert list(tmp_path.iterdir()) == []


def test_a_mask_with_a_hole_is_refused_and_not_filled(tmp_path: Path, groups: list[PackedRow]) -> None:
    mask = groups[0].label_mask.copy()
    mask[np.flatnonzero(mask)[1]] = False
    with pytest.raises(ValueError, match="do not run up to the end"):
        write_groups(tmp_path / "a.arrow", [replace(groups[0], label_mask=mask)], {})


def test_the_mask_is_the_end_of_each_segment() -> None:
    mask = mask_of(np.array([3, 2, 4], dtype=np.int32), np.array([0, 2, 1], dtype=np.int32))
    assert mask.tolist() == [False] * 3 + [True] * 2 + [False] * 3 + [True]


def test_thousands_of_files_hold_no_descriptor(tmp_path: Path, groups: list[PackedRow]) -> None:
    write_groups(tmp_path / "a.arrow", groups, {})
    before = len(os.listdir("/proc/self/fd"))
    files = [GroupFile(tmp_path / "a.arrow") for _ in range(50)]
    kept = [file.rows([1]) for file in files]
    assert len(kept) == 50
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("keep", [0, 5, 600, -9])
def test_a_cut_file_is_refused(tmp_path: Path, groups: list[PackedRow], keep: int) -> None:
    path = tmp_path / "a.arrow"
    write_groups(path, groups, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.arrow: cannot be read as an Arrow file"):
        GroupFile(path)


def test_a_missing_file_is_refused(tmp_path: Path, groups: list[PackedRow]) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        GroupFile(tmp_path / "a.arrow")
    write_groups(tmp_path / "a.arrow", groups, {})
    file = GroupFile(tmp_path / "a.arrow")
    file.path.unlink()
    with pytest.raises(DataError, match=r"a\.arrow: cannot be read"):
        file.rows([0])


def test_a_full_disk_leaves_no_file(
    tmp_path: Path, groups: list[PackedRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NoSpaceError, match="no space left"):
        write_groups(tmp_path / "a.arrow", groups, {})
    assert list(tmp_path.iterdir()) == []
