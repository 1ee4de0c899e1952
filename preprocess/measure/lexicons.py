"""The lexicons: which words and phrases show which theme or mood. They are data, in measure/lexicon/*.yaml.

The head of themes.yaml documents the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

_LEXICON_DIR = Path(__file__).parent / "lexicon"
_MIN_STEM = 3
_MAX_KNOWN = 50_000

WEAK_WEIGHT = 0.5
"""What a weak word counts, of a strong one."""


class Claim(NamedTuple):
    """A theme that a word shows.

    Attributes:
        theme: Name of the theme.
        weight: 1 for a strong word, `WEAK_WEIGHT` for a weak one, divided by the themes that claim the word.
        is_weak: Whether it counts in company alone.
        is_secular: Whether it does not count in a religious song.
    """

    theme: str
    weight: float
    is_weak: bool
    is_secular: bool


class Phrase(NamedTuple):
    """What words in this order say.

    Attributes:
        rest: The words after the first two.
        theme: The theme.
        excluded: Words of the phrase that do not count for the theme where they stand in it; empty for a phrase that
            shows the theme.
    """

    rest: tuple[str, ...]
    theme: str
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """Which words and phrases show which theme.

    Attributes:
        words: Word → its claims.
        stems: Beginning of a word → its claims.
        phrases: First word of a phrase → its second word → the phrases.
        about: Theme → what it is about, in the lexicon's order.
        sacred: The themes of religious songs.
        needs: Theme → different words and phrases that it needs, where it needs more than others.
        deniable: The themes whose words do not count after a negation.
        known: The claims on words met lately.
    """

    words: dict[str, tuple[Claim, ...]]
    stems: dict[str, tuple[Claim, ...]]
    phrases: dict[str, dict[str, tuple[Phrase, ...]]]
    about: Mapping[str, str]
    sacred: frozenset[str]
    needs: Mapping[str, int]
    deniable: frozenset[str] = frozenset()
    known: dict[str, tuple[Claim, ...]] = field(default_factory=dict, repr=False, compare=False)

    def claims_of(self, word: str) -> tuple[Claim, ...]:
        """The claims on a case-folded word, one a theme, the weights shared out."""
        known = self.known.get(word)
        if known is None:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            known = self.known[word] = self._find_claims(word)
        return known

    def themes_of(self, word: str) -> tuple[str, ...]:
        """The themes that claim a case-folded word, each once."""
        return tuple(claim.theme for claim in self.claims_of(word))

    def _find_claims(self, word: str) -> tuple[Claim, ...]:
        claims = list(self.words.get(word, ()))
        for end in range(_MIN_STEM, len(word) + 1):
            claims += self.stems.get(word[:end], ())
        by_theme: dict[str, Claim] = {}
        for claim in claims:
            by_theme.setdefault(claim.theme, claim)
        return tuple(claim._replace(weight=claim.weight / len(by_theme)) for claim in by_theme.values())


@cache
def load_lexicon(name: str) -> Lexicon:
    """Load one of the project's lexicons, "themes" or "moods"."""
    return read_lexicon((_LEXICON_DIR / f"{name}.yaml").read_text(encoding="utf-8"))


def read_lexicon(text: str) -> Lexicon:
    """Read a lexicon.

    Args:
        text: YAML in the format of themes.yaml.
    """
    entries = yaml.safe_load(text)
    words: dict[str, tuple[Claim, ...]] = {}
    stems: dict[str, tuple[Claim, ...]] = {}
    phrases: dict[str, dict[str, tuple[Phrase, ...]]] = {}
    for theme, entry in entries.items():
        own: dict[str, Claim] = {}
        secular = frozenset(entry.get("secular", "").split())
        for weight, is_weak in ((1.0, False), (WEAK_WEIGHT, True)):
            for word in entry.get("weak" if is_weak else "words", "").split():
                own[word] = Claim(theme, weight, is_weak, word in secular)
        for word, claim in own.items():
            table, key = (stems, word[:-1]) if word.endswith("*") else (words, word)
            table[key] = (*table.get(key, ()), claim)
        for first, second, phrase in _read_phrases(theme, entry, own):
            after = phrases.setdefault(first, {})
            after[second] = (*after.get(second, ()), phrase)
    return Lexicon(
        words,
        stems,
        phrases,
        MappingProxyType({theme: entry["about"] for theme, entry in entries.items()}),
        frozenset(theme for theme, entry in entries.items() if entry.get("sacred")),
        MappingProxyType({theme: entry["needs"] for theme, entry in entries.items() if "needs" in entry}),
        frozenset(theme for theme, entry in entries.items() if entry.get("deniable")),
    )


def _read_phrases(
    theme: str, entry: Mapping[str, list[str]], own: Mapping[str, Claim]
) -> Iterator[tuple[str, str, Phrase]]:
    for phrase in entry.get("phrases", []):
        first, second, *rest = phrase.split()
        yield first, second, Phrase(tuple(rest), theme, ())
    stems = tuple(word[:-1] for word in own if word.endswith("*"))
    for phrase in entry.get("not", []):
        first, second, *rest = phrase.split()
        excluded = tuple(word for word in phrase.split() if word in own or (stems and word.startswith(stems)))
        yield first, second, Phrase(tuple(rest), theme, excluded)
