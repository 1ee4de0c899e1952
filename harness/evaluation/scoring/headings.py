"""Whether an analysis has all of its headings, each with something under it."""

from __future__ import annotations

import re

HEADINGS = ("Artist Style", "Genre Elements", "Lyrical Themes", "Cultural Context", "Similar Works")

_HEADING = re.compile(
    rf"^[^\w\n]*(?:\d+[.)]\s*)?[*_#\s]*(?P<name>{'|'.join(HEADINGS)})[*_]*\s*[:\u2013\u2014-]?[*_]*(?P<rest>[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)


def find_headings(text: str) -> tuple[str, ...]:
    """The headings that begin a line of a text and have a word behind or below them, in their order."""
    matches = list(_HEADING.finditer(text))
    ends = [match.start() for match in matches[1:]] + [len(text)] * bool(matches)
    found = [
        match["name"].title()
        for match, end in zip(matches, ends, strict=True)
        if any(letter.isalnum() for letter in text[match.start("rest") : end])
    ]
    return tuple(dict.fromkeys(found))


def is_complete(text: str, expected: str) -> bool:
    """Whether an analysis has the headings of the expected one (all five where that has none)."""
    wanted = find_headings(expected) or HEADINGS
    return set(wanted) <= set(find_headings(text))
