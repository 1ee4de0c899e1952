"""The decades that a free text states: "the 1990s", "the '90s", "the nineties", "1994"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.evaluation.scoring.clauses import comes_after, is_asked, is_denied, is_quoted, sentence_ends
from harness.evaluation.scoring.refusal import guesses

_TENS = ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")
_ERA = re.compile(
    r"(?<![\w'])(?P<decade>1[5-9]\d0|20[0-3]0)'?s\b"
    r"|(?<![\w$\u20ac\u00a3.])'?(?P<short>\d0)'?s\b"
    rf"|\b(?P<word>{'|'.join(_TENS)}|noughties)\b"
    r"|(?<![\w$\u20ac\u00a3.,])(?P<year>1[5-9]\d\d|20[0-3]\d)(?![\w%]|[.,]\d)",
    re.IGNORECASE,
)
_AGE = re.compile(r"\b(?:his|her|their|my|your|our|in its)\s+(?:(?:early|mid|late)[\s-]+)?$", re.IGNORECASE)
_FORM = re.compile(r"(?:^|(?<=[.!\n])\s*)\W*the song is from the\s+\W{0,3}", re.IGNORECASE)


def read_decades(text: str) -> tuple[int, ...]:
    """The decades that a normalised text gives as its answer, by their first years, ascending.

    The form that training teaches ("The song is from the 1990s.") says it alone, what follows is what shows it. Any
    other text states every decade and year in it that is not denied, asked, quoted or somebody's age. "20s" may be
    either century's, so it states both.
    """
    formal: set[int] = set()
    for match in _FORM.finditer(text):
        era = _ERA.match(text, match.end())
        if era is not None and sentence_ends(text, era.end()):
            formal.update(_decades_of(era))
    if formal:
        return tuple(sorted(formal))
    found = {
        decade
        for era in _ERA.finditer(text)
        if _states(text, era) and guesses(text, era.start())
        for decade in _decades_of(era)
    }
    return tuple(sorted(found))


def _states(text: str, era: re.Match[str]) -> bool:
    start, end = era.span()
    is_other = is_denied(text, start, end) or is_asked(text, start) or is_quoted(text, start, end)
    return not is_other and not (era["year"] is None and comes_after(_AGE, text, start))


def _decades_of(era: re.Match[str]) -> Iterator[int]:
    if era["decade"]:
        yield int(era["decade"])
    elif era["year"]:
        yield int(era["year"]) // 10 * 10
    elif era["word"]:
        word = era["word"].casefold()
        yield 2000 if word == "noughties" else 1920 + 10 * _TENS.index(word)
    else:
        yield from _of_either_century(int(era["short"]))


def _of_either_century(tens: int) -> tuple[int, ...]:
    if tens == 20:
        return 1920, 2020
    return (2000 + tens,) if tens < 20 else (1900 + tens,)


def is_within_a_decade(stated: tuple[int, ...], true: int) -> bool:
    """Whether an era is stated, of at most two neighbouring decades, none of them more than one decade off."""
    if not stated or stated[-1] - stated[0] > 10:
        return False
    return all(abs(decade - true) <= 10 for decade in stated)
