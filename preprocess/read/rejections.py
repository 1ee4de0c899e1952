"""A row that is no song, in a form that can be kept and looked at."""

from __future__ import annotations

import json
from dataclasses import dataclass

from preprocess.read.chunks import MAX_SHOWN_CHARS, BadLine
from preprocess.read.columns import Row


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is no song.

    Attributes:
        source: Name of the file or data set.
        line: Line (text files) or row number, from 1.
        reason: Why it is no song.
        row: The row, shortened, as JSON: an object, or a string where it could not be read as one.
    """

    source: str
    line: int
    reason: str
    row: str

    def to_json(self) -> str:
        """One line of JSON, without its end, that can be written as UTF-8."""
        head = _dump({"source": self.source, "line": self.line, "reason": self.reason})
        return f'{head[:-1]}, "row": {self.row}}}'


def reject(source: str, line: int, reason: str, row: Row | BadLine) -> Rejection:
    """Keep a row with the reason why it is no song, shortened to about `MAX_SHOWN_CHARS` characters."""
    shown = row.raw if isinstance(row, BadLine) else row
    return Rejection(source, line, reason, _dump(_shorten(shown, MAX_SHOWN_CHARS)))


def _dump(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    # Bytes that were no UTF-8 are lone surrogates here: written as JSON's own escapes.
    return text.encode("utf-8", "backslashreplace").decode()


def _shorten(value: object, budget: int) -> object:
    """A value of a row with at most so many characters, its beginning."""
    if isinstance(value, str):
        return value if len(value) <= budget else f"{value[: max(0, budget - 1)]}…"
    if isinstance(value, dict):
        shares = _share(list(value.values()), budget - sum(len(str(key)) + 6 for key in value))
        pairs = zip(value.items(), shares, strict=True)
        return {str(key)[:100]: _shorten(item, share) for (key, item), share in pairs if share > 0}
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10**18):
        return value
    if isinstance(value, int):
        return "(a very large number)"
    return _shorten(repr(value), budget)


def _share(values: list[object], budget: int) -> list[int]:
    """Characters for each value: short ones get what they need, long ones share what is left."""
    needs = [len(value) if isinstance(value, str) else 100 for value in values]
    shares = [0] * len(values)
    for done, index in enumerate(sorted(range(len(values)), key=needs.__getitem__)):
        shares[index] = max(0, min(needs[index], budget // (len(values) - done)))
        budget -= shares[index]
    return shares
