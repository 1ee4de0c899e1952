"""Themes and moods found in lyrics by a lexicon, each with the words that show it.

The lexicons are data (measure/lexicon/*.yaml) and English. German "die" and "war" are not death and war, so lyrics
that `structure.is_english` does not take for English are not read at all, and find nothing; nor do lyrics too bare
to tell. What is found is a claim with its evidence, not a judgement of the song: every word that is named stands in
the lyrics.

A theme's score is Σ share(w) · (1 + ln count(w)) · 100 / √(words · BASE_WORDS), over the different evidence words w:
share(w) is 1 / (number of themes that claim w), the logarithm keeps one word of a chorus from outweighing five
different ones, and the square root is between no normalisation (long songs win) and a plain rate (short ones do).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType

import yaml

from preprocess.measure.sung import SungSong, split_song
from preprocess.measure.words import find_words

BASE_WORDS = 100
"""At this length (words) a score equals the weighted number of evidence words per hundred."""

MIN_WORDS = 2
"""A theme needs this many different evidence words, or `MIN_HITS` occurrences."""

MIN_HITS = 3

_LEXICON_DIR = Path(__file__).parent / "lexicon"
_MIN_STEM = 3


@dataclass(frozen=True, slots=True)
class ThemeEvidence:
    """A theme and what shows it.

    Attributes:
        theme: Name of the theme (or mood).
        score: Strength, comparable between songs of different length; see the module's formula.
        words: Words and phrases of the lyrics that show it, the strongest first, case-folded.
    """

    theme: str
    score: float
    words: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """Which words and phrases show which theme.

    Attributes:
        words: Word → themes that claim it.
        stems: Beginning of a word → themes that claim it.
        phrases: First word of a phrase → (rest of the phrase, theme).
        about: Theme → what it is about, in the lexicon's order.
    """

    words: Mapping[str, tuple[str, ...]]
    stems: Mapping[str, tuple[str, ...]]
    phrases: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]]
    about: Mapping[str, str]

    @cached_property
    def _themes_by_word(self) -> dict[str, tuple[str, ...]]:
        return {}

    def themes_of(self, word: str) -> tuple[str, ...]:
        """The themes that claim a case-folded word, each once."""
        known = self._themes_by_word.get(word)
        if known is None:
            claims = self.words.get(word, ())
            for end in range(_MIN_STEM, len(word) + 1):
                claims += self.stems.get(word[:end], ())
            known = self._themes_by_word[word] = tuple(dict.fromkeys(claims))
        return known

    def phrases_at(self, words: Sequence[str], index: int) -> Iterator[tuple[str, str]]:
        """The phrases that begin at `index`, as (phrase, theme)."""
        for rest, theme in self.phrases.get(words[index], ()):
            if tuple(words[index + 1 : index + 1 + len(rest)]) == rest:
                yield " ".join((words[index], *rest)), theme


@cache
def load_lexicon(name: str) -> Lexicon:
    """Load one of the project's lexicons, "themes" or "moods"."""
    entries = yaml.safe_load((_LEXICON_DIR / f"{name}.yaml").read_text(encoding="utf-8"))
    words: dict[str, tuple[str, ...]] = {}
    stems: dict[str, tuple[str, ...]] = {}
    phrases: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {}
    for theme, entry in entries.items():
        for word in entry["words"].split():
            table, key = (stems, word[:-1]) if word.endswith("*") else (words, word.rstrip("'"))
            table[key] = (*table.get(key, ()), theme)
        for phrase in entry["phrases"]:
            first, *rest = phrase.split()
            phrases[first] = (*phrases.get(first, ()), (tuple(rest), theme))
    about = MappingProxyType({theme: entry["about"] for theme, entry in entries.items()})
    return Lexicon(MappingProxyType(words), MappingProxyType(stems), MappingProxyType(phrases), about)


def find_themes(lyrics: str, max_themes: int = 3) -> list[ThemeEvidence]:
    """The strongest themes of lyrics, strongest first; an empty list when the lexicon finds none."""
    return themes_of(split_song(lyrics), max_themes)


def themes_of(song: SungSong, max_themes: int = 3) -> list[ThemeEvidence]:
    """As `find_themes`, of a song that is split already."""
    return _rank(evidence_of(song, load_lexicon("themes")), song)[:max_themes]


def find_moods(lyrics: str, max_moods: int = 1) -> list[ThemeEvidence]:
    """The strongest moods of lyrics, strongest first, each shown by two different words or more."""
    return moods_of(split_song(lyrics), max_moods)


def moods_of(song: SungSong, max_moods: int = 1) -> list[ThemeEvidence]:
    """As `find_moods`, of a song that is split already."""
    found = evidence_of(song, load_lexicon("moods"))
    return _rank({mood: words for mood, words in found.items() if len(words) > 1}, song)[:max_moods]


Evidence = dict[str, dict[str, float]]
"""Theme → evidence word or phrase → its weight, share · (1 + ln count)."""


def find_evidence(lyrics: str, lexicon: Lexicon, *, keep_weak: bool = False) -> Evidence:
    """Collect for every theme the words and phrases of the lyrics that show it.

    Linear in the length of the lyrics; empty for lyrics that are not English.

    Args:
        lyrics: The lyrics; headings are not read.
        lexicon: Whose words to look for.
        keep_weak: Also give themes with fewer than `MIN_WORDS` words and `MIN_HITS` occurrences.
    """
    return evidence_of(split_song(lyrics), lexicon, keep_weak=keep_weak)


def evidence_of(song: SungSong, lexicon: Lexicon, *, keep_weak: bool = False) -> Evidence:
    """As `find_evidence`, of a song that is split already."""
    if not song.is_english:
        return {}
    words_by_line, counts = song.words_by_line, song.words
    phrases = Counter(
        found
        for words in words_by_line
        for index, word in enumerate(words)
        if word in lexicon.phrases
        for found in lexicon.phrases_at(words, index)
    )
    hits: Counter[str] = Counter()
    evidence: Evidence = {}
    for word, count in counts.items():
        themes = lexicon.themes_of(word)
        for theme in themes:
            evidence.setdefault(theme, {})[word] = (1 + math.log(count)) / len(themes)
            hits[theme] += count
    for (phrase, theme), count in phrases.items():
        evidence.setdefault(theme, {})[phrase] = 1 + math.log(count)
        hits[theme] += count
    return {
        theme: words
        for theme, words in evidence.items()
        if keep_weak or len(words) >= MIN_WORDS or hits[theme] >= MIN_HITS
    }


def _rank(evidence: Evidence, song: SungSong) -> list[ThemeEvidence]:
    scale = 100 / math.sqrt(max(1, song.words.total()) * BASE_WORDS)
    found = [
        ThemeEvidence(theme, round(sum(words.values()) * scale, 4), strongest_words(words, theme))
        for theme, words in evidence.items()
    ]
    return sorted(found, key=lambda item: (-item.score, item.theme))


def strongest_words(words: Mapping[str, float], theme: str) -> tuple[str, ...]:
    """Evidence words from the heaviest to the lightest; of equal ones first the theme's own name, then by alphabet."""
    own = set(find_words(theme))
    return tuple(sorted(words, key=lambda word: (-words[word], word not in own, word)))
