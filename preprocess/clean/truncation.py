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
_ENDS_WORD = re.compile(r"\w\Z")
_MIN_LINES = 8
_SHORT_LINE = 0.4


def is_truncated(sung: SungText, raw: str) -> bool:
    """Whether lyrics look cut off.

    Signs, each enough: they end in "[...]", "(more)" or a line of dots; the source's text has a round length and
    breaks off within a line that is no repetition; the last line opens a bracket and does not close it, or is far
    shorter than the others and ends in a comma.

    Args:
        sung: What is sung in the cleaned lyrics.
        raw: The lyrics as the source has them.
    """
    if not sung.lines:
        return False
    if _CUT_MARK.search(raw[-40:].rstrip()):
        return True
    last = sung.lines[-1]
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
