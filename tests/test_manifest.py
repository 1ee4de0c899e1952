from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preprocess.errors import DataError
from preprocess.manifest import Manifest, named_files, read_manifest, write_manifest
from preprocess.shards import open_split
from tests.toys import write_sealed


def test_the_manifest_survives_the_round_trip(toy_dataset: Path, tmp_path: Path) -> None:
    manifest = replace(
        read_manifest(toy_dataset), system="Un été, 雨", extra={"config": {"seed": 1}, "n": [1]}
    )
    other = tmp_path / "other"
    other.mkdir()
    write_manifest(other, manifest)
    assert read_manifest(other) == manifest
    assert isinstance(manifest, Manifest)


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder\. Make one with: python -m preprocess build"):
        read_manifest(tmp_path / "nothing")


def test_a_folder_without_a_manifest_is_not_finished(toy_dataset: Path) -> None:
    (toy_dataset / "manifest.json").unlink()
    with pytest.raises(DataError, match="not a finished data set"):
        open_split(toy_dataset, "train")


def damage_manifest(folder: Path, **changes: Any) -> None:
    value = json.loads((folder / "manifest.json").read_text())
    write_sealed(folder, value | changes)


@pytest.mark.parametrize(
    "changes",
    [{"splits": {"train": {}}}, {"splits": []}, {"surplus": 1}, {"tasks": None}, {"splits": {"a": 3}}],
)
def test_a_damaged_manifest_is_a_data_error(toy_dataset: Path, changes: dict[str, Any]) -> None:
    damage_manifest(toy_dataset, **changes)
    with pytest.raises(DataError, match=r"damaged"):
        read_manifest(toy_dataset)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 4}'])
def test_a_manifest_that_is_something_else_is_a_data_error(toy_dataset: Path, text: str) -> None:
    (toy_dataset / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: damaged"):
        read_manifest(toy_dataset)


def test_another_version_of_the_format_is_refused(toy_dataset: Path) -> None:
    damage_manifest(toy_dataset, format_version=99)
    with pytest.raises(DataError, match="another version of the format"):
        read_manifest(toy_dataset)


def test_every_file_of_a_data_set_is_named_by_its_manifest(toy_dataset: Path) -> None:
    manifest = read_manifest(toy_dataset)
    sides = dict.fromkeys(
        ("labels.json", "eval_songs.jsonl", "knowledge.jsonl", "tokenizer/tokenizer.json"), ""
    )
    there = {path.relative_to(toy_dataset).as_posix() for path in toy_dataset.rglob("*") if path.is_file()}
    assert named_files(replace(manifest, extra={"files": sides})) == there
    assert named_files(manifest) == there - sides.keys()


@pytest.mark.parametrize(
    "files", [None, [], "labels.json", {"../other": ""}, {"/etc/passwd": ""}, {"a/../../b": ""}]
)
def test_side_files_that_are_no_names_inside_the_folder_are_refused(toy_dataset: Path, files: Any) -> None:
    manifest = replace(read_manifest(toy_dataset), extra={"files": files})
    with pytest.raises(DataError, match="side files"):
        named_files(manifest)


def test_every_byte_of_a_manifest_counts(toy_dataset: Path) -> None:
    path = toy_dataset / "manifest.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"manifest\.json: (damaged|written by another version)"):
            read_manifest(toy_dataset)
    path.write_bytes(whole)
    read_manifest(toy_dataset)
