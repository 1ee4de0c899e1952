"""A part of the state as a safetensors file: float32 runs of parameters, by name.

The file is laid out here and not by the safetensors package, so that it is hashed while it is written. A tensor is
called `KIND:PARAMETER`; which run of the parameter it is stands in the metadata, as JSON under "pieces".
Source of the layout: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.checkpoints.places import KINDS
from harness.checkpoints.snapshot import Piece, Snapshot
from preprocess.durable import HashedFile
from preprocess.errors import CheckpointError

FORMAT = "lyrics-harness state 1"
VALUE_BYTES = 4
CHUNK_BYTES = 16 * 2**20


def write_part(file: HashedFile, snapshot: Snapshot) -> None:
    """Write a snapshot's pieces; nothing is copied."""
    header = json.dumps(_describe(snapshot.pieces), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    file.write(struct.pack("<Q", len(header)))
    file.write(header)
    data = snapshot.values.numpy().data.cast("B") if snapshot.values.numel() else memoryview(b"")
    for start in range(0, len(data), CHUNK_BYTES):
        file.write(data[start : start + CHUNK_BYTES])


def _describe(pieces: tuple[Piece, ...]) -> dict[str, Any]:
    metadata = {"format": FORMAT, "pieces": json.dumps([asdict(piece) for piece in pieces])}
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for piece in pieces:
        for kind in KINDS:
            end = at + VALUE_BYTES * piece.count
            header[f"{kind}:{piece.name}"] = {
                "dtype": "F32",
                "shape": [piece.count],
                "data_offsets": [at, end],
            }
            at = end
    return header


@dataclass(frozen=True, slots=True)
class Part:
    """A part file in memory, whose bytes are those that were written.

    Attributes:
        pieces: What it holds.
    """

    pieces: tuple[Piece, ...]
    _values: npt.NDArray[np.float32]
    _starts: dict[str, int]

    def values(self, piece: Piece, kind: str) -> npt.NDArray[np.float32]:
        """float32[count]: a piece's values."""
        start = self._starts[f"{kind}:{piece.name}"]
        return self._values[start : start + piece.count]


def open_part(path: Path, entry: dict[str, Any]) -> Part:
    """Map a part file, hash it, and only then read what it says.

    Args:
        path: The file.
        entry: Its size and sha256 in the checkpoint's manifest.

    Raises:
        CheckpointError: Its bytes are not those that were written.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(
            file.fileno(), 0, access=mmap.ACCESS_READ
        )  # ends with the last array that reads it
    if len(mapped) != entry["bytes"] or hashlib.sha256(mapped).hexdigest() != entry["sha256"]:
        raise CheckpointError(f"{path}: damaged (its sha256 is not the one that was written)")
    return _parse(path, mapped)


def _parse(path: Path, mapped: mmap.mmap) -> Part:
    (size,) = struct.unpack_from("<Q", mapped)
    start = 8 + size
    header = json.loads(mapped[8:start])
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise CheckpointError(f"{path}: its format is {metadata['format']!r}, expected {FORMAT!r}")
    pieces = tuple(
        Piece(**{**value, "shape": tuple(value["shape"])}) for value in json.loads(metadata["pieces"])
    )
    starts = {name: tensor["data_offsets"][0] // VALUE_BYTES for name, tensor in header.items()}
    count = (len(mapped) - start) // VALUE_BYTES
    return Part(pieces, np.ndarray((count,), dtype="<f4", buffer=mapped, offset=start), starts)
