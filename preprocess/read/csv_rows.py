"""Rows of CSV and TSV files, strictly read, with a way back after a row that is broken.

A quote that is never closed, or one inside a cell that is not doubled, makes the following lines part of its row. Such
a row gives itself away: text follows a closing quote, the file ends inside quotes, the row has several lines and the
wrong number of cells, or it grows beyond `MAX_ROW_CHARS`. It is rejected with the line where it began, and the
reading goes on at the first line after that one from which a whole row with the right number of cells can be read. The
lines between are part of the rejected row. In a table of one or two columns a line of lyrics may look like a row, so
where all rows so far began alike (with a quote, or with the same words), a row must do so too within the next
`_MAX_LOST_LINES` lines. What is read wrongly all the same is dropped by the later stages for its length.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import TextIO

from preprocess.read.chunks import MAX_CHUNK_CHARS, MAX_SHOWN_CHARS, BadLine, Cells
from preprocess.read.text_files import read_lines
from preprocess.read.values import BadRow

MAX_ROW_CHARS = 1_000_000
"""A row longer than this is a quote that was never closed."""

_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "field larger": "row too long, or a quote that is never closed",
        "expected after": "a quote that is never closed, or one inside a cell that is not doubled",
        "new-line character": "a carriage return in a cell without quotes",
    }
)
"""What the csv module says, and what it means."""

_MAX_LOST_LINES = 1000
_MIN_ALIKE_ROWS = 20
_MIN_ALIKE_CHARS = 16

_BLOCK_LINES = 4096
_BLOCK_CHARS = 4_000_000


def read_header(file: TextIO, delimiter: str) -> list[str]:
    """The cells of the first row, empty when there is none.

    Raises:
        BadRow: It is broken.
    """
    _, cells = next(_Records(file, delimiter).read(), (0, list[str]()))
    if isinstance(cells, BadLine):
        raise BadRow(f"the first row, which names the columns, is broken: {cells.reason}")
    return cells


def read_cells(file: TextIO, delimiter: str, rows_per_chunk: int) -> Iterator[tuple[int, int, Cells]]:
    """Read a file in chunks.

    Yields:
        The line of the first row, the number of rows, the rows.
    """
    records = _Records(file, delimiter).read()
    header = next(records, None)
    if header is None or isinstance(header[1], BadLine):
        return
    columns = tuple(header[1])
    rows: list[tuple[int, list[str] | BadLine]] = []
    num_chars = 0
    for line, cells in records:
        rows.append((line, cells))
        num_chars += len(cells.raw) if isinstance(cells, BadLine) else sum(map(len, cells))
        if len(rows) == rows_per_chunk or num_chars > MAX_CHUNK_CHARS:
            yield rows[0][0], len(rows), Cells(columns, tuple(rows))
            rows, num_chars = [], 0
    if rows:
        yield rows[0][0], len(rows), Cells(columns, tuple(rows))


def _read_block(lines: Iterator[str]) -> list[str]:
    block, num_chars = [], 0
    for line in islice(lines, _BLOCK_LINES):
        block.append(line)
        num_chars += len(line)
        if num_chars > _BLOCK_CHARS:
            break
    return block


class _Habit:
    """How the rows of a file begin."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._is_quoted = True
        self._words = ""

    def learn(self, line: str) -> None:
        """Take note of a whole row's first line."""
        self._num_rows += 1
        self._is_quoted &= line.startswith('"')
        words = line.lstrip('"')
        if self._num_rows == 1:
            self._words = words
        elif self._words and not words.startswith(self._words):
            self._words = os.path.commonprefix([self._words, words])  # noqa: RUF071 - letters are meant

    def fits(self, line: str) -> bool:
        """Whether a line begins like all rows before; few rows, and a few letters in common, say nothing."""
        if self._num_rows < _MIN_ALIKE_ROWS:
            return True
        if self._is_quoted and not line.startswith('"'):
            return False
        return len(self._words) < _MIN_ALIKE_CHARS or line.lstrip('"').startswith(self._words)


class _Records:
    """The rows of a file: cells, or what is wrong with them.

    Some lines are held; the csv module reads a row from them, and where one is broken the reading starts anew a line
    further on.
    """

    def __init__(self, file: TextIO, delimiter: str) -> None:
        self._source = read_lines(file)
        self._delimiter = delimiter
        self._lines: list[str] = []
        self._first = 1  # line number of self._lines[0]
        self._next = 0  # index of the line where the next row begins
        self._at_end = False
        self._width: int | None = None
        self._num_lost = 0  # lines since a broken row, until the next whole one
        self._habit = _Habit()

    def read(self) -> Iterator[tuple[int, list[str] | BadLine]]:
        """Line where a row begins, and the row."""
        csv.field_size_limit(MAX_ROW_CHARS)
        self._read_on()
        while self._next < len(self._lines):
            yield from self._read_held()

    def _read_held(self) -> Iterator[tuple[int, list[str] | BadLine]]:
        """Read rows from the held lines until they end or a row is broken."""
        offset = self._next
        lines = map(self._lines.__getitem__, range(offset, len(self._lines)))
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            begin = self._next
            try:
                cells = next(reader)
            except StopIteration:
                return self._read_on()
            except csv.Error as error:
                broken = self._judge_error(str(error), offset + reader.line_num)
                if broken is not None:
                    yield from self._get_lost(begin, broken)
                return None
            self._next = offset + reader.line_num
            num_lines = self._next - begin
            if len(cells) == self._width and self._begins_row(begin):
                self._num_lost = 0
                yield self._first + begin, cells
            elif not cells:
                continue
            elif self._width is None:
                self._width = len(cells)
                yield self._first + begin, cells
            elif num_lines > 1 or self._num_lost:
                yield from self._get_lost(begin, self._tell_width(cells))
                return None
            else:
                yield self._first + begin, self._bad(begin, self._tell_width(cells))

    def _begins_row(self, begin: int) -> bool:
        line = self._lines[begin]
        if self._num_lost:
            return self._num_lost > _MAX_LOST_LINES or self._habit.fits(line)
        self._habit.learn(line)
        return True

    def _judge_error(self, error: str, end: int) -> str | None:
        """Why the row is broken, or None when only more lines can tell."""
        if "unexpected end" not in error:
            return next(
                (reason for told, reason in _REASONS.items() if told in error), f"broken CSV: {error}"
            )
        num_chars = sum(map(len, islice(self._lines, self._next, end)))
        if self._at_end or num_chars > MAX_ROW_CHARS:
            return "a quote that is never closed"
        self._read_on()
        return None

    def _get_lost(self, begin: int, reason: str) -> Iterator[tuple[int, BadLine]]:
        if not self._num_lost:
            yield self._first + begin, self._bad(begin, reason)
        self._num_lost += 1
        self._next = begin + 1
        if self._next == len(self._lines):
            self._read_on()

    def _read_on(self) -> None:
        """Let go of the lines that are done, and hold some more."""
        block = _read_block(self._source)
        self._at_end = not block
        self._first += self._next
        self._lines = self._lines[self._next :] + block
        self._next = 0

    def _tell_width(self, cells: list[str]) -> str:
        return f"{len(cells)} fields instead of {self._width}"

    def _bad(self, begin: int, reason: str) -> BadLine:
        return BadLine(reason, self._lines[begin][:MAX_SHOWN_CHARS].rstrip("\r\n"))
