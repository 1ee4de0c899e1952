"""The main themes of a song, given or found, with the words of its lyrics that show them."""

from __future__ import annotations

import math

from preprocess.measure.song import Measures
from preprocess.measure.structure import STOP_WORDS, find_words
from preprocess.measure.themes import ThemeEvidence, find_evidence, load_lexicon, strongest_words
from preprocess.schema import Song

MAX_THEMES = 3
"""An answer names this many themes at most."""


def main_themes(song: Song, measures: Measures) -> tuple[ThemeEvidence, ...]:
    """The themes given with a song, else those that the lexicon finds; at most `MAX_THEMES`."""
    return given_themes(song, measures) if song.themes else measures.themes[:MAX_THEMES]


def given_themes(song: Song, measures: Measures) -> tuple[ThemeEvidence, ...]:
    """The `MAX_THEMES` themes, of those that a song came with, that show most in its lyrics.

    A theme shows in the words that the lexicon has for it, or in the words of its own name. Names that are a plain
    word or two go before a catalogue's entries ("God, Goodness of").
    """
    sung, is_english = measures.words, measures.structure.is_english
    lexicon = load_lexicon("themes")
    found = find_evidence(song.lyrics, lexicon, keep_weak=True)
    themes = []
    for theme in song.themes:
        # The German "war" does not show the theme "war".
        names = find_words(theme) if is_english or theme.casefold() not in lexicon.about else []
        own = {word: 1 + math.log(sung[word]) for word in names if word in sung and word not in STOP_WORDS}
        words = found.get(theme.casefold(), own)
        themes.append(ThemeEvidence(theme_name(theme), sum(words.values()), strongest_words(words, theme)))
    ranked = sorted(themes, key=lambda theme: (not theme.words, " - " in theme.theme, -theme.score))
    return tuple(ranked[:MAX_THEMES])


def theme_name(theme: str) -> str:
    """A theme's name as it stands in a list in an answer: without the marks that part the list."""
    return theme.replace(", ", " - ").replace(",", " ").replace(" and ", " & ").replace(".", "")
