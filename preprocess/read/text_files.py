"""Text files as decoded lines, whatever their compression, encoding and line ends, and however long a line is."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

import pyarrow as pa

from preprocess.errors import DataError

MAX_LINE_CHARS = 16_000_000
"""Characters of a line that are kept; what is longer is no song."""

_BUFFER_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file, plain or compressed (.gz, .zst): UTF-8, or UTF-16 and UTF-32 with their byte order mark.

    Lines end with a line feed, which may follow a carriage return; where a file has no line feed, with a carriage
    return. Bytes that are no UTF-8 come through as lone surrogates, so that they condemn their own row alone.

    Raises:
        DataError: The text is UTF-16 without a byte order mark.
    """
    with _open_bytes(path) as file:
        head = file.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        encoding = next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
        if encoding == "utf-8" and b"\0" in head[:2]:
            raise DataError(
                f"{path}: the text looks like UTF-16 without a byte order mark. Convert the file to UTF-8."
            )
        errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
        newline = None if b"\r" in head and b"\n" not in head else "\n"
        with io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline) as text:
            yield text


def _open_bytes(path: Path) -> io.BufferedReader:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(cast(io.RawIOBase, gzip.open(path, "rb")), _BUFFER_BYTES)
    if suffix == ".zst":
        stream = pa.input_stream(str(path), compression="zstd", buffer_size=_BUFFER_BYTES)
        return io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER_BYTES)
    return io.BufferedReader(path.open("rb", buffering=0), _BUFFER_BYTES)


def read_lines(file: TextIO) -> Iterator[str]:
    """The lines with their ends, without byte order marks; a line that is too long is cut and has no end."""
    line = file.readline(MAX_LINE_CHARS).lstrip("\ufeff")
    while line:
        yield line
        if len(line) >= MAX_LINE_CHARS and not line.endswith("\n"):
            _skip_line(file)
        line = file.readline(MAX_LINE_CHARS)


def is_too_long(line: str) -> bool:
    """Whether `read_lines` cut the line."""
    return len(line) >= MAX_LINE_CHARS and not line.endswith("\n")


def _skip_line(file: TextIO) -> None:
    while (rest := file.readline(MAX_LINE_CHARS)) and not rest.endswith("\n"):
        pass
