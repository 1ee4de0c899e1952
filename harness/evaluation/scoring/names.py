"""Whole names in a free text: of a closed set, in any usual spelling, never as a part of a word or of a longer name.

A name is found without case, accents and punctuation, with or without "The", with "&" or "and", without its guests
("feat. …"). Names of a script without spaces are found inside a run of letters; Korean ones may carry a particle.
Where two names share a place, the longer one is meant: "Prince Royce" does not name Prince.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from harness.evaluation.scoring.words import UNSPACED, Token, coarse_tokens, fine_tokens, normalise
from preprocess.knowledge import normal_name
from preprocess.measure.words import STOP_WORDS

_GUESTS = re.compile(r"\s*[(\[]?(?<!\w)(?:feat|ft|featuring)\b\.?\s.*$", re.IGNORECASE | re.DOTALL)
_HANGUL = re.compile("[\uac00-\ud7a3]")
_PARTICLES = "(?:이에요|예요|입니다|이다|에게|에서|처럼|같은|은|는|이|가|을|를|의|와|과|도|로)"


@dataclass(frozen=True, slots=True)
class Mention:
    """A name in a text.

    Attributes:
        key: The name as names are compared (`preprocess.knowledge.normal_name`).
        start: Where it begins in the normalised text.
        end: Where it ends.
    """

    key: str
    start: int
    end: int


class NameIndex:
    """The names of a closed set, ready to be looked for.

    Args:
        names: The names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.spelling: dict[str, str] = {}
        self._fine: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._coarse: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for name in sorted(names):
            key = normal_name(name)
            self.spelling.setdefault(key, name)
            self._add(normalise(name), key)

    def _add(self, name: str, key: str) -> None:
        bare = _GUESTS.sub("", name) or name
        if UNSPACED.search(bare) or _HANGUL.search(bare):
            self._patterns.append((_pattern(bare), key))
            return
        for table, tokens in ((self._fine, fine_tokens(bare)), (self._coarse, coarse_tokens(bare))):
            words = tuple(token.text for token in tokens)
            forms = {words, words[1:]} if words[:1] == ("the",) else {words}
            for form in forms:
                if form and (form == words or " ".join(form) not in STOP_WORDS):
                    table.setdefault(form[0], []).append((form, key))

    def find(self, text: str) -> list[Mention]:
        """The mentions in a normalised text, in order; of those that overlap, the longest."""
        found = [*_find_forms(fine_tokens(text), self._fine), *_find_forms(coarse_tokens(text), self._coarse)]
        for pattern, key in self._patterns:
            found += [Mention(key, *match.span(1)) for match in pattern.finditer(text)]
        return longest(found)


def longest(mentions: Collection[Mention]) -> list[Mention]:
    """Those that no longer one overlaps, in order."""
    taken = bytearray(max((mention.end for mention in mentions), default=0))
    kept: list[Mention] = []
    for mention in sorted(mentions, key=lambda found: (found.start - found.end, found.start, found.key)):
        if not any(taken[mention.start : mention.end]):
            taken[mention.start : mention.end] = b"\1" * (mention.end - mention.start)
            kept.append(mention)
    return sorted(kept, key=lambda found: found.start)


def _find_forms(
    tokens: list[Token], table: dict[str, list[tuple[tuple[str, ...], str]]]
) -> Iterator[Mention]:
    for place, token in enumerate(tokens):
        for form, key in table.get(token.text, ()):
            run = tokens[place : place + len(form)]
            if tuple(part.text for part in run) == form:
                yield Mention(key, token.start, run[-1].end)


def _pattern(name: str) -> re.Pattern[str]:
    """A name without spaces between its letters; of Korean ones a particle may follow, nothing else."""
    letters = r"[\s\u30fb\u00b7]*".join(re.escape(letter) for letter in name if not letter.isspace())
    if UNSPACED.search(name):
        return re.compile(f"({letters})", re.IGNORECASE)
    return re.compile(rf"(?<!\w)({letters})(?={_PARTICLES}?(?!\w))", re.IGNORECASE)


@lru_cache(maxsize=64)
def index_names(names: frozenset[str]) -> NameIndex:
    """The index of a closed set, made once."""
    return NameIndex(names)
