"""Whether lyrics look cut off. Conservative: an ordinary ending, "on and on ..." included, is no cut."""

from __future__ import annotations

import re
from statistics import median

from preprocess.clean.sung import SungText

ROUND_LENGTHS = frozenset(
    {
        255,
        256,
        500,
        512,
        1000,
        1024,
        1500,
        2000,
        2048,
        2500,
        3000,
        4000,
        4096,
        5000,
        8000,
        8192,
        10000,
        16384,
        32767,
    }
)
"""Lengths in characters that storage and scrapers cut at."""

_CUT_MARK = re.compile(
    r"(?:[\[(]\s?(?:\.{3}|\u2026|more|truncated|continued|cont'd|to be continued|read more)\s?[\])]"
    r"|(?:^|\n)\s*(?:\.{3}|\u2026)|\.\.\. ?(?:read|see|view) more)\W{0,3}\Z",
    re.IGNORECASE,
)
# What follows the last sung line in the source: a mark alone, whatever the page adds after it.
_MARK_AFTER = re.compile(
    r"\W{0,3}?\s*(?:[\[(]\s?(?:\.{3,}|\u2026|more|truncated|continued|cont'd|to be continued|read more)\s?[\])]"
    r"|\n\s*(?:\.{3,}|\u2026+)[^\S\n]*(?:\n|\Z))",
    re.IGNORECASE,
)
# Musixmatch gives this footer with a third of the lyrics only.
_PARTIAL_FOOTER = "not for commercial use"
_FOOTER_CHARS = 120
_ENDS_WORD = re.compile(r"\w\Z")
_MIN_LINES = 8
_SHORT_LINE = 0.4


def is_truncated(sung: SungText, raw: str) -> bool:
    """Whether lyrics look cut off.

    Signs, each enough: they end in "[...]", "(more)" or a line of dots, whatever a page adds after it; they carry the
    footer of a source that gives a part only; the source's text has a round length and
    breaks off within a line that is no repetition; the last line opens a bracket and does not close it, or is far
    shorter than the others and ends in a comma.

    Args:
        sung: What is sung in the cleaned lyrics.
        raw: The lyrics as the source has them.
    """
    if not sung.lines:
        return False
    last = sung.lines[-1]
    if _has_cut_mark(last, raw):
        return True
    if last.count("(") > last.count(")") or last.count("[") > last.count("]"):
        return True
    # A last line that came before, whole, is the end of a chorus.
    if last in sung.lines[:-1]:
        return False
    if len(raw) in ROUND_LENGTHS and _ENDS_WORD.search(raw):
        return True
    if not last.endswith((",", "\uff0c", "\u060c")) or len(sung.lines) < _MIN_LINES:
        return False
    return len(last) < _SHORT_LINE * median(map(len, sung.lines))


def _has_cut_mark(last: str, raw: str) -> bool:
    """Whether the source's text, or its sung part whose last line is `last`, ends in a mark of a cut."""
    if _CUT_MARK.search(raw[-40:].rstrip()) or (not last[-1].isalnum() and _CUT_MARK.search(last[-40:])):
        return True
    if raw.endswith(last):
        return False
    if "*" in raw[-_FOOTER_CHARS:] and _PARTIAL_FOOTER in raw[-_FOOTER_CHARS:].lower():
        return True
    start = raw.rfind(last)
    return start >= 0 and _MARK_AFTER.match(raw, start + len(last)) is not None
