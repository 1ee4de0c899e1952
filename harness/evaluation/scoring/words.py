"""The words of a free text as names are compared: folded, with their places, and what stands around them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0903\u093a-\u0963\u0966-\u0dff\u0e31-\u0e4e"
"""Combining marks that Python's \\w leaves out, as a class of a pattern: Latin, Hebrew, Arabic, Indic, Thai.

Without the danda, which ends an Indic sentence.
"""

_TOKEN = re.compile(rf"(?:[^\W_]|[{MARKS}])+|[&+]")
# Those that only show how a letter is said. Vowel signs of Indic scripts and Thai are letters of their own.
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")
_RUN = re.compile(r"\S+")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "\u0131": "i"})
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))

UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""A letter of a script that puts no spaces between words: Thai, Lao, Khmer, kana, ideographs."""

_QUOTED = re.compile(
    '"([^"\n]*)"|\u201c([^\u201d\n]*)\u201d|\u00ab([^\u00bb\n]*)\u00bb|\u300c([^\u300d\n]*)\u300d'
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a text.

    Attributes:
        text: Folded: no case, no accents; "&" and "+" are "and".
        start: Its place in the text.
        end: Where it ends.
    """

    text: str
    start: int
    end: int


def word_set(words: str) -> frozenset[str]:
    """The words of a list, parted by spaces."""
    return frozenset(words.split())


def normalise(text: str) -> str:
    """One form for every character (NFKC) and straight apostrophes; places in a text are those of this form."""
    return unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)


def fold(word: str) -> str:
    """A word without case and accents."""
    folded = word.casefold()
    if folded.isascii():
        return "and" if folded in ("&", "+") else folded
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", folded).translate(_LETTERS))
    return unicodedata.normalize("NFKC", bare)


def fine_tokens(text: str) -> list[Token]:
    """The words of a normalised text; punctuation parts them: "AC/DC" is two."""
    return [Token(fold(match[0]), match.start(), match.end()) for match in _TOKEN.finditer(text)]


def coarse_tokens(text: str) -> list[Token]:
    """What stands between spaces, its punctuation left out: "AC/DC" is "acdc", "R.E.M.," is "rem"."""
    tokens = []
    for run in _RUN.finditer(text):
        parts = [(match.start(), match.end(), fold(match[0])) for match in _TOKEN.finditer(run[0])]
        if parts:
            start, end = run.start() + parts[0][0], run.start() + parts[-1][1]
            tokens.append(Token("".join(part for _, _, part in parts), start, end))
    return tokens


@lru_cache(maxsize=16)
def find_quotes(text: str) -> tuple[tuple[int, int, str], ...]:
    """The quotations of a text: where each begins and ends, its marks included, and what it says."""
    return tuple(
        (match.start(), match.end(), next(part for part in match.groups() if part is not None))
        for match in _QUOTED.finditer(text)
    )
