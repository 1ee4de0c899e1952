"""Paths, folders and patterns resolved to files of a format that can be read."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from preprocess.errors import DataError
from preprocess.outside_text import parse_json

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = (".parquet", ".arrow")
COMPRESSIONS = (".gz", ".zst")

_SIDE_FILES = frozenset({"state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"})
"""What lies beside the songs in a saved data set's folder."""

_HUB_PREFIX = "hub:"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?:[@#][\w./-]+){0,2}")


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """Resolve files, folders (searched through, in sorted order) and patterns to files of a readable format.

    In a folder that `datasets.save_to_disk` wrote, the files that its state names are taken, of all its splits.

    Raises:
        DataError: A path matches nothing, or a named file has a suffix that is not known.
    """
    files: list[Path] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            found = sorted(_search(path))
        elif path.is_file():
            found = [path]
        else:
            found = sorted(path for path in map(Path, glob.glob(str(name), recursive=True)) if path.is_file())
        if not found:
            raise DataError(
                f"{name}: no such file, or a folder without song files. Give files, folders or patterns on this "
                f"machine ({_formats()}), or a data set of the Hugging Face hub as hub:owner/name."
            )
        files += found
    for file in files:
        if find_format(file) is None:
            raise DataError(
                f"{file}: the format {file.suffix or '(no suffix)'!r} is not known. Known: {_formats()}."
            )
    return files


def is_hub_id(name: str | Path) -> bool:
    """Whether a name stands for a data set of the hub: hub:owner/name, or owner/name where no such path exists."""
    text = str(name)
    if text.startswith(_HUB_PREFIX):
        return True
    path = Path(text)
    return bool(_HUB_ID.fullmatch(text)) and not path.exists() and find_format(path) is None


def find_format(path: Path) -> str | None:
    """The suffix that tells a file's format, as in ".csv" for "songs.csv.gz"; None for one that is not known."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        return suffixes[-2] if len(suffixes) > 1 and suffixes[-2] in TEXT_SUFFIXES else None
    return suffixes[-1] if suffixes and suffixes[-1] in TEXT_SUFFIXES + TABLE_SUFFIXES else None


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read a piece at a time.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _formats() -> str:
    return (
        f"{', '.join(TEXT_SUFFIXES + TABLE_SUFFIXES)}; the text formats also with {' or '.join(COMPRESSIONS)}"
    )


def _search(folder: Path) -> Iterator[Path]:
    saved: dict[Path, set[str] | None] = {}
    for file in folder.rglob("*"):
        if file.name in _SIDE_FILES or find_format(file) is None or not file.is_file():
            continue
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if file.parent not in saved:
            saved[file.parent] = _read_state(file.parent / "state.json")
        names = saved[file.parent]
        if names is None or file.name in names:
            yield file


def _read_state(path: Path) -> set[str] | None:
    """The files of a data set that was saved in a folder (their bare names), or None where none was."""
    try:
        state = parse_json(path.read_text(encoding="utf-8"))
        return {Path(entry["filename"]).name for entry in state["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
