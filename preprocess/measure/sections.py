"""The parts of a song: its sections, what their headings call them, the lines that are sung."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from preprocess.clean.section_words import TAGS, squeeze_word

CHORUS_KINDS = ("chorus", "refrain", "hook")
"""Kinds of section that may be a song's chorus. Of those that a song has, the first is its chorus."""

_HEADING = re.compile(r"\[([^\[\]\n]{1,60})\]")
_NUMBER = re.compile(r"[\s\d]+$")


@lru_cache(maxsize=4096)
def name_kind(heading: str) -> str:
    """What a heading calls its section, in English and lower case, without its number.

    "Verse 1", "VERSE" and "Куплет 2" are a "verse"; a heading that is no known section word keeps its own words.
    """
    words = _NUMBER.sub("", heading)
    return TAGS.get(squeeze_word(words), words).lower()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a song.

    Attributes:
        heading: The text inside the brackets, as in "Verse 1", or None.
        lines: Its lines, without empty ones.
    """

    heading: str | None
    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What its heading calls it (`name_kind`): "verse", "pre-chorus", …; "" without a heading."""
        return "" if self.heading is None else name_kind(self.heading)


def find_heading(line: str) -> str | None:
    """The text inside the brackets of a stripped line that is a heading, else None."""
    if line[:1] != "[":
        return None
    match = _HEADING.fullmatch(line)
    return match[1] if match else None


def split_sections(lyrics: str) -> list[Section]:
    """Split lyrics at their headings; at their empty lines, too, where there are fewer than two headings."""
    lines = [line.strip() for line in lyrics.split("\n")]
    headings = [find_heading(line) for line in lines]
    splits_at_gaps = len(lines) - headings.count(None) < 2
    sections: list[Section] = []
    heading: str | None = None
    body: list[str] = []
    for line, found in zip(lines, headings, strict=True):
        if found is not None or (not line and splits_at_gaps and body):
            _close(sections, heading, body)
            heading, body = found, []
        elif line:
            body.append(line)
    _close(sections, heading, body)
    return sections


def _close(sections: list[Section], heading: str | None, body: list[str]) -> None:
    if heading is not None or body:
        sections.append(Section(heading, tuple(body)))


def sung_lines(lyrics: str) -> Iterator[str]:
    """The lines that are sung: neither empty nor a heading."""
    for line in lyrics.split("\n"):
        stripped = line.strip()
        if stripped and find_heading(stripped) is None:
            yield stripped
