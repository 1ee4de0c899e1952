"""What a data set says of itself: counts, hashes, tokenizer, prompt, tasks, configuration.

`manifest.json` is the last file that a build writes: a folder without it is not done.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from preprocess.durable import sha256_of, write_text_durably
from preprocess.errors import DataError
from preprocess.outside_text import parse_json

FORMAT_VERSION = 4

SIDE_FILES = (
    "labels.json",
    "eval_songs.jsonl",
    "knowledge.jsonl",
    "quality.json",
    "tokenizer/tokenizer.json",
)
"""What every data set holds beside its splits."""

_UNSEALED = "0" * 64
_SEAL = re.compile(r'\{\s*"sha256": "([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard file: its name inside the split's folder, rows, bytes and sha256."""

    file: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """Counts of one split.

    Attributes:
        num_rows: Rows.
        num_songs: Distinct songs.
        num_examples: Question-answer pairs.
        num_tokens: Slots that hold a token (all of them: rows on disk are not padded).
        num_supervised: Supervised tokens.
        min_row_supervised: Supervised tokens of the row that has the fewest.
        max_row_supervised: Supervised tokens of the row that has the most.
        unshared_tokens: Tokens that the same examples would take with each prefix repeated.
        by_task: For each task, its examples and supervised tokens.
        shards: The files.
    """

    num_rows: int
    num_songs: int
    num_examples: int
    num_tokens: int
    num_supervised: int
    min_row_supervised: int
    max_row_supervised: int
    unshared_tokens: int
    by_task: dict[str, dict[str, int]]
    shards: tuple[ShardInfo, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a data set holds.

    Attributes:
        seq_len: Slots in a row.
        tasks: Names of the tasks, which segments point to by index.
        tokenizer_source: Where the tokenizer came from.
        tokenizer_sha256: Of the tokenizer.
        vocab_size: Ids lie below it.
        prompt_format: Name of the chat format.
        system: The system message.
        stop_token: What ends an answer.
        stop_token_id: Its id.
        splits: By name.
        extra: The build's configuration, counts, versions; `files`, the sha256 of each side file by name.
        prompt_sha256: Of the chat format, rendered: see `hash_prompt`.
        format_files: sha256 of the files by which `datasets` knows the splits, by name; `write_manifest` hashes them.
    """

    seq_len: int
    tasks: tuple[str, ...]
    tokenizer_source: str
    tokenizer_sha256: str
    vocab_size: int
    prompt_format: str
    system: str
    stop_token: str
    stop_token_id: int
    splits: dict[str, SplitInfo]
    extra: dict[str, Any]
    prompt_sha256: str = ""
    format_files: dict[str, str] = field(default_factory=dict, compare=False)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file of a data set."""
    write_text_durably(folder / "dataset_dict.json", json.dumps({"splits": list(manifest.splits)}))
    found = {name: sha256_of(folder / name) for name in _format_names(manifest) if (folder / name).is_file()}
    value = {"format_version": FORMAT_VERSION, **asdict(manifest), "format_files": found}
    write_text_durably(folder / "manifest.json", seal(value))


def seal(value: dict[str, Any]) -> str:
    """The text of a manifest, which begins with the sha256 of itself, with zeros in that place."""
    text = json.dumps({"sha256": _UNSEALED, **value}, indent=2, ensure_ascii=False) + "\n"
    return text.replace(_UNSEALED, hashlib.sha256(text.encode("utf-8")).hexdigest(), 1)


def _check_seal(text: str) -> None:
    """Refuse a manifest that is not, byte for byte, the one that was written.

    Raises:
        ValueError: It is not.
    """
    found = _SEAL.match(text)
    if found is None:
        raise ValueError("it does not begin with its own sha256")
    unsealed = text[: found.start(1)] + _UNSEALED + text[found.end(1) :]
    if hashlib.sha256(unsealed.encode("utf-8")).hexdigest() != found[1]:
        raise ValueError("its sha256 is not the one that it begins with")


def read_manifest(folder: Path) -> Manifest:
    """Read a data set's manifest.

    Raises:
        DataError: The folder is no finished data set, or of another format version.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        what = (
            "no such folder"
            if not folder.is_dir()
            else "it holds no manifest.json, so it is not a finished data set"
        )
        raise DataError(
            f"{folder}: {what}. Make one with: python -m preprocess build --input … --output {folder}"
        )
    try:
        text = path.read_bytes().decode("utf-8")
        value = parse_json(text)
        if value.pop("format_version") != FORMAT_VERSION:
            raise DataError(f"{path}: written by another version of the format; build the data set again")
        _check_seal(text)
        del value["sha256"]
        splits = {_bare(name): _split_from_json(split) for name, split in value.pop("splits").items()}
        return Manifest(**{**value, "tasks": tuple(value["tasks"]), "splits": splits})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); build the data set again") from error


def _split_from_json(value: dict[str, Any]) -> SplitInfo:
    shards = tuple(ShardInfo(**shard) for shard in value["shards"])
    for shard in shards:
        _bare(shard.file)
    return SplitInfo(**{**value, "shards": shards})


def _bare(name: str) -> str:
    """The name of a split or a shard, which lies in its folder and nowhere else.

    Raises:
        ValueError: It leads out of the folder.
    """
    if name in ("", ".", "..") or not is_bare(name):
        raise ValueError(f"{name!r} is no file name")
    return name


def is_bare(name: str) -> bool:
    """Whether a name leads to no other folder and can be a file's."""
    return isinstance(name, str) and not set(name) & set("/\\\0")


def list_side_files(manifest: Manifest) -> dict[str, str]:
    """The files beside the shards and the sha256 of each, as the manifest lists them.

    Raises:
        DataError: The list is none, or names something outside the folder.
    """
    files = manifest.extra.get("files", {})
    if not isinstance(files, dict) or not all(map(_is_inside, files)):
        raise DataError(
            f"manifest.json: its list of side files is no list of names and hashes, but {files!r}"
        )
    return {**files, **manifest.format_files}


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts != ()


def named_files(manifest: Manifest) -> set[str]:
    """Every file of a data set, as paths from its folder.

    Raises:
        DataError: The list of side files is damaged.
    """
    names = {"manifest.json", *_format_names(manifest), *list_side_files(manifest)}
    for split, info in manifest.splits.items():
        names |= {f"{split}/{shard.file}" for shard in info.shards}
    return names


def _format_names(manifest: Manifest) -> list[str]:
    """The files by which `datasets` knows the splits, as paths from the data set's folder."""
    own = [f"{split}/{file}" for split in manifest.splits for file in ("state.json", "dataset_info.json")]
    return ["dataset_dict.json", *own]


def check_hashes(folder: Path, manifest: Manifest, splits: Iterable[str] | None = None) -> None:
    """Hash every shard and compare.

    Raises:
        DataError: A shard is missing or its bytes are not the ones that were written.
    """
    for split in manifest.splits if splits is None else splits:
        for shard in manifest.splits[split].shards:
            path = folder / split / shard.file
            if not path.is_file():
                raise DataError(
                    f"{path}: missing; the manifest lists it. Build the data set again or copy it whole"
                )
            if path.stat().st_size != shard.num_bytes or sha256_of(path) != shard.sha256:
                raise DataError(
                    f"{path}: damaged: its {path.stat().st_size} bytes are not the {shard.num_bytes} that were "
                    f"written (sha256 differs). Copy it again or build the data set again"
                )
