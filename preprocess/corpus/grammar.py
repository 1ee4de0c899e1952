"""Line templates: pronouns and verbs that agree with a singer's person, and slots for a singer's own words.

A template is written in lower case, from the singer's mouth, with marks in braces::

    {I} {walk} down to {PLACE} with {A:THING} in {my} hand

`{I}`, `{me}`, `{my}` … is whoever the song is about; `{thou}`, `{thee}`, `{thy}` … is the other one. Which
pronouns they become is a matter of the artist's person: an artist who sings of "she" gets "she walks … in her
hand". Any other lower-case word is a present-tense verb that agrees with `{I}`, and `{heart^}` is a noun that goes
plural with "we". Capitals are slots, filled from the artist's lexicon; `{A:THING}` brings its article. `{NAME}` and
`{TOWN}` keep one filling for a whole song.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Person = Literal["I", "you", "we", "she", "he"]
Lexicon = dict[str, tuple[str, ...]]

SONG_SLOTS = {"NAME": "@N@", "TOWN": "@T@"}
"""Slots with one filling a song, and the mark that stands for them until the song is finished."""

_MARK = re.compile(r"\{([^}]+)\}")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_PRONOUNS: dict[str, tuple[str, ...]] = {
    # I, me, my, mine, myself, I'm, I've, I'll, I'd, am, was
    "I": ("I", "me", "my", "mine", "myself", "I'm", "I've", "I'll", "I'd", "am", "was"),
    "you": ("you", "you", "your", "yours", "yourself", "you're", "you've", "you'll", "you'd", "are", "were"),
    "we": ("we", "us", "our", "ours", "ourselves", "we're", "we've", "we'll", "we'd", "are", "were"),
    "she": ("she", "her", "her", "hers", "herself", "she's", "she's", "she'll", "she'd", "is", "was"),
    "he": ("he", "him", "his", "his", "himself", "he's", "he's", "he'll", "he'd", "is", "was"),
}
_FIRST_MARKS = _PRONOUNS["I"]
_SECOND_MARKS = (
    "thou",
    "thee",
    "thy",
    "thine",
    "thyself",
    "thou're",
    "thou've",
    "thou'll",
    "thou'd",
    "art",
    "wast",
)
_IRREGULAR = {"have": "has", "don't": "doesn't", "haven't": "hasn't", "do": "does", "go": "goes"}

_SMALL_WORDS = frozenset(
    {"a", "an", "and", "at", "by", "for", "from", "in", "into", "like", "of", "on", "or"}
)
_SMALL_WORDS |= {"than", "the", "to", "with"}


@dataclass(frozen=True, slots=True)
class Line:
    """A template made ready for one artist.

    Attributes:
        text: The line with one "%s" a slot, in order.
        pools: Fillings of each slot.
        end: Last word, lower case; it carries the rhyme.
    """

    text: str
    pools: tuple[tuple[str, ...], ...]
    end: str


def add_article(noun: str) -> str:
    """Put "a" or "an" before a noun, by its sound."""
    silent_or_vowel = noun[0] in "aeiou" and not re.match(r"(uni|use|eu|one)", noun)
    return f"{'an' if silent_or_vowel or re.match(r'(hour|heir|honest)', noun) else 'a'} {noun}"


def conjugate(verb: str, person: Person) -> str:
    """The present tense of `verb` for a person: "carry" with "she" gives "carries"."""
    if person not in ("she", "he"):
        return verb
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if re.search(r"(s|sh|ch|x|z|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def inflect(mark: str, person: Person, other: Person) -> str:
    """Turn a lower-case mark into the word for this person.

    Args:
        mark: What stands between the braces.
        person: Whom the song is about.
        other: Whom `{thou}` stands for.
    """
    if mark in _FIRST_MARKS:
        return _PRONOUNS[person][_FIRST_MARKS.index(mark)]
    if mark in _SECOND_MARKS:
        return _PRONOUNS[other][_SECOND_MARKS.index(mark)]
    if mark.endswith("^"):
        return mark[:-1] + ("s" if person == "we" else "")
    return conjugate(mark, person)


def find_stems(text: str) -> frozenset[str]:
    """Content words of a phrase without their plural s, to see whether two phrases share a noun."""
    return frozenset(word.rstrip("s") for word in _WORD.findall(text.lower()) if len(word) > 3)


def find_end(text: str) -> str:
    """Last word of a line, without what stands in parentheses."""
    words = re.findall(r"[a-z]+(?:'[a-z]+)?", re.sub(r"\(.*?\)", "", text.lower()))
    return words[-1] if words else ""


def compile_line(template: str, person: Person, other: Person, lexicon: Lexicon) -> Line:
    """Make a template ready for an artist.

    A filling that would repeat a word of the line, or that shares a word with the fillings of another slot of the
    line, is left out as long as two others remain.

    Args:
        template: The line with its marks.
        person: The artist's person.
        other: Whom `{thou}` stands for.
        lexicon: Fillings of each slot: PLACE, THING, THINGS, SKY, ADJ.
    """
    slots: list[str] = []

    def replace(match: re.Match[str]) -> str:
        mark = match[1]
        if mark in SONG_SLOTS:
            return SONG_SLOTS[mark]
        if mark.removeprefix("A:") in lexicon:
            slots.append(mark)
            return "%s"
        return inflect(mark, person, other)

    text = _MARK.sub(replace, template)
    taken, seen = find_stems(text), dict[str, frozenset[str]]()
    pools = []
    for slot in slots:
        kind = slot.removeprefix("A:")
        others = taken.union(*(stems for name, stems in seen.items() if name != kind))
        words = tuple(word for word in lexicon[kind] if not find_stems(word) & others)
        words = words if len(words) > 1 else lexicon[kind]
        seen[kind] = frozenset().union(*map(find_stems, words))
        pools.append(tuple(map(add_article, words)) if slot.startswith("A:") else words)
    return Line(text, tuple(pools), find_end(text))


def split_line(template: str) -> list[str]:
    """Cut a template of six words or more in two, at its first comma or before a joining word near its middle."""
    words = template.split()
    if len(words) < 6:
        return [template]
    joints = [i for i in range(3, len(words) - 2) if words[i - 1].endswith(",")]
    if not joints:
        small = {
            "and",
            "but",
            "when",
            "where",
            "with",
            "like",
            "till",
            "in",
            "on",
            "at",
            "of",
            "to",
            "from",
            "for",
            "by",
        }
        joints = [i for i in range(3, len(words) - 2) if words[i] in small]
    if not joints:
        return [template]
    cut = min(joints, key=lambda i: abs(2 * i - len(words)))
    return [" ".join(words[:cut]).rstrip(","), " ".join(words[cut:])]


def capitalize_line(text: str) -> str:
    """Raise the first letter and nothing else."""
    return text[0].upper() + text[1:]


def capitalize_title(text: str) -> str:
    """Raise the first letter of every word but the small ones."""
    words = text.split()
    last = len(words) - 1
    return " ".join(
        word if 0 < i < last and word in _SMALL_WORDS else capitalize_line(word)
        for i, word in enumerate(words)
    )
