# ruff: noqa: RUF001 - dashes and brackets of several scripts
"""Section headings made uniform: "[Verse 1: Prince]", "VERSE 1" and "Verse One:" all become one form.

Which one is a choice:

- "plain": "[Verse 1]", the section word in its own language with its number;
- "tags": "[VERSE]", English and without a number: fit to be special tokens, one for each kind of section;
- "drop": none, and an empty line in its place.

What a heading says beyond its section word and number is dropped: it names performers, which would give away the
artist. A bracket of another kind at the start of a line ("[Prince]", "[?]") goes altogether.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, cast

from preprocess.clean.section_words import BRACKETED_WORDS, PLAIN_WORDS, TAGS, squeeze_word

Headings = Literal["plain", "tags", "drop"]
"""How headings are written."""

_Heading = tuple[str, str | None]
"""A section word as the source spells it, and its number in digits."""

_NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"} | {
    "i": "1",
    "ii": "2",
    "iii": "3",
    "iv": "4",
    "v": "5",
    "vi": "6",
}
_ORDINALS = {"first": "1", "second": "2", "third": "3", "fourth": "4", "fifth": "5"}


def _alternatives(words: tuple[str, ...]) -> str:
    return "|".join(re.escape(word).replace(r"\-", "[- ]?") for word in words)


_PLAIN = _alternatives(PLAIN_WORDS)
_WORD = rf"(?P<word>{_alternatives(tuple(sorted(PLAIN_WORDS + BRACKETED_WORDS, key=lambda word: (-len(word), word))))})"
_NUMBER = rf"(?:\s*#?\s*(?P<number>\d{{1,2}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})(?!\w))?"
_REPEAT = r"\(?(?:x\s?\d{1,2}|\d{1,2}\s?x)\)?"

_KNOWN = re.compile(rf"{_WORD}(?![^\W\d_]){_NUMBER}", re.IGNORECASE)
_QUALIFIED = re.compile(
    rf"(?:(?P<ordinal>\d{{1,2}}(?=\W)|\d(?=[절段])|first|second|third|fourth|fifth)(?:st|nd|rd|th|er|e|[eè]me)?[.ªº°]?"
    rf"|(?P<digit>\d)(?:st|nd|rd|th|er|[eè]me)|final|last|repeat(?: the)?|half|double|alternat(?:e|ive)|extended)"
    rf"[\s-]*{_WORD}(?![^\W\d_]).*",
    re.IGNORECASE,
)
_NAMED_FIRST = re.compile(rf".{{1,60}}?(?:\s[-–—|]|:|\()\s*{_WORD}(?![^\W\d_]){_NUMBER}\s*\)?", re.IGNORECASE)
_BARE = re.compile(
    rf"(?P<open>[(*~={{<_–—-]+ ?)?(?P<word>{_PLAIN})(?![^\W\d_]){_NUMBER}\s*(?P<repeat>{_REPEAT})?(?P<colon>:)?"
    rf" ?(?P<close>[)*~=}}>_–—\]-]*)(?P<colon2>:)?(?: ?(?P<repeat2>{_REPEAT}))?",
    re.IGNORECASE,
)
_IN_PARENTHESES = re.compile(
    rf"\((?P<word>{_PLAIN})(?![^\W\d_]){_NUMBER}\s*[:–—-]\s?[^()]{{1,60}}\):?", re.IGNORECASE
)
_NUMBERED_WITH_TEXT = re.compile(
    r"(?P<word>verse|couplet)\s+(?P<number>\d{1,2}):\s+(?P<rest>\S.*)", re.IGNORECASE
)
_BRACKET = re.compile(r"[\[【［](?P<inside>[^\[\]【】［］]*)[\]】］]\s*:?\s*")
_UNCLOSED = re.compile(r"\[(?P<inside>[^\[\]]{1,80})")
_BROKEN_BRACKET = re.compile(
    rf"^(\[\s*(?:{_PLAIN})(?![^\W\d_])[^\[\]\n]{{0,80}})\n([^\[\]\n]{{0,80}}\])", re.MULTILINE | re.IGNORECASE
)
_OPEN_AT_LINE_END = re.compile(r"\[[^\[\]\n]*\n")
_GLUED = re.compile(rf"(?<=[^\s\[]) *(?=\[(?:{_PLAIN})(?![^\W\d_])[^\[\]\n]*\])", re.IGNORECASE)
_ONLY_REPEAT = re.compile(_REPEAT, re.IGNORECASE)

_OPENERS = "[【［"
_MAX_BARE_CHARS = 28
# The cheap question before the expression: how the plain words begin.
_BARE_STARTS = frozenset(word[:2] for word in PLAIN_WORDS)


def normalise_headings(text: str, headings: Headings = "plain") -> str:
    """Make the headings of lyrics uniform, each on a line of its own; lines lose the spaces at their ends.

    Args:
        text: Lyrics with a newline between lines.
        headings: How headings are written.
    """
    if "[" in text:
        text = _part_brackets(text)
    lines: list[str | _Heading] = []
    has_headings = False
    for line in map(str.strip, text.split("\n")):
        if line and (len(line) <= _MAX_BARE_CHARS or line[0] in _OPENERS or ":" in line):
            read = _read_line(line, starts_stanza=not lines or not lines[-1])
            has_headings = has_headings or read != [line]
            lines += read
        else:
            lines.append(line)
    return "\n".join(_write(lines, headings) if has_headings else cast("list[str]", lines))


def _part_brackets(text: str) -> str:
    """Headings that run over two lines on one, and those glued to the end of a line on their own."""
    # The cheap questions first: few lyrics need either expression.
    if _OPEN_AT_LINE_END.search(text):
        text = _BROKEN_BRACKET.sub(r"\1 \2", text)
    is_glued = text.count("[") > text.count("\n[") + text.startswith("[")
    return _GLUED.sub("\n", text) if is_glued else text


def _read_line(line: str, *, starts_stanza: bool) -> list[str | _Heading]:
    if line[0] in _OPENERS:
        return _read_bracket(line)
    if ":" in line:
        numbered = _NUMBERED_WITH_TEXT.fullmatch(line)
        if numbered:
            return [(numbered["word"], numbered["number"]), numbered["rest"]]
    may_be_bare = len(line) <= _MAX_BARE_CHARS and (line[:2].lower() in _BARE_STARTS or not line[0].isalpha())
    bare = _BARE.fullmatch(line) if may_be_bare else None
    if bare and _is_marked(bare, line, starts_stanza):
        return [_heading(bare)]
    named = _IN_PARENTHESES.fullmatch(line) if line[0] == "(" else None
    return [line if named is None else _heading(named)]


def _read_bracket(line: str) -> list[str | _Heading]:
    """The headings of a line that begins with brackets, and what follows them."""
    parts: list[str | _Heading] = []
    while bracket := _BRACKET.match(line):
        heading = _find_heading(bracket["inside"].strip())
        line = line[bracket.end() :]
        if heading:
            parts.append(heading)
            line = "" if _ONLY_REPEAT.fullmatch(line) else line
    unclosed = _UNCLOSED.fullmatch(line)
    heading = _find_heading(unclosed["inside"].strip()) if unclosed else None
    return [*parts, heading or line] if line else parts


@lru_cache(maxsize=4096)
def _find_heading(inside: str) -> _Heading | None:
    """The heading that the text between two brackets is."""
    qualified = _QUALIFIED.fullmatch(inside)
    if qualified:
        number = qualified["ordinal"] or qualified["digit"]
        return qualified["word"], _ORDINALS.get((number or "").lower(), number)
    known = _KNOWN.match(inside)
    if known:
        return _heading(known)
    named = _NAMED_FIRST.fullmatch(inside)
    return None if named is None else _heading(named)


def _is_marked(bare: re.Match[str], line: str, starts_stanza: bool) -> bool:
    """Whether a bare section word is visibly a heading and not a word that is sung."""
    marks = ("number", "open", "repeat", "colon", "colon2", "repeat2")
    return any(bare[mark] for mark in marks) or line.isupper() or (starts_stanza and line[:1].isupper())


def _heading(match: re.Match[str]) -> _Heading:
    number = match["number"]
    return match["word"], None if number is None else _NUMBERS.get(number.lower(), number)


def _write(lines: list[str | _Heading], headings: Headings) -> list[str]:
    if headings == "drop":
        return [line if isinstance(line, str) else "" for line in lines]
    if headings == "plain":
        return [line if isinstance(line, str) else _write_plain(line) for line in lines]
    tags = {TAGS[squeeze_word(line[0])] for line in lines if not isinstance(line, str)}
    # English songs may tell a refrain from the chorus; elsewhere "refrain" is the word for a chorus.
    renamed = {} if "CHORUS" in tags else {"REFRAIN": "CHORUS"}
    return [line if isinstance(line, str) else _write_tag(line, renamed) for line in lines]


@lru_cache(maxsize=1024)
def _write_plain(heading: _Heading) -> str:
    word = re.sub(
        r"^(pre|pré|post|pós)[- ]?(?=chorus|hook|refr|coro|estrib|ritorn)", r"\1-", heading[0].lower()
    )
    word = re.sub(r"[^\W_]+", lambda part: part[0].capitalize(), word)
    word = "Verse" if word == "Verses" else word
    return f"[{word} {heading[1]}]" if heading[1] else f"[{word}]"


def _write_tag(heading: _Heading, renamed: dict[str, str]) -> str:
    tag = TAGS[squeeze_word(heading[0])]
    return f"[{renamed.get(tag, tag)}]"
