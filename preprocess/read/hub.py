"""Data sets of the Hugging Face hub, streamed: hub:owner/name, with @revision and #config where they are wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from preprocess.errors import DataError
from preprocess.read.arrow_rows import chunk_batches
from preprocess.read.chunks import ArrowBytes

SPLIT = "train"

_HUB_NAME = re.compile(r"(?:hub:)?([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?(?:#([\w.-]+))?")
_BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class HubName:
    """A data set of the hub.

    Attributes:
        name: As in "owner/name".
        revision: Branch, tag or commit, or None for the newest.
        config: Name of the configuration, or None for the only one.
    """

    name: str
    revision: str | None = None
    config: str | None = None


def parse_hub_name(text: str) -> HubName:
    """Read hub:owner/name@revision#config.

    Raises:
        DataError: Another form.
    """
    match = _HUB_NAME.fullmatch(text)
    if match is None:
        raise DataError(f"{text}: expected hub:owner/name, with @revision and #config where they are wanted.")
    return HubName(match[1], match[2], match[3])


@dataclass(frozen=True, slots=True)
class HubSet:
    """A data set of the hub, found and open.

    Attributes:
        columns: Its columns.
        fingerprint: Changes when its content does: the commit, the configuration, the files.
    """

    columns: list[str]
    fingerprint: str
    _stream: Any

    def read(self, columns: list[str], rows_per_chunk: int) -> Iterator[tuple[int, int, ArrowBytes]]:
        """Read the named columns in chunks; see `preprocess.read.arrow_rows.chunk_batches`."""
        stream = self._stream.select_columns(columns).with_format("arrow")
        tables: Iterator[pa.Table] = stream.iter(batch_size=min(_BATCH_ROWS, rows_per_chunk))
        batches = (batch for table in tables for batch in table.select(columns).to_batches())
        yield from chunk_batches(batches, rows_per_chunk)


def open_hub(text: str) -> HubSet:
    """Find a data set's train split; nothing but its description is fetched.

    Raises:
        DataError: The hub cannot be reached, or has no such data set.
    """
    import datasets  # half a second that only this needs

    hub = parse_hub_name(text)
    try:
        builder = datasets.load_dataset_builder(hub.name, hub.config, revision=hub.revision)
        stream = builder.as_streaming_dataset(split=SPLIT)
        columns = list(stream.column_names or stream._resolve_features().column_names or ())
    except Exception as error:  # `datasets` raises its own, the hub's, the network's and fsspec's errors
        raise _explain(text, error) from error
    return HubSet(columns, _fingerprint(hub, builder), stream)


def explain_failure(text: str, error: Exception) -> DataError:
    """An error on the way to the hub, with what to do about it."""
    return _explain(text, error)


def _explain(text: str, error: Exception) -> DataError:
    told = " ".join(str(error).split())[:500] or type(error).__name__
    return DataError(
        f"{text}: no such path here, and the data set cannot be read from the Hugging Face hub: {told}. Check the "
        "name, the network, and HF_TOKEN for a gated data set; or fetch it where there is a network (`hf download "
        f"--repo-type dataset {text.removeprefix('hub:').split('@')[0].split('#')[0]}`) and give the folder."
    )


def _fingerprint(hub: HubName, builder: Any) -> str:  # noqa: ANN401 - an untyped library's object
    files = getattr(builder.config, "data_files", None) or {}
    content = {
        "name": hub.name,
        "config": builder.config.name,
        "hash": str(builder.hash),
        "base_path": str(builder.base_path),
        "files": {str(split): [str(file) for file in names] for split, names in sorted(files.items())},
    }
    return json.dumps(content, sort_keys=True)
