"""What is judged of a kept song: explicit words, cuts, a quality score, and why a person should look at it.

The quality score is a weighted mean of five shares, each from 0 to 1, lowered for a cut (halved) and for
damaged characters (by a fifth)::

    facts     0.20   how many of artist, title, genre and year are known
    lines     0.25   lines up to 12, three quarters; two stanzas or more, one quarter
    variety   0.20   different lines among all lines, full from 0.25 on: a song whose chorus is most of it keeps it
    letters   0.15   letters among signs, from 0.5 (nothing) to 0.85 (full)
    language  0.20   the score of the language's reading; nothing when it is unknown

The weights are a judgement, not a fit; they order songs for a sample. Every part is a count over the song itself, so
the score does not depend on other songs.
"""

from __future__ import annotations

from collections import Counter

from preprocess.clean.characters import is_damaged
from preprocess.clean.explicit import is_explicit
from preprocess.clean.language import UNKNOWN
from preprocess.clean.sung import SungText
from preprocess.clean.truncation import is_truncated
from preprocess.schema import Song, Traits

FACTS_WEIGHT = 0.20
LINES_WEIGHT = 0.25
VARIETY_WEIGHT = 0.20
LETTERS_WEIGHT = 0.15
LANGUAGE_WEIGHT = 0.20

DAMAGED_FACTOR = 0.8
TRUNCATED_FACTOR = 0.5

FULL_LINES = 12
"""A song of so many lines is as good as a longer one."""

FULL_VARIETY = 0.25
"""A song with this share of different lines is as good as one without repetition."""

MAX_REPEATED_SHARE = 0.8
"""A song one line of which makes up more than this share is suspicious."""

_MIN_REPETITION_LINES = 5


def measure_traits(song: Song, sung: SungText, language: tuple[str, float], conflict: str | None) -> Traits:
    """Judge a song.

    Args:
        song: The song as read.
        sung: What is sung in its cleaned lyrics.
        language: The language that the lyrics read as, and its score.
        conflict: A sentence when the source gives another language, or None.
    """
    damaged = is_damaged(sung.text)
    truncated = is_truncated(sung, song.lyrics)
    quality = score_quality(song, sung, language)
    quality *= (DAMAGED_FACTOR if damaged else 1.0) * (TRUNCATED_FACTOR if truncated else 1.0)
    return Traits(
        is_explicit=is_explicit(sung),
        is_truncated=truncated,
        quality=round(quality, 3),
        suspicions=_find_suspicions(sung, damaged=damaged, conflict=conflict),
    )


def score_quality(song: Song, sung: SungText, language: tuple[str, float]) -> float:
    """The weighted mean of the five shares, 0 to 1, before anything is lowered."""
    num_lines = len(sung.lines)
    facts = sum(fact is not None for fact in (song.artist, song.title, song.genre, song.year)) / 4
    lines = 0.75 * min(1.0, num_lines / FULL_LINES) + 0.25 * (sung.num_stanzas > 1)
    variety = min(1.0, len(sung.distinct_lines) / max(1, num_lines) / FULL_VARIETY)
    letters = min(1.0, max(0.0, (sung.letter_share - 0.5) / 0.35))
    code, score = language
    return (
        FACTS_WEIGHT * facts
        + LINES_WEIGHT * lines
        + VARIETY_WEIGHT * variety
        + LETTERS_WEIGHT * letters
        + LANGUAGE_WEIGHT * (0.0 if code == UNKNOWN else score)
    )


def _find_suspicions(sung: SungText, *, damaged: bool, conflict: str | None) -> tuple[str, ...]:
    num_lines = len(sung.lines)
    found: list[str] = []
    if damaged:
        found.append("damaged characters")
    if conflict:
        found.append(conflict)
    if num_lines == 1:
        found.append("one line only")
    if _is_shouted(sung.text):
        found.append("all capitals")
    if num_lines >= _MIN_REPETITION_LINES and len(sung.distinct_lines) < num_lines / 2:
        most = max(Counter(sung.lines).values())
        if most > MAX_REPEATED_SHARE * num_lines:
            found.append("one line repeated")
    return tuple(found)


def _is_shouted(text: str) -> bool:
    """Whether all letters that could be small are capitals, and these are most of the text."""
    if not text.isupper():
        return False
    num_capitals = sum(letter != small for letter, small in zip(text, text.lower(), strict=False))
    return num_capitals > len(text) / 2
