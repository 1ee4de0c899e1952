"""Sentences that say what was counted in a song. Each is true of the lyrics, and can be checked by counting.

A clause is the end of a sentence whose subject is the song, as in 'repeats the line "…" 4 times'. A clause whose fact
a song lacks is None.
"""

from __future__ import annotations

from collections.abc import Sequence

from preprocess.measure.structure import Structure
from preprocess.measure.themes import ThemeEvidence

_MAX_QUOTED_CHARS = 60


def join(parts: Sequence[str]) -> str:
    """A list in words: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def quote(text: str) -> str:
    """A word or line in quotation marks."""
    return f'"{text}"'


def times(count: int) -> str:
    """How often: "once", "twice", "3 times"."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 line", "2 lines"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def sections_clause(structure: Structure) -> str | None:
    """Verses and choruses where they are headed, else stanzas."""
    parts = [plural(structure.num_verses, "verse")] if structure.num_verses else []
    if structure.num_choruses:
        parts.append(f"a chorus that comes {times(structure.num_choruses)}")
    elif parts:
        parts.append("no chorus")
    if parts:
        return f"has {join(parts)}"
    if structure.num_stanzas < 2:
        return None
    returning = structure.num_stanza_repeats
    tail = f", one of which comes {times(returning)}" if returning > 1 else ""
    return f"has {plural(structure.num_stanzas, 'stanza')}{tail}"


def line_clause(structure: Structure) -> str | None:
    """The line that returns most often, when it is short enough to be quoted."""
    if structure.repeated_line is None:
        return None
    line, count = structure.repeated_line
    if len(line) > _MAX_QUOTED_CHARS or '"' in line:
        return None
    return f"sings the line {quote(line.rstrip('.,;:!?'))} {times(count)}"


def words_clause(structure: Structure) -> str | None:
    """The one or two most frequent telling words."""
    told = [f"{quote(word)} {times(count)}" for word, count in structure.frequent_words[:2]]
    return f"sings {join(told)}" if told else None


def person_clause(structure: Structure) -> str | None:
    """Whose pronouns are the most frequent."""
    if structure.person is None:
        return None
    preposition = {"I": "as", "we": "as", "you": "to"}.get(structure.person, "of")
    return f"speaks most {preposition} {quote(structure.person)}"


def length_clause(structure: Structure) -> str | None:
    """How long the lines are."""
    if structure.num_lines < 2:
        return None
    return f"has {structure.num_lines} lines of about {plural(round(structure.words_per_line), 'word')}"


def themes_in_words(themes: Sequence[ThemeEvidence], num_words: int) -> str:
    """Themes each with its words: 'love ("kiss", "heart") and home ("house")'."""
    return join([_theme_in_words(theme, num_words) for theme in themes])


def _theme_in_words(theme: ThemeEvidence, num_words: int) -> str:
    words = ", ".join(quote(word) for word in theme.words[:num_words])
    return f"{theme.theme} ({words})" if words else theme.theme
