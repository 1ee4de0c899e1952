"""Whether a text declines to answer."""

from __future__ import annotations

import re
from functools import lru_cache

from harness.evaluation.scoring.words import find_quotes

_UNABLE = "cannot|can't|can not|could not|couldn't|unable to|not able to|impossible to|not possible to"
_ABLE = (
    "answer|determine|identify|tell|say|know|name|provide|recogni[sz]e|guess|assist|help|confirm|classify|find|give"
    "|offer|infer|access|listen|comply"
)
_MISSING = "information|knowledge|access|data|context|details?"
_UNKNOWN = "unknown|unclear|not (?:known|given|stated|clear|specified)"
_REFUSAL = re.compile(
    "|".join(
        (
            rf"\b(?:i|we|it)(?:'m| am| is|'s| are|'re)? (?:\w+ )?(?:{_UNABLE}) (?:\w+ ){{0,2}}(?:{_ABLE})",
            rf"\bi (?:do not|don't|really don't) (?:know|have (?:\w+ ){{0,2}}(?:{_MISSING}))",
            r"\b(?:i'm|i am) (?:\w+ )?(?:not sure|not certain|unsure|uncertain)\b",
            r"\bi have no (?:idea|way|information)\b",
            r"\bas an? (?:ai|artificial|language model|large language)\b",
            r"\b(?:it is|it's) (?:impossible|not possible|unclear|unknown|difficult|hard) (?:to|who|which|what)\b",
            rf"\b(?:there is|there's) (?:no|not enough|insufficient) (?:\w+ )?(?:way|{_MISSING})",
            r"\b(?:not enough|insufficient) (?:information|context|data)\b",
            rf"\b(?:artist|performer|singer|genre|decade|answer|era) (?:is|remains) (?:{_UNKNOWN})\b",
            r"\b(?:cannot|can't|could not) be (?:determined|identified|known|told|answered|inferred)\b",
            r"\bi (?:must |have to )?(?:decline|refuse)\b",
            r"\bi(?:'m| am) sorry\b",
            r"\bi apologi[sz]e\b",
            r"^\W*(?:unknown|n/?a|none|no answer|no idea|i don't know|unidentified|not sure)\W*$",
        )
    ),
    re.IGNORECASE,
)
_GUESS = re.compile(
    r"\b(?:guess|but|however|nevertheless|probably|likely|sounds? like|reminds?|i think|i believe|i'd say|i would say"
    r"|perhaps|maybe|might be|may be|could be|best fits?|seems?|appears?|resembles?|the (?:artist|genre|song) is)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=16)
def _find_refusals(text: str) -> tuple[tuple[int, int], ...]:
    """Where a normalised text declines; what it quotes is lyrics, unless the whole text is one quotation."""
    quoted = [
        (start, end) for start, end, _ in find_quotes(text) if text[:start].strip() or text[end:].strip()
    ]
    spans = (match.span() for match in _REFUSAL.finditer(text))
    return tuple(
        (start, end)
        for start, end in spans
        if not any(begin < start and end < stop for begin, stop in quoted)
    )


def declines(text: str) -> bool:
    """Whether a normalised text says that it does not answer."""
    return bool(_find_refusals(text))


def guesses(text: str, start: int) -> bool:
    """Whether what stands at a place is given as an answer, though the text may decline before it."""
    declined = [end for _, end in _find_refusals(text) if end <= start]
    return not declined or bool(_GUESS.search(text, declined[-1], start))


def says_nothing(text: str) -> bool:
    """Whether a text holds no letter and no digit."""
    return not any(letter.isalnum() for letter in text)
