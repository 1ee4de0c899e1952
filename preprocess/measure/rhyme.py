"""End rhyme in English lyrics: which lines of a stanza rhyme, and in which scheme.

Two lines rhyme where their last words differ and sound alike from the last stressed vowel on (`pronunciation`); a
word repeated is repetition. Half rhymes ("home" and "alone") and rhymes for the eye alone ("love" and "move") do not
count, so what is said is rather too little than too much. What a line has in parentheses, and "yeah", "oh" and the
like at its end, are no part of its last word. A stanza that returns is read once.

A scheme is written in letters: lines of one letter rhyme (or repeat a word that rhymes), all others have letters of
their own. Stanzas are read in parts of four lines, for a verse of 16 lines rhymes in fours or in pairs; one of five or
six lines is also read whole ("AABBA", "AABCCB").
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from preprocess.measure.form import Stanza
from preprocess.measure.pronunciation import rhyme_parts

SCHEMES = ("AABB", "ABAB", "ABCB", "AABA", "ABBA", "AAAA", "AABBA", "AABCCB", "ABABCC")
"""Schemes that have a name of their own. Pairs of lines are "AABB", whatever their number."""

NO_RHYME = "none"
OTHER = "other"

NEAR_LINES = 3
"""A line rhymes with a neighbour when the other line stands at most so many lines away."""

MAX_PAIRS = 6

_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_VOCABLE_WORDS = "ah ay ayy eh hey hoo huh la mm mmm na oh ooh oooh uh whoa woah woo ya yeah yea yo yuh"
_VOCABLES = frozenset(_VOCABLE_WORDS.split(" "))


@dataclass(frozen=True, slots=True)
class Rhyme:
    """How a song rhymes.

    Attributes:
        stanza_schemes: For each different stanza of two lines or more its letters, as in "ABCB"; "-" past the 52nd.
        scheme_counts: Parts of stanzas by their scheme (of `SCHEMES`, or "other", or "none"), the most frequent first.
        scheme: The scheme of at least half of the parts; None when there is no such scheme, or it is "none" or "other".
        num_lines: Lines that were looked at: those of the different stanzas of two lines or more.
        num_rhymed: Of those, the ones that rhyme with a line at most `NEAR_LINES` away.
        pairs: Different pairs of words that rhyme, in the order of their coming up; at most `MAX_PAIRS`.
    """

    stanza_schemes: tuple[str, ...]
    scheme_counts: tuple[tuple[str, int], ...]
    scheme: str | None
    num_lines: int
    num_rhymed: int
    pairs: tuple[tuple[str, str], ...]

    @property
    def num_parts(self) -> int:
        """Parts of stanzas that were read for their scheme."""
        return sum(count for _, count in self.scheme_counts)

    @property
    def num_in_scheme(self) -> int:
        """Parts that are in the leading scheme; 0 without one."""
        return dict(self.scheme_counts).get(self.scheme or "", 0)

    @property
    def rhymed_share(self) -> float:
        """Lines that rhyme among those that were looked at, 0 to 1."""
        return self.num_rhymed / max(1, self.num_lines)


def words_rhyme(first: str, second: str) -> bool:
    """Whether two different case-folded words rhyme."""
    return first != second and not set(rhyme_parts(first)).isdisjoint(rhyme_parts(second))


def last_word(key: str) -> str:
    """The last word of a line, given as words with spaces between, that is more than a vocable; "" without one."""
    words = key.split(" ")
    while len(words) > 1 and words[-1] in _VOCABLES:
        words.pop()
    return words[-1]


def find_rhyme(stanzas: Iterable[Stanza]) -> Rhyme:
    """Read the rhymes of a song in English.

    Args:
        stanzas: Its stanzas, returns included.
    """
    distinct = list(dict.fromkeys(stanza.keys for stanza in stanzas if len(stanza.keys) > 1))
    stanza_schemes: list[str] = []
    counts: Counter[str] = Counter()
    pairs: dict[tuple[str, str], None] = {}
    num_rhymed = 0
    for keys in distinct:
        words = [last_word(key) for key in keys]
        letters, found = _letter(words)
        stanza_schemes.append(letters)
        counts.update(_part_schemes(words, letters))
        num_rhymed += len({line for pair in found for line in pair})
        for first, second in found:
            pairs.setdefault((words[first], words[second]))
    return Rhyme(
        stanza_schemes=tuple(stanza_schemes),
        scheme_counts=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        scheme=_leading(counts),
        num_lines=sum(map(len, distinct)),
        num_rhymed=num_rhymed,
        pairs=tuple(pairs)[:MAX_PAIRS],
    )


def _letter(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The letters of the lines that end in these words, and the pairs of near lines that rhyme.

    A line joins the first group whose sounds, those that all of its words have, it has too. A group of one word alone,
    repeated or not, is no rhyme.
    """
    marks = [-1 - line for line in range(len(words))]
    found: list[tuple[int, int]] = []
    for number, lines in enumerate(_group(words)):
        if len({words[line] for line in lines}) > 1:
            for line in lines:
                marks[line] = number
            found += _near_pairs(words, lines)
    return _name_letters(marks), sorted(found)


def _group(words: Sequence[str]) -> list[list[int]]:
    """The lines that sound alike, none further than `NEAR_LINES` from the one before."""
    groups: list[list[int]] = []
    near: list[tuple[set[str], list[int]]] = []
    for line, word in enumerate(words):
        parts = rhyme_parts(word)
        near = [group for group in near if line - group[1][-1] <= NEAR_LINES]
        for sounds, lines in near:
            if not sounds.isdisjoint(parts):
                sounds.intersection_update(parts)
                lines.append(line)
                break
        else:
            groups.append([line])
            near.append((set(parts), groups[-1]))
    return groups


def _near_pairs(words: Sequence[str], lines: Sequence[int]) -> Iterator[tuple[int, int]]:
    for place, line in enumerate(lines):
        for later in lines[place + 1 : place + 1 + NEAR_LINES]:
            if later - line <= NEAR_LINES and words[later] != words[line]:
                yield line, later


def _name_letters(marks: Sequence[int]) -> str:
    names: dict[int, str] = {}
    for mark in marks:
        names.setdefault(mark, _LETTERS[len(names)] if len(names) < len(_LETTERS) else "-")
    return "".join(names[mark] for mark in marks)


def _part_schemes(words: Sequence[str], letters: str) -> Iterator[str]:
    """The scheme of each part of a stanza."""
    if letters in SCHEMES or len(words) <= 4:
        yield _name_scheme(letters)
        return
    num_fours = len(words) // 4 * 4
    for start in range(0, num_fours, 4):
        yield _name_scheme(_letter(words[start : start + 4])[0])
    if len(words) - num_fours >= 2:
        yield _name_scheme(_letter(words[num_fours:])[0])


def _name_scheme(letters: str) -> str:
    if letters in SCHEMES:
        return letters
    if letters in ("AA", "AABBCC"):
        return "AABB"
    return NO_RHYME if len(set(letters)) == len(letters) else OTHER


def _leading(counts: Counter[str]) -> str | None:
    total = counts.total()
    for scheme in SCHEMES:
        if 2 * counts[scheme] >= max(1, total) and counts[scheme] == max(counts[name] for name in SCHEMES):
            return scheme
    return None
