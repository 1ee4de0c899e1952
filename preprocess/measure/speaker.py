"""Who speaks in a song, to whom, and of whom, by its pronouns and by whom it calls."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from preprocess.measure.sung import SungSong
from preprocess.measure.words import PERSONS

MIN_PRONOUNS = 3
"""Fewer pronouns of a person tell nothing."""

_PEOPLE = (
    "baby babe honey darling darlin sweetheart sugar mama mamma momma papa daddy mother father brother brothers sister"
    " sisters son daughter child children friend friends girl girls boy boys lover lovers lady ladies mister doctor"
    " people everybody soldier soldiers lord god jesus savior saviour angel bro homie homies"
)
_ALSO_MINE = "love dear soul lord god heart"
_CALLED_WORDS = frozenset(f"{_PEOPLE} {_ALSO_MINE}".split(" "))
_CALLED = rf"my (?:{_ALSO_MINE.replace(' ', '|')})|(?:my )?(?:{_PEOPLE.replace(' ', '|')})"
# Set off by marks on both sides, or by "oh" before it.
_SET_OFF = re.compile(rf"(?:^|[,;:!?(] ?|\bo,? |\b(?:oh|hey),? )({_CALLED})'?(?=\)?(?:[,;:!?.]|$))")


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


def find_voice(counts: dict[str, int], song: SungSong) -> Voice:
    """Read who speaks to whom off the counts of `count_persons` and a song's lines; for English alone."""
    called: Counter[str] = Counter()
    for line, words in zip(song.lines, song.words_by_line, strict=True):
        if not _CALLED_WORDS.isdisjoint(words):
            found = _SET_OFF.findall(line.lower())
            # Several different ones are a list: "my mother, my father, my friends".
            if len(set(found)) == 1:
                called.update(found)
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
