"""The longest run of words that a generated text has in common with the training lyrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Overlap:
    """The longest verbatim overlap.

    Attributes:
        num_words: Its length in words; 0 for none.
        text: It, as the generated text spells it.
        song_id: A training song that has it, the first of several; None for none.
    """

    num_words: int
    text: str
    song_id: str | None


class TrainingLyrics:
    """Training lyrics, ready to be looked for in.

    Args:
        texts: (song id, lyrics) of each song.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        raise NotImplementedError

    def longest(self, text: str) -> Overlap:
        """The longest run of words that stands in one training song, too."""
        raise NotImplementedError
