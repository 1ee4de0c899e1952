"""What can be counted in lyrics: sections, lines, repetitions, words, the person that speaks.

Everything here is a fact about the text and can be checked by counting again; nothing is interpreted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from preprocess.measure.form import Form, find_form
from preprocess.measure.sections import CHORUS_KINDS, Section, split_sections, sung_lines
from preprocess.measure.speaker import Voice, count_persons, find_person, find_voice
from preprocess.measure.sung import SungSong, split_song
from preprocess.measure.vocabulary import find_frequent_words, moving_average_type_ratio
from preprocess.measure.words import PERSONS, STOP_WORDS, find_words, is_english

__all__ = [
    "PERSONS",
    "STOP_WORDS",
    "Section",
    "Structure",
    "find_words",
    "is_english",
    "measure_structure",
    "split_sections",
    "structure_of",
    "sung_lines",
]

MIN_ANAPHORA_LINES = 3
"""So many different lines that begin alike are worth telling."""

_QUESTION_MARK = re.compile("[?\uff1f\u061f]")


@dataclass(frozen=True, slots=True)
class Structure:
    """The counts of one song.

    Attributes:
        num_verses: Sections headed as a verse; 0 when no section is headed.
        num_choruses: Sections headed as a chorus (each return counts); 0 when no section is headed.
        is_english: Whether the words are English enough to be read as such.
        num_stanzas: Sections of any kind that have lines; each return counts.
        num_distinct_stanzas: Of those, the ones that differ (`form`).
        num_stanza_repeats: How often the most repeated stanza occurs, word for word but for what is in
            parentheses (at least 1 if there is any).
        section_counts: What the headings call the sections ("verse", "pre-chorus", "bridge", …), in the order of
            their coming up, with counts.
        form: Its letters, chorus and refrain.
        num_lines: Lines that are sung.
        num_repeated_lines: Lines that came before, word for word.
        num_questions: Lines with a question mark.
        line_lengths: Words of the shortest, the median (the lower of two) and the longest line; zeros without lines.
        num_words: Words that are sung.
        num_distinct_words: Different words among them.
        richness: Moving-average type-token ratio, 0 to 1 (`vocabulary`); None for lyrics of fewer than 50 words.
        repeated_line: The line that occurs most often, as first written, and its count; None when none returns.
        anaphora: The words with which most lines begin that begin alike, at least two, and the number of these lines
            (different ones, at least `MIN_ANAPHORA_LINES`); None without any.
        person: "I", "you", "we", "he", "she" or "they": whose pronouns are the most frequent; None without a clear
            leader of at least three, and for lyrics that are not English.
        voice: Who speaks to whom; None for lyrics that are not English.
        frequent_words: Words outside `STOP_WORDS` that occur at least twice, most frequent first, with counts.
    """

    num_verses: int
    num_choruses: int
    is_english: bool
    num_stanzas: int
    num_distinct_stanzas: int
    num_stanza_repeats: int
    section_counts: tuple[tuple[str, int], ...]
    form: Form
    num_lines: int
    num_repeated_lines: int
    num_questions: int
    line_lengths: tuple[int, int, int]
    num_words: int
    num_distinct_words: int
    richness: float | None
    repeated_line: tuple[str, int] | None
    anaphora: tuple[str, int] | None
    person: str | None
    voice: Voice | None
    frequent_words: tuple[tuple[str, int], ...]

    @property
    def type_token_ratio(self) -> float:
        """Different words per word, 0 to 1."""
        return self.num_distinct_words / max(1, self.num_words)

    @property
    def words_per_line(self) -> float:
        """Mean number of words in a line."""
        return self.num_words / max(1, self.num_lines)

    @property
    def has_chorus(self) -> bool:
        """Whether a section is headed as a chorus, or, without such headings, a stanza returns among others."""
        return self.form.num_choruses > 0


def measure_structure(lyrics: str, language: str | None = None) -> Structure:
    """Count what a song consists of, in time linear in its length.

    Args:
        lyrics: Cleaned lyrics.
        language: ISO 639 code when it is known; see `split_song`.
    """
    return structure_of(split_song(lyrics, language))


def structure_of(song: SungSong) -> Structure:
    """As `measure_structure`, of a song that is split already."""
    kinds = Counter(stanza.kind for stanza in song.stanzas if stanza.kind)
    sung = [stanza for stanza in song.stanzas if stanza.lines]
    keys = list(map(" ".join, song.words_by_line))
    counts = Counter(keys)
    form = find_form(song.stanzas)
    persons = count_persons(song.words) if song.is_english else None
    return Structure(
        num_verses=kinds["verse"],
        num_choruses=next((kinds[kind] for kind in CHORUS_KINDS if kind in kinds), 0),
        is_english=song.is_english,
        num_stanzas=len(sung),
        num_distinct_stanzas=form.num_distinct_stanzas,
        num_stanza_repeats=max(Counter(stanza.keys for stanza in sung).values(), default=0),
        section_counts=tuple(kinds.items()),
        form=form,
        num_lines=len(song.lines),
        num_repeated_lines=len(keys) - len(counts),
        num_questions=sum(map(bool, map(_QUESTION_MARK.search, song.lines))),
        line_lengths=_line_lengths(song.words_by_line),
        num_words=song.words.total(),
        num_distinct_words=len(song.words),
        richness=moving_average_type_ratio([word for words in song.words_by_line for word in words]),
        repeated_line=_find_repeated_line(song, keys, counts),
        anaphora=_find_anaphora(counts),
        person=None if persons is None else find_person(persons),
        voice=None if persons is None else find_voice(persons, song),
        frequent_words=find_frequent_words(song.words),
    )


def _line_lengths(words_by_line: Sequence[list[str]]) -> tuple[int, int, int]:
    lengths = sorted(map(len, words_by_line))
    return (lengths[0], lengths[(len(lengths) - 1) // 2], lengths[-1]) if lengths else (0, 0, 0)


def _find_repeated_line(song: SungSong, keys: Sequence[str], counts: Counter[str]) -> tuple[str, int] | None:
    key, count = max(
        ((key, count) for key, count in counts.items() if count > 1 and key.count(" ") > 1),
        key=lambda item: item[1],
        default=("", 0),
    )
    return (song.lines[keys.index(key)], count) if count else None


def _find_anaphora(lines: Iterable[str]) -> tuple[str, int] | None:
    """Of different lines, given as words with spaces, those that begin with the same two words or more."""
    by_opening: dict[str, list[str]] = {}
    for line in lines:
        first, _, rest = line.partition(" ")
        second, _, _ = rest.partition(" ")
        if second:
            by_opening.setdefault(f"{first} {second}", []).append(line)
    alike = max(by_opening.values(), key=len, default=[])
    if len(alike) < MIN_ANAPHORA_LINES:
        return None
    return _common_opening(alike), len(alike)


def _common_opening(lines: Sequence[str]) -> str:
    # Of sorted texts the first and the last share the opening that all of them share.
    pairs = zip(min(lines).split(), max(lines).split(), strict=False)
    return " ".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
