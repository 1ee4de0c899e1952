"""Whole lines that are not sung: chords, capos, instructions to repeat, solos, addresses, who wrote a page, rules.

Only a line that can hardly be sung goes: "Repeat after me", "Am I", "A B C" and "(solo)" (Spanish: alone) stay.
"""

from __future__ import annotations

import re

_SECTION = r"(?:pre[- ]?chorus|post[- ]?chorus|chorus|verses?|refrain|hook|bridge|intro|outro)"
_TIMES = r"(?:\(?(?:x ?\d{1,2}|\d{1,2} ?x|\d{1,2} times|twice)\)?)"
_INSTRUMENT = (
    r"(?:(?:acoustic |electric |lead |bass |steel )?guitar|piano|drums?|sax|saxophone|bass|keyboard|organ|synth"
    r"|harmonica|violin|fiddle|trumpet|horn|flute|banjo)"
)
_ADDRESS = r"(?:https?://\S+|www\.[^\s.]+\.\S+|[a-z\d][a-z\d-]*(?:\.[a-z\d-]+)*\.(?:com|net|org)(?:/\S*)?)"
_NOT_SUNG = re.compile(
    rf"[(*{{]?\s?repeat (?:(?:the )?(?:(?:first|second|last) )?{_SECTION}(?: ?#?\d{{1,2}})?(?:,? {_TIMES})?"
    rf"|\d{{1,2}}|{_TIMES})\s?[)*}}.:]{{0,2}}"
    rf"|[(*{{]\s?(?:{_INSTRUMENT} solo|instrumental(?: break| solo| bridge| interlude)?)\s?[)*}}]"
    rf"|[*{{]\s?solo\s?[*}}]"
    r"|capo:?(?: (?:on|at|in))?(?: the)?:? ?(?:fret )?\d{1,2}(?:st|nd|rd|th)?(?: fret)?\W*"
    r"|(?:lyrics |tab |tabs |chords )?submitted by ?:.{1,100}"
    r"|(?:lyrics |tabbed |chords )?transcribed by\b.{1,100}"
    rf"|[<(]?{_ADDRESS}[>)]?"
    r"|(?:©|copyright ?(?:©|\(c\)|:|\d{4})).{0,200}"
    rf"|read (?:more|the full lyrics) at:? {_ADDRESS}.{{0,80}}",
    re.IGNORECASE,
)
_RULE = re.compile(r"[-\u2013\u2014_=~*]{3,}(?: ?[-\u2013\u2014_=~*]+)*")

_NOTE = r"[A-G][#b]?"
_CHORD = rf"{_NOTE}(?:m|maj|min|sus|dim|aug|add)?\d*(?:(?:sus|add|maj)\d+)?(?:/{_NOTE})?"
_CHORD_TOKEN = re.compile(_CHORD)
# How such lines begin, in one expression that begins with a letter: the only thing that most texts are asked.
_HINT = re.compile(
    r"\n(?:[-\u2013\u2014_=~*]{2}|\u00a9|[(*{] ?(?i:repeat|instr|solo|[a-z ]{4,20} solo)"
    r"|R(?:epeat |ead |E)|r(?:epeat |ead m)|C(?:apo[ :\d]|opyright|hords [st]|OPY|APO)"
    r"|c(?:apo[ :\d]|opyright|hords [st])|<?(?:http|www\.)|S(?:ubmitted|UBM)|submitted"
    r"|T(?:ranscribed|abs? s|abbed|RANS)|t(?:ranscribed|abs? s|abbed)|[Ll]yrics [st]"
    rf"|[| ]*{_CHORD}[ |]+{_CHORD}(?=[\s|]|\Z))"
)
# What stands between chords: bars, and how often they are played.
_BETWEEN_CHORDS = re.compile(r"[|-]+|\(?(?:x\d{1,2}|\d{1,2}x)\)?|N\.?C\.?")

_CUT_LINE = re.compile(r"[\[(]? ?(?:\.{3,}|\u2026+) ?[\])]?")


def remove_whole_lines(text: str) -> str:
    """Take out the lines that are not sung; a rule of dashes parts stanzas.

    A text of nothing else stays as it is, so that it can be judged.
    """
    if _HINT.search("\n" + text) is None:
        return text
    lines = text.split("\n")
    chords = _find_chord_lines(lines)
    kept = [
        "" if _RULE.fullmatch(line.strip()) else line
        for place, line in enumerate(lines)
        if place not in chords and not _NOT_SUNG.fullmatch(line.strip())
    ]
    return "\n".join(kept) if any(map(str.strip, kept)) else text


def remove_cut_lines(text: str) -> str:
    """Take out lines of dots alone at the end, which mark a cut."""
    text = text.rstrip()
    while text.endswith((".", "\u2026", ")", "]")):
        head, _, last = text.rpartition("\n")
        if not head or not _CUT_LINE.fullmatch(last.strip()):
            break
        text = head.rstrip()
    return text


def _find_chord_lines(lines: list[str]) -> frozenset[int]:
    """The places of the lines of chords.

    Letters alone may be spelled or sung ("A B C"): they are chords only beside a line that is chords for certain.
    """
    read = {place: chords for place, line in enumerate(lines) if len(chords := _read_chords(line)) > 1}
    if not any(len(set(chords)) > 1 and max(map(len, chords)) > 1 for chords in read.values()):
        return frozenset()
    return frozenset(read)


def _read_chords(line: str) -> list[str]:
    """The chords of a line, none when it holds anything else."""
    chords = [token for token in line.split() if not _BETWEEN_CHORDS.fullmatch(token)]
    return chords if all(map(_CHORD_TOKEN.fullmatch, chords)) else []
