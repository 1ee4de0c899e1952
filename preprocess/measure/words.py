"""The words of lyrics: where they begin and end, which tell nothing, and whether they are English."""

from __future__ import annotations

import re
from collections import Counter


def _split(words: str) -> frozenset[str]:
    return frozenset(words.split())


PERSONS: dict[str, frozenset[str]] = {
    "I": _split("i me my mine myself i'm i've i'll i'd"),
    "you": _split("you your yours yourself you're you've you'll you'd ya thou thee thy thine ye u ur"),
    "we": _split("we us our ours ourselves we're we've we'll we'd"),
    "he": _split("he him his himself he's he'll he'd"),
    "she": _split("she her hers herself she's she'll she'd"),
    "they": _split("they them their theirs themselves they're they've they'll they'd"),
}
"""English pronouns under the one that stands for them."""

STOP_WORDS = frozenset().union(*PERSONS.values()) | _split(
    """a about above after again against ah ain't all am an and another any are aren't around as at away back be
    because been before being below between both but by can can't cannot cause come comes could couldn't did
    didn't do does doesn't doing don't done down each ev'n ev'ry even ever every few for from further get gets
    getting go goes going gonna gone got gotta had hadn't has hasn't hath doth have haven't having hear here hey
    how if in into is isn't it it's its just keep know la let let's like made make makes many may might more
    most much must na never no nor not now o of off oh on once one only onto ooh or other out over own put said
    same saw say says see shall shalt should so some still such take tell than that that's the then there
    there's these thing things think this those though through til till to too under until unto up upon uh very
    wanna want wants was wasn't way were weren't what what's when where where's which while who whom who's why
    will wilt with won't would wouldn't yeah yes yet yo tis"""
)
"""English words too common to tell anything about a song."""

_ENGLISH_WORDS = _split(
    """again ain't are away been before below both but can't could didn't don't down every ev'ry from hath have he's
    hear here him his how i'd i'll i'm i've into it it's its just know let never nobody not nothing oh only our out
    gonna gotta wanna shall she she's should some than that that's the their them then there there's these they
    this those thou through thee thy two until up upon us we're what when where which who with won't would yeah yes
    you you're your and above"""
)
# Words that hardly another language of Europe has: "die" and "war" are German, "me" Spanish, "i", "my" and "to" Polish.

_SHARED_WORDS = _split("a all as at be by for he i if in is me my no of on so to was we will")
# English words that other languages have too: they only add to a text that has some of the above.

MIN_ENGLISH_SHARE = 0.1
"""Lyrics count as English when this share of their words are function words that English alone has; half of it is
enough where these and the words that English shares with others come to `MIN_COMMON_SHARE`."""

MIN_COMMON_SHARE = 0.25

# Letters of any script, with the combining marks that Python's \w leaves out (Hebrew, Arabic, Indic, Thai).
_LETTER = (
    r"[^\W\d_\u0300-\u036f]"
    r"[^\W\d_]*(?:[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0903\u093a-\u0dff\u0e31-\u0e4e\u200c]"
    r"[^\W\d_]*)*"
)
_WORD = re.compile(rf"{_LETTER}(?:'{_LETTER})*")
_ASCII_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\u2018": "'", "`": "'"})


def find_words(text: str) -> list[str]:
    """The words of a text in order, case-folded, with straight apostrophes; numbers are no words."""
    if not text.isascii():
        # Curly apostrophes are most often all that is not ASCII.
        text = text.translate(_APOSTROPHES)
        if not text.isascii():
            return _WORD.findall(text.casefold())
    return _ASCII_WORD.findall(text.lower())


def is_english(words: Counter[str]) -> bool:
    """Whether lyrics, given as counted words, read as English by their share of function words."""
    total = max(1, words.total())
    count = words.__getitem__
    own = sum(map(count, words.keys() & _ENGLISH_WORDS))
    if own >= MIN_ENGLISH_SHARE * total:
        return True
    shared = sum(map(count, words.keys() & _SHARED_WORDS))
    return own >= MIN_ENGLISH_SHARE / 2 * total and own + shared >= MIN_COMMON_SHARE * total
