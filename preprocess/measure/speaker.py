"""Who speaks in a song, to whom, and of whom, by its pronouns and by whom it calls."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from preprocess.measure.words import PERSONS

MIN_PRONOUNS = 3
"""Fewer pronouns of a person tell nothing."""

_CALLED = (
    "ladies and gentlemen|my love|my darling|my dear|my friends?|my lord|my god|my baby|my brothers?|my sisters?"
    "|my soul|my child|my son|my girl|my boy|baby|babe|honey|darlin'?|darling|sweetheart|sugar|mama|momma|mamma|papa"
    "|daddy|mother|father|brothers?|sisters?|children|friends?|girls?|boys?|lovers?|lord|god|jesus|saviou?r|heaven"
    "|angels?|lady|ladies|mister|doctor|soldiers?|world|people|everybody|death|love|sun|moon|river|homies?|bro"
)
_SET_OFF = re.compile(
    rf"(?:^|[,;:!?(] ?|\bo,? |\b(?:oh|hey),? )({_CALLED})(?=\)?(?:[,;:!?]|$))", re.MULTILINE
)
_MAY_CALL = re.compile(r"\b(?:my|o|oh|hey)\b|[,!]")


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks to whom.

    Attributes:
        speaker: "I" or "we": the first person that is the more frequent; None when neither is frequent.
        addressee: "you" where the song says it (or "thou") often enough; else None.
        others: "he", "she" or "they": the third person that is the most frequent; None when none is.
        called: Whom the song calls by name or by what they are, set off by commas ("baby", "lord"), the most frequent
            first, with counts.
    """

    speaker: str | None
    addressee: str | None
    others: str | None
    called: tuple[tuple[str, int], ...]


def count_persons(words: Counter[str]) -> dict[str, int]:
    """Pronouns of each person of `PERSONS` among counted words."""
    return {person: sum(words[form] for form in forms if form in words) for person, forms in PERSONS.items()}


def find_person(counts: dict[str, int]) -> str | None:
    """The person that leads with at least `MIN_PRONOUNS`, ahead of all others."""
    (person, first), (_, second) = sorted(counts.items(), key=lambda item: -item[1])[:2]
    return person if first >= MIN_PRONOUNS and first > second else None


def find_voice(counts: dict[str, int], lines: Sequence[str]) -> Voice:
    """Read who speaks to whom off the counts of `count_persons` and the sung lines; for English alone."""
    called = Counter(
        match for line in lines if _MAY_CALL.search(line) for match in _SET_OFF.findall(line.lower())
    )
    return Voice(
        speaker=_leader(counts, ("I", "we")),
        addressee=_leader(counts, ("you",)),
        others=_leader(counts, ("he", "she", "they")),
        called=tuple(sorted(called.items(), key=lambda item: (-item[1], item[0]))),
    )


def _leader(counts: dict[str, int], persons: tuple[str, ...]) -> str | None:
    # The first of equals in the order given.
    person = max(persons, key=lambda name: counts[name])
    return person if counts[person] >= MIN_PRONOUNS else None
