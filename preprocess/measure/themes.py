"""Themes and moods found in lyrics by a lexicon, each with the words that show it.

The lexicons are English. German "die" and "war" are not death and war, so lyrics that are not read as English find
nothing; nor do lyrics too bare to tell. What is found is a claim with its evidence, not a judgement of the song: every
word that is named stands in the lyrics.

A theme's score is the sum of the weights of its evidence (`evidence`) · 100 / √(words · BASE_WORDS): the square root
is between no normalisation (long songs win) and a plain rate (short ones do).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from preprocess.measure.evidence import Evidence, evidence_of, find_evidence
from preprocess.measure.lexicons import Lexicon, load_lexicon
from preprocess.measure.sung import SungSong, split_song
from preprocess.measure.words import find_words

__all__ = [
    "Evidence",
    "Lexicon",
    "ThemeEvidence",
    "find_evidence",
    "find_moods",
    "find_themes",
    "load_lexicon",
    "moods_of",
    "strongest_words",
    "themes_of",
]

BASE_WORDS = 100
"""At this length (words) a score equals the weighted number of evidence words per hundred."""

CLEAR_SCORE = 1.75
STRONG_SCORE = 2.65
"""A third of the leading moods of hymns and of made-up songs lies below the first, a third above the second."""


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

    @property
    def intensity(self) -> Literal["faint", "clear", "strong"]:
        """How much of the song shows it: below `CLEAR_SCORE`, below `STRONG_SCORE`, or above."""
        if self.score < CLEAR_SCORE:
            return "faint"
        return "clear" if self.score < STRONG_SCORE else "strong"


def find_themes(lyrics: str, max_themes: int = 3) -> list[ThemeEvidence]:
    """The strongest themes of lyrics, strongest first; an empty list when the lexicon finds none."""
    return themes_of(split_song(lyrics), max_themes)


def themes_of(song: SungSong, max_themes: int = 3) -> list[ThemeEvidence]:
    """As `find_themes`, of a song that is split already."""
    return _rank(evidence_of(song, load_lexicon("themes")), song, max_themes)


def find_moods(lyrics: str, max_moods: int = 1) -> list[ThemeEvidence]:
    """The strongest moods of lyrics, strongest first, each shown by two different words or more."""
    return moods_of(split_song(lyrics), max_moods)


def moods_of(song: SungSong, max_moods: int = 1) -> list[ThemeEvidence]:
    """As `find_moods`, of a song that is split already."""
    found = evidence_of(song, load_lexicon("moods"))
    return _rank({mood: words for mood, words in found.items() if len(words) > 1}, song, max_moods)


def _rank(evidence: Evidence, song: SungSong, most: int) -> list[ThemeEvidence]:
    scale = 100 / math.sqrt(max(1, song.words.total()) * BASE_WORDS)
    scores = {theme: round(sum(words.values()) * scale, 4) for theme, words in evidence.items()}
    best = sorted(scores, key=lambda theme: (-scores[theme], theme))[:most]
    return [ThemeEvidence(theme, scores[theme], strongest_words(evidence[theme], theme)) for theme in best]


def strongest_words(words: Mapping[str, float], theme: str) -> tuple[str, ...]:
    """Evidence words from the heaviest to the lightest; of equal ones first the theme's own name, then by alphabet."""
    own = set(find_words(theme))
    return tuple(sorted(words, key=lambda word: (-words[word], word not in own, word)))
