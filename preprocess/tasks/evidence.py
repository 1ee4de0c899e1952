"""Sentences that say what was counted in a song or in the corpus. Each is true, and can be checked by counting again.

A sentence whose fact a song lacks is None. "Counted" songs are those of the training corpus.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from preprocess.measure.song import Measures
from preprocess.measure.structure import PERSONS, Structure
from preprocess.measure.themes import ThemeEvidence

FEW_SONGS = 50
"""Of fewer songs their number is told, not a percentage."""

_MAX_QUOTED_CHARS = 60

# Thai and Lao, kana, ideographs: scripts that put no spaces between words, so that a line would count as one.
_SPACELESS = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def join(parts: Sequence[str]) -> str:
    """A list in words: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def quote(text: str) -> str:
    """A word, line or title in quotation marks."""
    return '"{}"'.format(text.replace('"', "'"))


def times(count: int) -> str:
    """How often: "once", "twice", "3 times"."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 line", "2 lines", "3 choruses"."""
    if count == 1:
        return f"{count} {noun}"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def percent(count: int, total: int) -> str:
    """A share as in "12%" or, below 2%, "1.4%"; the number of songs, "3", where they are few."""
    if total < FEW_SONGS:
        return str(count)
    share = 100 * count / total
    return f"{share:.0f}%" if share >= 2 else f"{share:.1f}%"


def has_words(measures: Measures) -> bool:
    """Whether spaces part the song's words, so that they can be counted and quoted."""
    spaceless = sum(count for word, count in measures.words.items() if _SPACELESS.search(word))
    return 2 * spaceless < measures.structure.num_words


def line_sentence(structure: Structure) -> str | None:
    """The line that returns most often, when it is short enough to be quoted."""
    if structure.repeated_line is None:
        return None
    line, count = structure.repeated_line
    if len(line) > _MAX_QUOTED_CHARS or '"' in line:
        return None
    return f"The line {quote(line.rstrip('.,;:!?'))} comes {times(count)}."


def refrain_sentence(structure: Structure) -> str | None:
    """The line that ends or begins several different stanzas."""
    form = structure.form
    if form.refrain is None or len(form.refrain) > _MAX_QUOTED_CHARS or '"' in form.refrain:
        return None
    place = "ends" if form.refrain_place == "last" else "begins"
    return f"The line {quote(form.refrain.rstrip('.,;:!?'))} {place} {form.num_refrains} different stanzas."


def opening_sentence(structure: Structure) -> str | None:
    """The words with which several different lines begin."""
    if structure.anaphora is None:
        return None
    opening, count = structure.anaphora
    return f"{count} different lines begin with {quote(opening)}."


def words_sentence(structure: Structure) -> str | None:
    """The one or two most frequent telling words."""
    told = [f"{quote(word)} {times(count)}" for word, count in structure.frequent_words[:2]]
    return f"The song sings {join(told)}." if told else None


def length_sentence(structure: Structure) -> str | None:
    """How long the lines are."""
    if structure.num_lines < 2:
        return None
    return f"The song has {structure.num_lines} lines of {structure.words_per_line:.1f} words on average."


def themes_in_words(themes: Sequence[ThemeEvidence], num_words: int) -> str:
    """Themes each with its words: 'love ("kiss", "heart") and home ("house")'."""
    return join([_theme_in_words(theme, num_words) for theme in themes])


def _theme_in_words(theme: ThemeEvidence, num_words: int) -> str:
    words = ", ".join(quote(word) for word in theme.words[:num_words])
    return f"{theme.theme} ({words})" if words else theme.theme


def person_sentence(measures: Measures) -> str | None:
    """Whose pronouns are the most frequent, and how many there are of them."""
    person = measures.structure.person
    if person is None:
        return None
    count = sum(measures.words[form] for form in PERSONS[person])
    return f"The leading pronoun is {quote(person)}: it comes {times(count)} with its forms."


def sentences_about(measures: Measures) -> list[str]:
    """What can be said of any song, where it is so: its leading pronoun, its refrain, its lines and words."""
    structure = measures.structure
    found = [
        person_sentence(measures),
        refrain_sentence(structure) or line_sentence(structure),
    ]
    if has_words(measures):
        found += [opening_sentence(structure), words_sentence(structure), length_sentence(structure)]
    return [sentence for sentence in found if sentence]
