"""Section headings made uniform: "[Verse 1: Prince]", "VERSE 1" and "Verse One:" all become "[Verse 1]".

What a heading says beyond its section word and number is dropped: it names performers, which would give away the
artist. A bracket of another kind at the start of a line ("[Prince]", "[?]") goes altogether.
"""

from __future__ import annotations

import re

_CORE = (
    r"verses?|pre[- ]?chorus|post[- ]?chorus|chorus|refrain|pre[- ]?hook|hook|bridge|intro(?:duction)?|outro|interlude"
    r"|couplet|pr[ée][- ]?refrain|pont|estribillo|pre[- ]?coro|coro|verso|puente|strofa|ritornello|strophe"
    r"|pre[- ]?refr[ãa]o|refr[ãa]o|ponte|refren|zwrotka|куплет|припев|бридж|интро|аутро"
)
# Words that are also sung by themselves; they are headings only in brackets.
_BRACKETED_ONLY = (
    r"instrumental(?: break| solo)?|(?:guitar |piano |drum |sax )?solo|break(?:down)?|build(?:[- ]?up)?|drop|skit"
    r"|spoken(?: word)?|part|ad[- ]?libs?|coda|vamp|segue|tag|sample|beat switch|parte|partie|teil|rap|hidden track"
)
_NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"} | {
    "i": "1",
    "ii": "2",
    "iii": "3",
    "iv": "4",
    "v": "5",
    "vi": "6",
}
_NUMBER = rf"(?:\s*#?\s*(?P<number>\d{{1,2}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})(?!\w))?"
_KNOWN = re.compile(rf"(?P<word>{_CORE}|{_BRACKETED_ONLY})(?!\w){_NUMBER}", re.IGNORECASE)
_BARE = re.compile(
    rf"(?P<open>\()?(?P<word>{_CORE}){_NUMBER}\s*(?P<repeat>\(?x\s?\d\)?)?(?P<colon>:)?\)?(?P<colon2>:)?",
    re.IGNORECASE,
)
_NUMBERED_WITH_TEXT = re.compile(
    r"(?P<word>verse|couplet)\s+(?P<number>\d{1,2}):\s+(?P<rest>\S.*)", re.IGNORECASE
)
_BRACKET = re.compile(r"\[(?P<inside>[^\[\]]*)\]\s*(?P<rest>.*)")
_BROKEN_BRACKET = re.compile(r"^(\[[^\[\]\n]{1,80})\n([^\[\]\n]{0,80}\])", re.MULTILINE)
_CLOSING = re.compile(r"(?<=[^\s\[]) *(?=\[(?:" + _CORE + r")\b[^\[\]\n]*\])", re.IGNORECASE)


def normalise_headings(text: str) -> str:
    """Make the headings of lyrics uniform, each on a line of its own.

    Args:
        text: Lyrics with a newline between lines.
    """
    if "[" in text:
        text = _CLOSING.sub("\n", _BROKEN_BRACKET.sub(r"\1 \2", text))
    lines: list[str] = []
    for line in text.split("\n"):
        lines += _normalise_line(line.strip(), starts_stanza=not lines or not lines[-1])
    return "\n".join(lines)


def _normalise_line(line: str, *, starts_stanza: bool) -> list[str]:
    bracket = _BRACKET.fullmatch(line)
    if bracket:
        heading = _heading(_KNOWN.match(bracket["inside"].strip()))
        rest = bracket["rest"].strip()
        return [part for part in (heading, rest) if part]
    numbered = _NUMBERED_WITH_TEXT.fullmatch(line)
    if numbered:
        return [_heading(numbered), numbered["rest"]]
    bare = _BARE.fullmatch(line)
    if bare and _is_marked(bare, line, starts_stanza):
        return [_heading(bare)]
    return [line]


def _is_marked(bare: re.Match[str], line: str, starts_stanza: bool) -> bool:
    """Whether a bare section word is visibly a heading and not a word that is sung."""
    marks = ("number", "open", "repeat", "colon", "colon2")
    return any(bare[mark] for mark in marks) or line.isupper() or (starts_stanza and line[:1].isupper())


def _heading(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    word = re.sub(r"^(pre|pré|post)[- ]?(?=\w)", r"\1-", match["word"].lower())
    word = re.sub(r"[^\W_]+", lambda part: part[0].capitalize(), word)
    word = "Verse" if word == "Verses" else word
    number = match["number"]
    return f"[{word} {_NUMBERS.get(number.lower(), number)}]" if number else f"[{word}]"
