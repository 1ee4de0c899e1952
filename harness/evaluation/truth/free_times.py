"""When a song is from, as free text says it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.evaluation.truth.found import Found, found
from harness.evaluation.truth.free_names import SONG
from harness.evaluation.truth.names import decade_of
from harness.evaluation.truth.sentences import stated
from harness.evaluation.truth.subject import Judgement, Subject, not_so, untold

DECADE = (
    r"(?:(?:1[5-9]|20)\d0'?s|['\u2019]?\d0'?s|(?:nineteen[- ])?(?:twen|thir|for|fif|six|seven|eigh|nine)ties)"
)
_PART = r"(?:(?:very )?(?:early|mid|late|middle|beginning|end)(?: of the)?[- ]+(?:to late[- ]+)?)?"
YEAR = r"(?:1[5-9]\d\d|20\d\d)(?!'?s|\d)"
_MADE = (
    r"(?<!-)(?:released|recorded|written|composed|published|produced|made|issued|dropped|appeared|debuted|"
    r"came out|comes|came|dat(?:es|ed|ing)(?: back)?|stems|originat\w+|hails|"
    r"(?:plac|dat)(?:e|es|ed) (?:it|this|them|the song|these lyrics))"
)
LIKELY = r"(?:most |very )?(?:likely|probably|clearly|definitely|certainly|obviously|indeed|originally|first)"
ADJECTIVE = r"[a-z]+(?:-[a-z]+)?"

_DECADE_RULES = (
    re.compile(
        rf"\b{_MADE}(?: {LIKELY})?(?: as an? [a-z ]{{2,20}})? (?:in|from|to|during|around|out of)(?: the)? "
        rf"{_PART}(?P<decade>{DECADE})",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:is|are|was|were|'s|be)(?: {LIKELY})*(?: (?:an? |the )?(?:{ADJECTIVE} ){{0,3}}{SONG})?(?: {LIKELY})? "
        rf"(?:from|of)(?: the)? {_PART}(?P<decade>{DECADE})",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:this|an?|the)(?: {ADJECTIVE}){{0,2}} {_PART}(?P<decade>{DECADE})"
        rf"(?: {ADJECTIVE}| R&B){{0,2}} {SONG}\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:decade|era|period)(?: of [^.,;]{{1,30}})? (?:is|was|would be)(?: {LIKELY})?(?: the)? {_PART}"
        rf"(?P<decade>{DECADE})",
        re.IGNORECASE,
    ),
    re.compile(rf"\b{SONG} (?:{LIKELY} )?(?:from|of) (?:the )?{_PART}(?P<decade>{DECADE})", re.IGNORECASE),
    re.compile(rf"^\W*(?:the )?(?P<decade>{DECADE})\W*$", re.IGNORECASE),
    re.compile(rf"^\W*(?:decade|era|period)\W+(?:the )?(?P<decade>{DECADE})", re.IGNORECASE),
)
_YEAR_RULES = (
    re.compile(
        rf"\b(?i:{_MADE})(?: {LIKELY})?(?: as an? [a-z ]{{2,20}})? (?:in|from|to|on)(?: the year)?(?: [A-Z][a-z]+"
        rf"(?: \d{{1,2}},?)?)? "
        rf"(?P<year>{YEAR})"
    ),
    re.compile(
        rf"\b(?:year|release date)(?: of [^.,;]{{1,30}})?(?: is| was|:\**)(?: {LIKELY})? (?P<year>{YEAR})",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:this|an?|the|his|her|their)(?: {ADJECTIVE}){{0,2}} (?P<year>{YEAR})"
        rf"(?: {ADJECTIVE}| R&B){{0,2}} {SONG}\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:is|are|was|were)(?: an?| the)?(?: {ADJECTIVE}){{0,3}}(?: {SONG})? (?:from|of) (?P<year>{YEAR})",
        re.IGNORECASE,
    ),
    re.compile(rf"\b{SONG} (?:from|of) (?P<year>{YEAR})", re.IGNORECASE),
    re.compile(rf"^\W*(?:released|year)\W{{1,4}}(?P<year>{YEAR})", re.IGNORECASE),
)


_ALTERNATIVE = re.compile(
    rf"\s*(?:or|to|and|through|until|-|\u2013)(?: the)?\s+{_PART}"
    rf"(?P<decade>{DECADE})",
    re.IGNORECASE,
)


def time_claims(subject: Subject, sentence: str) -> Iterator[Found]:
    """The decades and years that a sentence gives the song."""
    for match in stated(_DECADE_RULES, "decade", sentence):
        told = _read_decade(match["decade"])
        if told is not None:
            yield found("decade", match, "decade", _judge(subject, told, sentence, match), told)
    for match in stated(_YEAR_RULES, "year", sentence):
        yield found("year", match, "year", subject.year(int(match["year"])))


def _read_decade(told: str) -> str | None:
    return decade_of(re.sub(r"(?i)^nineteen[- ]", "", told))


_SURELY_APART = 3
_WHICH_PART = re.compile(r"\b(?P<part>early|beginning|mid|middle|late|end)(?: of the)?[- ]+$", re.IGNORECASE)
_YEARS_OF_PART = {
    "early": (0, 4),
    "beginning": (0, 4),
    "mid": (3, 7),
    "middle": (3, 7),
    "late": (5, 9),
    "end": (5, 9),
}
"""The first and the last year of a part of a decade; those next to them (two of them) may be counted in."""


def _judge_part(subject: Subject, before: str, judgement: Judgement) -> Judgement:
    """Whether a song of this decade is of the part of it that is named."""
    part, year = _WHICH_PART.search(before), subject.song.year
    if part is None or year is None or judgement[0] != "supported":
        return judgement
    first, last = _YEARS_OF_PART[part["part"].casefold()]
    apart = max(first - year % 10, year % 10 - last)
    if apart <= 0:
        return judgement
    return (untold if apart < _SURELY_APART else not_so)(judgement[1])


def _judge(subject: Subject, told: str, sentence: str, match: re.Match[str]) -> Judgement:
    """One decade, or one of two that are left open: these are not so where neither is."""
    judgement = _judge_part(subject, sentence[: match.start("decade")], subject.decade(told))
    other = _ALTERNATIVE.match(sentence, match.end("decade"))
    if other is None or judgement[0] == "not checkable":
        return judgement
    judgements = judgement, subject.decade(_read_decade(other["decade"]) or told)
    if any(verdict == "supported" for verdict, _ in judgements):
        return untold("more than one decade is named")
    return judgement
