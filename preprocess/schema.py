"""The values that flow through the preprocessor: a song, an example, a segment forest, a packed row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORE_INDEX = -100
"""Label of a token that carries no loss (the value torch's cross entropy ignores)."""

ROOT = -1
"""Parent of a segment that continues no other."""

GENRES = ("Hip-Hop", "Rock", "Pop", "Country", "R&B", "Electronic", "Folk")
"""The genres that the project balances over. A song may carry another genre, in its source's own words."""

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Song:
    """One song. A fact that its source does not give is None (or empty); nothing is invented.

    Attributes:
        id: Stable across runs: the source's own id, or a hash of the content.
        lyrics: Lines separated by a newline, stanzas by an empty line, any script.
        title: Title, or None.
        artist: Performer or author as the source spells it, or None.
        genre: One of `GENRES`, or the source's own word for it, or None.
        year: Year of release, or None.
        album: Album title, or None.
        themes: Themes given by people or by the generator of made-up songs; empty when the source has none.
        language: ISO 639 code as in "en", "und" when it cannot be told, None when nobody has looked yet.
        tag: The source's own word for the genre, as it stands there, or None.
        source: File or data set the row came from, for messages.
    """

    id: str
    lyrics: str
    title: str | None = None
    artist: str | None = None
    genre: str | None = None
    year: int | None = None
    album: str | None = None
    themes: tuple[str, ...] = ()
    language: str | None = None
    tag: str | None = None
    source: str = ""

    @property
    def decade(self) -> str | None:
        """The decade as in "1990s", or None when the year is unknown."""
        return None if self.year is None else f"{self.year // 10 * 10}s"


@dataclass(frozen=True, slots=True)
class Traits:
    """What is judged of a cleaned song while it is read.

    Attributes:
        is_explicit: Whether it sings words of the explicit lexicon.
        is_truncated: Whether its lyrics look cut off.
        quality: 0 (hardly a song) to 1.
        suspicions: Why a person should look at it; empty for an ordinary song.
    """

    is_explicit: bool
    is_truncated: bool
    quality: float
    suspicions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One question about a song and its answer.

    Attributes:
        task: Name of the task, as in "artist" or "themes".
        instruction: The question. It must not contain what it asks for.
        answer: The whole supervised text, without any special token.
        label: The fact that was asked for when it is a single one (artist, genre, decade), else None.
        with_lyrics: Whether the question is about the lyrics and follows them in the prompt. False for a question
            that the lyrics would answer ("write lyrics in the style of …"): it is stored as a segment of its own.
    """

    task: str
    instruction: str
    answer: str
    label: str | None = None
    with_lyrics: bool = True
