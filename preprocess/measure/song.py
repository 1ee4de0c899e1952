"""Everything that is measured of a song, in one pass over its words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from preprocess.measure.rhyme import Rhyme, find_rhyme
from preprocess.measure.structure import Structure, structure_of
from preprocess.measure.sung import split_song
from preprocess.measure.themes import ThemeEvidence, moods_of, themes_of


@dataclass(frozen=True, slots=True)
class Measures:
    """What is measured of a song.

    Attributes:
        structure: Its form, lines, words and speaker.
        rhyme: Its rhymes; None for lyrics that are not English.
        themes: Its strongest themes, at most three; none for lyrics that are not English.
        moods: Its strongest moods, at most two; none for lyrics that are not English.
        words: Its words with counts, in order of coming up.
    """

    structure: Structure
    rhyme: Rhyme | None
    themes: tuple[ThemeEvidence, ...]
    moods: tuple[ThemeEvidence, ...]
    words: Counter[str]

    @property
    def is_english(self) -> bool:
        """Whether it was read as English."""
        return self.structure.is_english

    @property
    def num_lines(self) -> int:
        """Lines that are sung."""
        return self.structure.num_lines

    @property
    def num_words(self) -> int:
        """Words that are sung."""
        return self.structure.num_words

    @property
    def num_distinct_words(self) -> int:
        """Different words."""
        return self.structure.num_distinct_words

    @property
    def has_chorus(self) -> bool:
        """Whether it has a chorus, headed or not."""
        return self.structure.has_chorus

    @property
    def rhyme_scheme(self) -> str | None:
        """The leading rhyme scheme as in "AABB", or None."""
        return self.rhyme.scheme if self.rhyme else None

    @property
    def person(self) -> str | None:
        """The leading pronoun, or None."""
        return self.structure.person

    @property
    def theme_names(self) -> tuple[str, ...]:
        """Names of the themes, the strongest first."""
        return tuple(theme.theme for theme in self.themes)

    @property
    def mood(self) -> str | None:
        """Name of the strongest mood, or None."""
        return self.moods[0].theme if self.moods else None


def measure_song(lyrics: str, language: str | None = None) -> Measures:
    """Measure a song once.

    Args:
        lyrics: Cleaned lyrics.
        language: ISO 639 code; None and "und" leave it to the words whether they are English.
    """
    song = split_song(lyrics, language)
    return Measures(
        structure=structure_of(song),
        rhyme=find_rhyme(song.stanzas) if song.is_english else None,
        themes=tuple(themes_of(song, max_themes=3)),
        moods=tuple(moods_of(song, max_moods=2)),
        words=song.words,
    )
