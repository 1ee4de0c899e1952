from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from preprocess.durable import make_folder, sha256_of, sync_folder, write_text_durably, write_whole
from preprocess.errors import DataError, NoSpaceError


def test_a_text_that_fails_to_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest.json"
    write_text_durably(path, "old")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NoSpaceError):
        write_text_durably(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_a_file_knows_its_size_and_hash_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with write_whole(path) as file:
        for part in (b"", b"one ", memoryview(b"two")):
            file.write(part)
        assert not path.exists()
    assert path.read_bytes() == b"one two"
    assert file.num_bytes == 7
    assert file.sha256 == sha256_of(path) == hashlib.sha256(b"one two").hexdigest()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def write_half() -> None:
        with write_whole(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_text_is_written_as_utf_8_with_its_line_ends(tmp_path: Path) -> None:
    write_text_durably(tmp_path / "a", "雨\nété\r\n")
    assert (tmp_path / "a").read_bytes() == "雨\nété\r\n".encode()


def test_a_folder_in_the_way_of_a_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="could not write"):
        write_text_durably(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_system_that_cannot_sync_folders_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fail)
    sync_folder(tmp_path)


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
