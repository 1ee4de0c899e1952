"""What is sung in cleaned lyrics, split once for all that judge it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from preprocess.measure.structure import sung_lines

# ASCII signs that part words; apostrophes stay inside them.
_SIGNS = str.maketrans(dict.fromkeys('!"#$%&()*+,-./0123456789:;<=>?@[\\]^_`{|}~\n', " "))
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SIGN_BYTES = bytes(range(0x21, 0x30)) + bytes(range(0x3A, 0x41)) + b"[\\]^_`{|}~0123456789"
_SPACE_BYTES = b" \n"


@dataclass(frozen=True)
class SungText:
    """The lines of a song that are sung.

    Attributes:
        lines: Neither empty nor a heading, in order.
        num_stanzas: Blocks of lines between empty lines and headings.
    """

    lines: tuple[str, ...]
    num_stanzas: int

    @cached_property
    def text(self) -> str:
        """The lines, joined by newlines."""
        return "\n".join(self.lines)

    @cached_property
    def distinct_lines(self) -> tuple[str, ...]:
        """The different lines, in the order in which they come up first."""
        return tuple(dict.fromkeys(self.lines))

    @cached_property
    def words(self) -> frozenset[str]:
        """The different words, lower-cased, without the signs around them. Scripts without spaces give long ones."""
        text = self.text.lower()
        return frozenset(text.translate(_SIGNS).split() if text.isascii() else _WORD.findall(text))

    @cached_property
    def letter_share(self) -> float:
        """Bytes of letters (and of everything beyond ASCII) among the bytes that are no spaces, 0 to 1."""
        data = self.text.encode("utf-8", "surrogatepass").translate(None, _SPACE_BYTES)
        letters = len(data.translate(None, _SIGN_BYTES))
        return letters / len(data) if data else 0.0

    @cached_property
    def num_digits(self) -> int:
        """ASCII digits."""
        data = self.text.encode("utf-8", "surrogatepass")
        return len(data) - len(data.translate(None, b"0123456789"))


def split_sung(lyrics: str) -> SungText:
    """Split cleaned lyrics into their sung lines: those of `preprocess.measure.structure.sung_lines`."""
    lines: list[str] = []
    num_stanzas, inside = 0, False
    for line in lyrics.split("\n"):
        is_sung = bool(line) and (line[0] != "[" or not is_heading(line))
        if is_sung:
            lines.append(line)
            num_stanzas += not inside
        inside = is_sung
    return SungText(tuple(lines), num_stanzas)


def is_heading(line: str) -> bool:
    """Whether a cleaned line is a section heading."""
    return next(sung_lines(line), None) is None
