from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocess.build import gather
from preprocess.build.bins import Bins
from preprocess.build.gather import GroupFiles
from preprocess.build.group_file import GroupFile, write_groups
from preprocess.build.pack import pack_lengths
from preprocess.forest import PackedRow, concatenate
from preprocess.shards import write_split
from tests.test_group_file import make_groups
from tests.test_shards import as_lists
from tests.toys import TASKS


def write_files(folder: Path, groups: list[PackedRow], sizes: list[int]) -> GroupFiles:
    """The groups in files of these sizes; 0 for an empty one."""
    files = []
    for number, size in enumerate(sizes):
        start = sum(sizes[:number])
        path = folder / f"{number:02d}.arrow"
        write_groups(path, groups[start : start + size], {})
        files.append(GroupFile(path))
    assert sum(sizes) == len(groups)
    return GroupFiles(files)


@pytest.mark.parametrize("window", [1, 1000, 1 << 25])
@pytest.mark.parametrize("rows_per_batch", [1, 4, 256])
def test_rows_are_their_groups_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, rows_per_batch: int
) -> None:
    groups = make_groups(40)
    files = write_files(tmp_path, groups, [3, 0, 17, 20])
    bins = pack_lengths(files.lengths, 600, 0, files.num_supervised)
    assert max(len(items) for items in bins) > 1
    monkeypatch.setattr(gather, "WINDOW_TOKENS", window)
    monkeypatch.setattr(gather, "ROWS_PER_BATCH", rows_per_batch)
    batches = list(files.gather(bins))
    assert [len(batch) for batch in batches[:-1]] == [rows_per_batch] * (len(batches) - 1)
    found = [as_lists(row) for batch in batches for row in batch]
    assert found == [as_lists(concatenate([groups[i] for i in items])) for items in bins]


def test_gathered_shards_have_the_bytes_of_rows_that_come_one_by_one(tmp_path: Path) -> None:
    groups = make_groups(40)
    files = write_files(tmp_path, groups, [10, 30])
    bins = pack_lengths(files.lengths, 600)
    one_by_one = [concatenate([groups[i] for i in items]) for items in bins]
    first = write_split(tmp_path / "a", files.gather(bins), TASKS, 7, len(bins))
    assert first == write_split(tmp_path / "b", one_by_one, TASKS, 7)


def test_sizes_are_counted_through(tmp_path: Path) -> None:
    groups = make_groups(12)
    files = write_files(tmp_path, groups, [0, 5, 7])
    assert len(files) == 12
    assert files.lengths.tolist() == [len(group.input_ids) for group in groups]
    assert files.num_supervised.tolist() == [int(group.label_mask.sum()) for group in groups]


def test_no_bins_give_no_rows(tmp_path: Path) -> None:
    files = write_files(tmp_path, make_groups(2), [2])
    assert list(files.gather(pack_lengths([], 600))) == []
    assert len(GroupFiles([])) == 0


def test_some_of_the_groups_can_be_gathered_alone(tmp_path: Path) -> None:
    groups = make_groups(6)
    files = write_files(tmp_path, groups, [2, 4])
    (batch,) = files.gather(Bins(np.array([5, 1]), np.array([1, 2])))
    assert [as_lists(row) for row in batch] == [as_lists(groups[5]), as_lists(groups[1])]
