"""What a text says around a name: whether it states it, denies it, asks it or only quotes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from harness.evaluation.scoring.words import find_quotes, word_set

_CLAUSE_END = re.compile(r"[.!?;:,()\n\u2014\u3002\uff01\uff1f]|\s-\s|\bbut\b|\bhowever\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[!?\n\u3002\uff01\uff1f]+|\.(?=\s|$)")
_WORD_MARK = re.compile(r"[\w']")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_NO_DENIAL = re.compile(
    r"\bno doubt\b|\bwithout (?:a |any )?doubt\b|\bno question\b|\bnot (?:only|just|merely)\b"
    r"|\bnone other than\b|\bno other than\b|\bnothing but\b|\bn't (?:only|just)\b",
    re.IGNORECASE,
)
_DENIALS = word_set(
    "not no never nor neither unlike without than except non hardly excluding cannot isn't isnt wasn't aren't don't"
    " dont doesn't doesnt didn't can't cant couldn't wouldn't won't"
)
_DENYING_PHRASES = re.compile(
    r"\b(?:rather than|instead of|opposed to|different from|far from|contrast to)\b"
)
_DENIED_AFTER = re.compile(
    r"(?:'s)?\s+(?:"
    r"(?:is|was)(?:\s+\w+ly)?(?:\s+not|n't)\s+(?:the|it|who|likely|right|correct|an?|behind|here|this|one)\b"
    r"|(?:did|does|would|could)(?:\s+not|n't)\s+(?:\w+\s+)?(?:sing|perform|write|record|make|fit|match|apply)"
    r"|(?:is|can be|are)\s+(?:ruled out|excluded|wrong|incorrect)\b)",
    re.IGNORECASE,
)
_REACH = 200
"""Characters before a name that are read at most, so that a long text is read in time that grows with its length."""

_WINDOW = 7
"""Words before a name, in its own clause, in which a denial is looked for."""


def is_denied(text: str, start: int, end: int) -> bool:
    """Whether what stands from `start` to `end` is denied or set apart: "not by X", "unlike X", "X isn't the …"."""
    before = _without_quoted_words(text)[max(0, start - _REACH) : start]
    clause_start = max((match.end() for match in _CLAUSE_END.finditer(before)), default=0)
    clause = _NO_DENIAL.sub(" ", before[clause_start:].casefold())
    words = _WORD.findall(clause)[-_WINDOW:]
    if _DENIALS & set(words) or _DENYING_PHRASES.search(" ".join(words)):
        return True
    return bool(_DENIED_AFTER.match(text, end))


@lru_cache(maxsize=16)
def _without_quoted_words(text: str) -> str:
    """The text with spaces in the place of the words that it quotes, which deny nothing; punctuation stays."""
    parts, place = [], 0
    for start, end, _ in find_quotes(text):
        parts += [text[place:start], _WORD_MARK.sub(" ", text[start:end])]
        place = end
    return "".join((*parts, text[place:]))


def is_asked(text: str, start: int) -> bool:
    """Whether the sentence around a place is a question."""
    end = _SENTENCE_END.search(text, start)
    return end is not None and end[0].lstrip("\n")[:1] in ("?", "\uff1f")


def is_quoted(text: str, start: int, end: int) -> bool:
    """Whether a place stands inside a quotation that says more than it: lyrics, or a title."""
    for begin, stop, inside in find_quotes(text):
        if begin < start and end < stop:
            return len(_WORD.findall(inside)) > len(_WORD.findall(text[start:end]))
    return False


def sentence_ends(text: str, place: int) -> bool:
    """Whether nothing but marks stands from a place to the end of its sentence."""
    rest = text[place:].lstrip("\"'*_\u201d\u00bb\u300d) ")
    return not rest or rest[0] in "!\n\u3002\uff01" or (rest[0] == "." and not rest[1:2].isalnum())


def first_word(text: str, place: int) -> str:
    """The word that follows a place after spaces alone, as the text spells it; "" where another mark comes first."""
    match = re.compile(r"[ \t]+([^\W_]+)").match(text, place)
    return match[1] if match else ""


def last_word(text: str, place: int) -> str:
    """The word that stands before a place with spaces alone between."""
    match = re.search(r"([^\W_]+)[ \t]+$", text[max(0, place - _REACH) : place])
    return match[1] if match else ""


def comes_after(pattern: re.Pattern[str], text: str, place: int) -> bool:
    """Whether what stands right before a place ends in a pattern, which ends in "$"."""
    return pattern.search(text[max(0, place - _REACH) : place]) is not None


def share(flags: Sequence[bool]) -> float:
    """The share that is true, of at least one."""
    return sum(flags) / len(flags)
