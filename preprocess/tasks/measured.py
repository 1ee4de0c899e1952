"""What is measured of a song."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from preprocess.measure.structure import Structure, find_words, measure_structure, sung_lines
from preprocess.measure.themes import ThemeEvidence, find_moods, find_themes


@dataclass(frozen=True, slots=True)
class Measures:
    """Placeholder until measure_song."""

    structure: Structure
    words: Counter[str]
    themes: tuple[ThemeEvidence, ...]
    moods: tuple[ThemeEvidence, ...]


def measure_song(lyrics: str, language: str | None = None) -> Measures:
    """Measure."""
    return Measures(
        measure_structure(lyrics),
        Counter(word for line in sung_lines(lyrics) for word in find_words(line)),
        tuple(find_themes(lyrics)),
        tuple(find_moods(lyrics)),
    )
