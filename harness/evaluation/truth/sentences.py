"""Where sentences end, and which parts of them are no statements: what is denied, supposed, or compared with."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ABBREVIATIONS = frozenset(
    (
        "st",
        "mr",
        "mrs",
        "ms",
        "dr",
        "jr",
        "sr",
        "vs",
        "feat",
        "ft",
        "vol",
        "pt",
        "etc",
        "e.g",
        "i.e",
        "ca",
        "prof",
    )
)
_END = re.compile(r"[.!?\u2026]+[\"\u201d')\]]*(?=\s|$)|\n")


MAX_SENTENCE_CHARS = 2000
"""Text that goes on for longer without an end is read in parts, for the time that reading takes."""


def end_of_sentence(text: str, start: int, name: str = "") -> int:
    """Where the sentence that begins at a place ends: at a line's end, or at a full stop that ends no abbreviation.

    Args:
        text: The text.
        start: The place.
        name: One that may hold full stops, which end no sentence ("Panic! At The Disco").
    """
    for match in _END.finditer(text, start, start + MAX_SENTENCE_CHARS):
        if match[0] != "\n" and _is_inside(text, match.start(), name):
            continue
        if match[0] == ".":
            words = text[start : match.start()].split()
            last = words[-1].lstrip("\"'(\u201c").casefold() if words else ""
            is_initial = len(last) == 1 and last.isalpha() and last != "i"
            if last in _ABBREVIATIONS or is_initial:
                continue
        return match.end()
    return min(len(text), start + MAX_SENTENCE_CHARS)


def _is_inside(text: str, place: int, name: str) -> bool:
    """Whether a place of a text lies within a name, before its last letter."""
    found = text.find(name, max(0, place - len(name)), place + len(name)) if name else -1
    return 0 <= found <= place < found + len(name) - 1


_NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|no|none|nothing|without|cannot|hardly|lacks?|n't|isn't|aren't|wasn't|weren't|"
    r"doesn't|don't|didn't|won't|can't|couldn't|wouldn't|hasn't|haven't)\b|n't\b",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"\b(?:unlike|rather than|instead of|as opposed to|far from|other than|apart from|except|compared (?:to|with)|"
    r"in contrast (?:to|with))\b",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"\b(?:would(?! (?:say|guess|classify|categori[sz]e|identify|place|describe|call|be)\b)|"
    r"could|might|(?-i:may)|maybe|either|perhaps|possibly|if|whether|should|unclear|unknown|unsure|uncertain|"
    r"(?:hard|difficult|impossible) to (?:say|tell)|wish|imagine|suppose)\b",
    re.IGNORECASE,
)
_LIKENESS = re.compile(
    r"\b(?:like|similar(?:ly)? to|reminiscent|reminds?|in the (?:style|vein|spirit|manner|tradition) of|inspired|"
    r"influence[sd]?|echo(?:es)?|fans? of|sounds? (?:like|as)|elements?|blends?|mix(?:es|ture)?|combin\w+|fus\w+|"
    r"hints?|evok\w+|nods?|tribute|cover(?:s|ed)?|sampl\w+|remix\w*|resembl\w+|typical of|common in|many|"
    r"most(?! likely)|other|some|all|several)\b",
    re.IGNORECASE,
)
_BUT = re.compile(
    r";|:|\bbut\b|\bhowever\b|\byet\b|,\s*(?=(?:it|this|the|he|she|they|which|and|that|these|those)\b)|\n",
    re.IGNORECASE,
)


def scope_before(sentence: str, place: int) -> str:
    """What stands before a place of a sentence since the last turn of thought."""
    before = sentence[:place]
    turns = list(_BUT.finditer(before))
    return before[turns[-1].end() :] if turns else before


_WRONG = re.compile(
    r"[^,;:\n]{0,60}?\bwould be (?:clearly |simply )?(?:wrong|a mistake|incorrect|inaccurate|misleading|untrue)\b",
    re.IGNORECASE,
)


def is_stated(sentence: str, place: int) -> bool:
    """Whether what stands at a place of a sentence is stated: not denied, not supposed, not what is set apart from."""
    before = scope_before(sentence, place)
    if _NEGATION.search(before) or _SUPPOSED.search(before):
        return False
    if _WRONG.match(sentence, place):
        return False
    contrast = list(_CONTRAST.finditer(before))
    if contrast and "," not in before[contrast[-1].end() :]:
        return False
    return re.match(r"[\w'\u2019 -]{0,30}?\b(?:is|are|was|were)(?:n't| not)\b", sentence[place:]) is None


_DENIAL = re.compile(
    r"[\w'\u2019 -]{0,30}?\b(?:(?:is|are|was|were|do|does|did)(?:n['\u2019]t| not| never)|cannot|can['\u2019]t|"
    r"never|nowhere|absent|missing)\b"
)


def is_denied_after(sentence: str, place: int) -> bool:
    """Whether what ends at a place of a sentence is denied behind it, as in '"love" does not appear'."""
    return _DENIAL.match(sentence, place) is not None


def is_likened(sentence: str, place: int) -> bool:
    """Whether what stands at a place is only compared with, or one of many."""
    before = scope_before(sentence, place)
    likeness = list(_LIKENESS.finditer(before))
    return bool(likeness) and not re.search(r"[,;]", before[likeness[-1].end() :])


def stated(rules: tuple[re.Pattern[str], ...], group: str, sentence: str) -> Iterator[re.Match[str]]:
    """What rules find in a sentence, where it is stated of the song and not of others, each place once."""
    seen: set[int] = set()
    for rule in rules:
        for match in rule.finditer(sentence):
            place = match.start(group)
            if place not in seen and is_stated(sentence, place) and not is_likened(sentence, place):
                seen.add(place)
                yield match
