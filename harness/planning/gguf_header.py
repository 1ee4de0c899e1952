"""The head of a GGUF file: its metadata and the names of its tensors, without the weights and the vocabulary.

The gguf package's own reader makes an array of every token, which takes seconds; sizes are a few numbers.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.shapes import ModelShape, check_kind
from preprocess.errors import ConfigError

Scalar = int | float | bool | str

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value to its code in `struct`."""

STRING, ARRAY = 8, 9
LONGEST_ARRAY = 100_000_000


def read_gguf_shape(path: Path) -> ModelShape:
    """The shape that a file's metadata tells.

    Raises:
        ConfigError: It is no GGUF file, is cut, or lacks a size.
    """
    try:
        with path.open("rb") as file:
            metadata, tensors = _read_header(file)
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no whole GGUF file ({error or 'cut'}); copy it again") from error
    kind = metadata.get("general.architecture")
    try:
        check_kind({"model_type": kind})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error

    def read(key: str, default: int | None = None) -> int:
        value = metadata.get(f"{kind}.{key}", default)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{path}: {kind}.{key} is {value!r}; expected a whole number above 0")
        return value

    heads, hidden = read("attention.head_count"), read("embedding_length")
    tokens = metadata.get("tokenizer.ggml.tokens")
    return ModelShape(
        hidden_size=hidden,
        num_layers=read("block_count"),
        num_heads=heads,
        num_kv_heads=read("attention.head_count_kv", heads),
        head_dim=read("attention.key_length", hidden // heads),
        ffn_size=read("feed_forward_length"),
        vocab_size=read("vocab_size", tokens if isinstance(tokens, int) else None),
        tied="output.weight" not in tensors,
    )


def _read_header(file: BinaryIO) -> tuple[dict[str, Scalar], set[str]]:
    """Metadata (of an array its length) and names of tensors."""
    if file.read(4) != b"GGUF":
        raise ValueError("its first bytes are not GGUF")
    version, num_tensors, num_values = _unpack(file, "IQQ")
    if version not in (2, 3):
        raise ValueError(f"version {version}; 2 and 3 are known")
    metadata = {_read_string(file): _read_value(file, _unpack(file, "I")[0]) for _ in range(num_values)}
    return metadata, set(_read_names(file, num_tensors))


def _read_names(file: BinaryIO, num_tensors: int) -> Iterator[str]:
    for _ in range(num_tensors):
        yield _read_string(file)
        (dimensions,) = _unpack(file, "I")
        _unpack(file, f"{dimensions}QIQ")


def _read_value(file: BinaryIO, kind: int) -> Scalar:
    if kind == STRING:
        return _read_string(file)
    if kind != ARRAY:
        value: Scalar = _unpack(file, SCALARS[kind])[0]
        return value
    item, length = _unpack(file, "IQ")
    if length > LONGEST_ARRAY:
        raise ValueError(f"an array of {length:,} values")
    if item in SCALARS:
        file.seek(length * struct.calcsize(f"<{SCALARS[item]}"), 1)
    else:
        for _ in range(length):
            _read_value(file, item)
    return int(length)


def _read_string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > LONGEST_ARRAY:
        raise ValueError(f"a text of {length:,} bytes")
    return file.read(length).decode("utf-8")


def _unpack(file: BinaryIO, code: str) -> tuple[int, ...]:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))
