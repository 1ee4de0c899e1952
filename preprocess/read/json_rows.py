"""Rows of JSON: lines of objects, or one array of objects, streamed.

Lines go to the workers unparsed. An array is cut into its objects by Python's own decoder over a moving window, so
that its objects mean what the same objects mean as lines (lone surrogates, NaN and large integers included) and a
file of any size passes through a few megabytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from preprocess.errors import DataError
from preprocess.read.chunks import MAX_CHUNK_CHARS, MAX_SHOWN_CHARS, BadLine, JsonObjects, JsonText
from preprocess.read.columns import Row
from preprocess.read.text_files import MAX_LINE_CHARS, is_too_long, open_text, read_lines

_BLOCK_CHARS = 1 << 20
_SPACE = re.compile(r"[\s\ufeff]*")
_DECODER = json.JSONDecoder()


def read_json_lines(file: TextIO, rows_per_chunk: int) -> Iterator[tuple[int, int, JsonText]]:
    """Read lines in chunks, unparsed.

    Yields:
        The number of the first line, the number of lines, the lines.
    """
    first, num_chars = 1, 0
    lines: list[str] = []
    too_long: list[int] = []
    for line in read_lines(file):
        if is_too_long(line):
            too_long.append(first + len(lines))
            line = line[:MAX_SHOWN_CHARS] + "\n"
        lines.append(line)
        num_chars += len(line)
        if len(lines) == rows_per_chunk or num_chars > MAX_CHUNK_CHARS:
            yield first, len(lines), JsonText(first, "".join(lines), tuple(too_long))
            first, num_chars, lines, too_long = first + len(lines), 0, [], []
    if lines:
        yield first, len(lines), JsonText(first, "".join(lines), tuple(too_long))


def read_json_array(path: Path, file: TextIO, rows_per_chunk: int) -> Iterator[tuple[int, int, JsonObjects]]:
    """Read the objects of a JSON document in chunks.

    Args:
        path: The file's name, for messages.
        file: A document that is an array of objects, or an object in which one value is such an array.
        rows_per_chunk: Objects in a chunk.

    Yields:
        The number of the first object, the number of objects, the objects.

    Raises:
        DataError: The document is broken, or of another form.
    """
    first, objects = 1, list[Row | BadLine]()
    for item in _Window(path, file).items():
        objects.append(item if isinstance(item, dict) else _refuse(item))
        if len(objects) == rows_per_chunk:
            yield first, len(objects), JsonObjects(first, tuple(objects))
            first, objects = first + len(objects), []
    if objects:
        yield first, len(objects), JsonObjects(first, tuple(objects))


def _refuse(item: object) -> BadLine:
    return BadLine("not a JSON object", json.dumps(item)[:MAX_SHOWN_CHARS])


def holds_lines(path: Path) -> bool:
    """Whether a .json file in truth has an object a line, as many do."""
    with open_text(path) as file:
        text = file.read(_BLOCK_CHARS)
    start = _skip_space(text, 0)
    if not text.startswith("{", start):
        return False
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return False
    return text.startswith("{", _skip_space(text, end)) or not any(map(_is_table, value.values()))


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    assert match is not None
    return match.end()


class _Window:
    """A moving part of a JSON document."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._text = ""
        self._start = 0
        self._at_end = False
        self._num_items = 0

    def items(self) -> Iterator[object]:
        """The items of the document's array of objects."""
        opening = self._peek()
        if opening == "[":
            yield from self._array()
        elif opening == "{":
            yield from self._array_inside()
        elif opening:
            raise self._error("it begins with neither [ nor {")
        if self._peek():
            raise self._error("something follows its end")

    def _array_inside(self) -> Iterator[object]:
        """Go through the members of an object, and yield the items of the one that is an array of objects."""
        found = None
        skipped: list[str] = []
        self._take("{")
        while self._peek() != "}":
            key = str(self._value())
            self._take(":")
            if self._peek() == "[" and self._peek_inside() == "{":
                if found is not None:
                    raise self._error(f"both {found!r} and {key!r} are arrays of objects; keep one")
                found = key
                yield from self._array()
            else:
                self._value()
                skipped.append(key)
            if self._peek() != "}":
                self._take(",")
        self._take("}")
        if found is None:
            names = ", ".join(skipped[:20]) or "none"
            raise self._error(f"no member is an array of objects (members: {names}); expected [{{…}}, …]")

    def _array(self) -> Iterator[object]:
        self._take("[")
        while self._peek() != "]":
            yield self._value()
            self._num_items += 1
            if self._peek() != "]":
                self._take(",")
        self._take("]")

    def _peek(self) -> str:
        """The next character that is no space, not yet taken; empty at the end."""
        while True:
            self._start = _skip_space(self._text, self._start)
            if self._start < len(self._text) or not self._read_on():
                return self._text[self._start : self._start + 1]

    def _peek_inside(self) -> str:
        """The first character inside the array that begins here."""
        while True:
            inside = _skip_space(self._text, self._start + 1)
            if inside < len(self._text) or not self._read_on():
                return self._text[inside : inside + 1]

    def _take(self, character: str) -> None:
        got = self._peek()
        if got != character:
            raise self._error(f"expected {character}, got {got or 'the end of the file'}")
        self._start += 1

    def _value(self) -> object:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._start)
            except RecursionError:
                raise self._error("it is nested too deeply") from None
            except ValueError as error:
                # It may be whole once more has been read.
                if len(self._text) - self._start > MAX_LINE_CHARS or not self._read_on():
                    raise self._error(str(error)) from None
                continue
            if end < len(self._text) or not self._read_on():  # a number may go on
                self._start = end
                return value

    def _read_on(self) -> bool:
        if self._at_end:
            return False
        # The window doubles, so that a long value is not decoded again and again.
        kept = self._text[self._start :]
        block = self._file.read(max(_BLOCK_CHARS, len(kept)))
        self._at_end = not block
        self._text, self._start = kept + block, 0
        return not self._at_end

    def _error(self, told: str) -> DataError:
        return DataError(
            f"{self._path} cannot be read: after {self._num_items:,} objects: {told}. The file is damaged or "
            "incomplete; fetch it again, or give the songs as lines of JSON (.jsonl), where a bad one harms no other."
        )
