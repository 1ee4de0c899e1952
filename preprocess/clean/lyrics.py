"""Lyrics made clean: what a web page added is taken out, what was sung stays, lines, stanzas and scripts included.

Steps, in order: characters (`preprocess.clean.characters`); residue of the source (`preprocess.clean.residue`);
section headings (`preprocess.clean.headings`); spaces and empty lines. They are repeated until nothing changes any
more, for what one step takes out can lay bare what another one looks for; so cleaning twice is cleaning once. (At
most `MAX_PASSES` times: only a text made for the purpose needs more than three.)
"""

from __future__ import annotations

import hashlib
import re

from preprocess.clean.characters import normalise_characters
from preprocess.clean.headings import Headings, normalise_headings
from preprocess.clean.residue import remove_residue
from preprocess.measure.structure import find_words, sung_lines

MIN_CHARS = 100
MAX_CHARS = 5000

MAX_PASSES = 16
_MANY_SPACES = re.compile(" {2,}")
_MANY_LINES = re.compile(r"\n{3,}")


def clean_lyrics(text: str, *, headings: Headings = "plain", title: str | None = None) -> str:
    """Clean lyrics.

    Args:
        text: Lyrics as the source has them.
        headings: How section headings are written.
        title: The song's title, which helps to tell a page's head from the first line.
    """
    for _ in range(MAX_PASSES):
        cleaned = _clean_once(text, headings, title)
        if cleaned == text:
            break
        text = cleaned
    return text


def _clean_once(text: str, headings: Headings, title: str | None) -> str:
    text = remove_residue(normalise_characters(text), title)
    return tidy_lines(normalise_headings(text, headings))


def tidy_lines(text: str) -> str:
    """No spaces at line ends or doubled inside, at most one empty line in a row, none at the ends.

    Args:
        text: Lines as `normalise_headings` leaves them, without spaces at their ends.
    """
    if "  " in text:
        text = _MANY_SPACES.sub(" ", text)
    if "\n\n\n" in text:
        text = _MANY_LINES.sub("\n\n", text)
    return text.strip("\n")


def lyrics_hash(lyrics: str) -> int:
    """A 64-bit hash of the words that are sung, blind to headings, case, punctuation and line breaks.

    Lyrics without any word (numbers, signs) are hashed as they are.
    """
    words = [word for line in sung_lines(lyrics) for word in find_words(line)]
    text = " ".join(words) or lyrics
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
