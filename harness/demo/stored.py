"""Answers that were generated once and are kept, so that there is something to show where no model is.

`harness demo --run RUN --store FILE` writes such a file; the shipped one is `stored.json`. It names the day and the
hashes of what answered.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.demo.items import Demo, DemoItem, parse_item, to_json
from harness.hashes import hash_data
from preprocess.durable import sha256_of, write_text_durably
from preprocess.errors import ConfigError, DataError
from preprocess.manifest import Manifest
from preprocess.outside_text import parse_json, read_limited
from preprocess.tokenizer import locate_source

STORED_FILE = "stored.json"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Source:
    """What answered.

    Attributes:
        date: Day, as in 2026-11-28.
        model: The base model, as it was named.
        model_sha256: Of its weights; of several files, of their sums in the order of their names. None where they do
            not lie in a folder here.
        adapter_sha256: Of the adapter's weights; None without one.
        data_sha256: Of the data set that the adapter was trained on; see `harness.hashes.hash_data`.
    """

    date: str
    model: str
    model_sha256: str | None
    adapter_sha256: str | None
    data_sha256: str

    @property
    def hashes(self) -> list[tuple[str, str]]:
        """The known hashes with what they are of."""
        named = (("model", self.model_sha256), ("adapter", self.adapter_sha256), ("data", self.data_sha256))
        return [(name, sha256) for name, sha256 in named if sha256]


@dataclass(frozen=True, slots=True)
class Stored:
    """Kept answers, and what gave them."""

    source: Source
    items: tuple[DemoItem, ...]

    def by_question(self) -> dict[tuple[str | None, str | None], DemoItem]:
        """The items by song and task."""
        return {(item.song_id, item.task): item for item in self.items}


def describe_source(model: str, adapter: Path | None, manifest: Manifest, date: str) -> Source:
    """What is about to answer, with its hashes.

    Raises:
        OSError: A file of the weights cannot be read.
    """
    weights = None if adapter is None else adapter / ADAPTER_WEIGHTS
    return Source(
        date=date,
        model=model,
        model_sha256=hash_weights(model),
        adapter_sha256=None if weights is None else sha256_of(weights),
        data_sha256=hash_data(manifest),
    )


def hash_weights(model: str) -> str | None:
    """The SHA-256 sum, in hex, of a model's weight files; None where they are not in a local folder."""
    try:
        local = Path(locate_source(model))
    except ConfigError:
        return None
    if local.is_file():
        return sha256_of(local)
    found = sorted([*local.glob("*.safetensors"), *local.glob("*.gguf")]) if local.is_dir() else []
    sums = [sha256_of(path) for path in found]
    if len(sums) > 1:
        return hashlib.sha256("".join(sums).encode()).hexdigest()
    return sums[0] if sums else None


def write_stored(path: Path, demo: Demo, source: Source) -> None:
    """Keep answers in a file.

    Raises:
        ConfigError: There is nothing to keep, or generating failed.
        DataError: The file cannot be written.
        NoSpaceError: The disk is full.
    """
    if demo.failure or not demo.items or any(item.is_stored for item in demo.items):
        raise ConfigError(
            f"{path}: not written, for not every answer was generated; only live ones are stored"
        )
    value = {
        "format_version": FORMAT_VERSION,
        **asdict(source),
        "items": [to_json(replace(item, is_stored=True, date=source.date)) for item in demo.items],
    }
    write_text_durably(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_stored(path: Path | None = None) -> Stored:
    """Read kept answers.

    Args:
        path: A file of `write_stored`; None for the shipped one.

    Raises:
        DataError: There is no such file, or it is damaged.
    """
    name = STORED_FILE if path is None else str(path)
    try:
        if path is None:
            text: str | bytes = files("harness.demo").joinpath(STORED_FILE).read_text(encoding="utf-8")
        else:
            text = read_limited(path, MAX_BYTES)
        return _parse(parse_json(text))
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file; `harness demo --run RUN --store FILE` writes one") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{name}: no file of stored answers ({type(error).__name__}: {error}); write it again with "
            "`harness demo --run RUN --store FILE`"
        ) from error


def _parse(value: dict[str, Any]) -> Stored:
    if value["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format version {value['format_version']!r}, expected {FORMAT_VERSION}")
    source = Source(**{name: value[name] for name in Source.__dataclass_fields__})
    told = (source.date, source.model, source.data_sha256, *dict(source.hashes).values())
    if not all(isinstance(text, str) for text in told):
        raise ValueError("a hash, the date or the model is no text")
    items = tuple(replace(parse_item(item), is_stored=True, date=source.date) for item in value["items"])
    return Stored(source, items)
