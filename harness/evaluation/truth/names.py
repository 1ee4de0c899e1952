"""Names as texts spell them: of artists, of genres, of decades."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from preprocess.knowledge import normal_name
from preprocess.read.genres import genre_words, load_genres, reduce_spelling
from preprocess.schema import GENRES

_JOINT = re.compile(r"\s*(?:;|,|/|&|\bfeat\b\.?|\bft\b\.?|\bfeaturing\b|\bwith\b|\band\b)\s*", re.IGNORECASE)

OTHER_GENRES = (
    "jazz",
    "reggae",
    "classical",
    "opera",
    "blues",
    "gospel",
    "latin",
    "ska",
    "swing",
    "bossa nova",
)
"""Genres that are none of the project's: a song of one of those is not of one of these."""

DECADE_WORDS = {
    word: number
    for number, word in enumerate(
        ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"), 2
    )
}
"""Words for the decades of the twentieth century, and the tens of their years."""


@lru_cache(maxsize=65_536)
def artist_forms(artist: str) -> frozenset[str]:
    """The normalised names that an artist goes by: the whole, and each partner of a joint name that has two words."""
    partners = [normal_name(part) for part in _JOINT.split(artist) if part.strip()]
    return frozenset({normal_name(artist), *(part for part in partners if " " in part)})


def same_artist(name: str, artist: str) -> bool:
    """Whether a name is an artist's, as a whole."""
    told = normal_name(name)
    return bool(told) and told in artist_forms(artist)


@cache
def _genre_names() -> dict[str, str]:
    """Reduced spelling → genre, of every word that names one."""
    names = {spelling: genre for spelling, genre in load_genres().names.items() if spelling and genre}
    return {**names, **{reduce_spelling(name): name for name in OTHER_GENRES}}


def genre_of(name: str) -> str | None:
    """The genre that a word stands for, in the project's name for it; the word where the project has none.

    None for a word that tells no genre from another ("indie", "misc").
    """
    spelling = reduce_spelling(name)
    known = _genre_names()
    if spelling in known:
        return known[spelling]
    return None if not spelling or spelling in _UNTELLING else name


_UNTELLING = frozenset(
    {"indie", "alternative", "acoustic", "soundtrack", "ballad", "modern", "popular", "love"}
)


def genre_parts(name: str) -> list[str]:
    """The genres of a compound: "pop rock" is of Pop and of Rock."""
    return [genre for part in re.split(r"[\s/,-]+|\band\b", name) if (genre := genre_of(part)) in GENRES]


@cache
def genre_pattern() -> str:
    """An expression for every word that names a genre, the longest first; matched blind to case."""
    spellings = sorted(
        {*(word for word in _read_words() if len(word) > 1)}, key=lambda word: (-len(word), word)
    )
    return "|".join(re.sub(r"\\?[\s-]", r"[\\s-]", re.escape(word)) for word in spellings)


@cache
def _read_words() -> tuple[str, ...]:
    """The table's words as they are written in texts, with their usual other spellings."""
    words = [
        *genre_words(),
        *OTHER_GENRES,
        *(genre.lower() for genre in GENRES),
        "r and b",
        "rhythm and blues",
    ]
    return tuple(dict.fromkeys(words))


def decade_of(told: str) -> str | None:
    """The decade that a word stands for: "1980s", "'80s", "80's", "eighties" are "1980s"; None for another word.

    Two digits are of the twentieth century, but for 00s and 10s.
    """
    text = told.strip().casefold().replace("\u2019", "'")
    word = DECADE_WORDS.get(text)
    if word is not None:
        return f"19{word}0s"
    match = re.fullmatch(r"(\d\d)?'?(\d)0(?:'?s)?", text)
    if match is None:
        return None
    century = match[1] or ("20" if match[2] in "01" else "19")
    return f"{century}{match[2]}0s"
