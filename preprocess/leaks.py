"""What lyrics give away: whether they sing the name of their own artist.

All tasks of a song share its lyrics, so a name in them answers the question for the artist. Titles are another
matter: no task asks for one, and they enter the prompt only where they are sung.

The match is of whole names, blind to case and punctuation: the full name, the name without "The", and each partner
of a joint name that has several words. It errs on the side of caution: a song of the band Heart that sings "heart"
counts as naming it. A part of a name ("Kanye") or a nickname is not found.
"""

from __future__ import annotations

import re

from preprocess.schema import Song
from preprocess.structure import STOP_WORDS

REDACTED = "…"
"""Stands for a name that was taken out."""

_TOKEN = re.compile(r"\w+")
_JOINT = re.compile(r"\s*(?:;|,|/|&|\bfeat\b\.?|\bft\b\.?|\bfeaturing\b|\bwith\b|\band\b)\s*", re.IGNORECASE)
# Scripts that put no spaces between words: Thai, kana, CJK ideographs.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def artist_names(artist: str) -> set[str]:
    """The forms of a name to look for, each reduced to its tokens: lower case, one space between."""
    partners = [part for part in _JOINT.split(artist) if " " in part]
    names = {_reduce(name) for name in (artist, *partners)}
    names |= {name.removeprefix("the ") for name in names}
    return {name for name in names if len(name) > 1 and name not in STOP_WORDS}


def sings_artist(song: Song) -> bool:
    """Whether a name of the song's artist occurs in its lyrics; False when the artist is unknown."""
    if song.artist is None:
        return False
    text = f" {_reduce(song.lyrics)} "
    return any(_occurs(name, text) for name in artist_names(song.artist))


def redact_artist(song: Song) -> str:
    """The song's lyrics with every occurrence of its artist's names replaced by `REDACTED`."""
    lyrics = song.lyrics
    if song.artist is None:
        return lyrics
    for name in sorted(artist_names(song.artist), key=len, reverse=True):
        tokens = r"[\W_]+".join(map(re.escape, name.split()))
        pattern = tokens if _UNSPACED.search(name) else rf"(?<!\w){tokens}(?!\w)"
        lyrics = re.sub(pattern, REDACTED, lyrics, flags=re.IGNORECASE)
    return lyrics


def names(text: str, name: str) -> bool:
    """Whether a text contains a name as whole words, blind to case and punctuation."""
    return _occurs(_reduce(name), f" {_reduce(text)} ")


def _reduce(text: str) -> str:
    return " ".join(_TOKEN.findall(text.casefold()))


def _occurs(name: str, text: str) -> bool:
    return bool(name) and (name if _UNSPACED.search(name) else f" {name} ") in text
