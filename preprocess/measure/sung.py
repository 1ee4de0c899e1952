"""A song split once for everything that is measured in it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from preprocess.measure.form import Stanza
from preprocess.measure.sections import split_sections
from preprocess.measure.words import find_words, is_english

_ASIDE = re.compile(r"\([^()]*\)")


@dataclass(frozen=True, slots=True)
class SungSong:
    """The lines and words of a song, headings left out.

    Attributes:
        stanzas: Its sections in order, those without lines included.
        lines: The sung lines in order.
        words_by_line: The words of each line.
        words: All words, counted, in order of coming up.
        is_english: Whether they are to be read as English.
    """

    stanzas: tuple[Stanza, ...]
    lines: tuple[str, ...]
    words_by_line: tuple[list[str], ...]
    words: Counter[str]
    is_english: bool


def split_song(lyrics: str, language: str | None = None) -> SungSong:
    """Split lyrics into stanzas, lines and words.

    Args:
        lyrics: Cleaned lyrics.
        language: ISO 639 code. "en" is still checked against the words; None and "und" leave it to them.
    """
    lines: list[str] = []
    words_by_line: list[list[str]] = []
    stanzas: list[Stanza] = []
    for section in split_sections(lyrics):
        words = [find_words(line) for line in section.lines]
        keys = tuple(map(_key, section.lines, words))
        stanzas.append(Stanza(section.kind, section.lines, keys))
        lines += section.lines
        words_by_line += words
    counts = Counter([word for line_words in words_by_line for word in line_words])
    may_be_english = language in (None, "en", "und")
    return SungSong(
        tuple(stanzas), tuple(lines), tuple(words_by_line), counts, may_be_english and is_english(counts)
    )


def _key(line: str, words: list[str]) -> str:
    """The words of a line, without what it has in parentheses unless that is all."""
    if "(" in line:
        return " ".join(find_words(_ASIDE.sub(" ", line)) or words)
    return " ".join(words)
