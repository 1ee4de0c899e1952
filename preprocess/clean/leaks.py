"""What lyrics give away: whether they sing the name of their own artist.

All tasks of a song share its lyrics, so a name in them answers the question for the artist. Titles are another
matter: no task asks for one, and they enter the prompt only where they are sung.

The match is of whole names, blind to case, accents and punctuation: the full name, the name without "The", and
each partner of a joint name that has several words ("Jay-Z" has two). It errs on the side of caution: a song of the
band Heart that sings "heart" counts as naming it. A part of a name ("Kanye") or a nickname is not found.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache, lru_cache
from typing import Literal

from preprocess.measure.structure import STOP_WORDS
from preprocess.schema import Song

NamedArtist = Literal["withhold", "redact", "drop"]
"""What to do with a song whose lyrics name its artist: keep it (it gets no artist task), take the name out, drop it."""

REDACTED = "…"
"""Stands for a name that was taken out."""

_TOKEN = re.compile(r"\w+")
_JOINT = re.compile(r"\s*(?:;|,|/|&|\bfeat\b\.?|\bft\b\.?|\bfeaturing\b|\bwith\b|\band\b)\s*", re.IGNORECASE)
# Scripts that put no spaces between words: Thai, kana, CJK ideographs.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


@lru_cache(maxsize=4096)
def artist_names(artist: str) -> frozenset[str]:
    """The forms of a name to look for, each reduced to its tokens: lower case, no accents, one space between."""
    partners = [part for part in map(_reduce, _JOINT.split(artist)) if " " in part]
    names = {_reduce(artist), *partners}
    names |= {name.removeprefix("the ") for name in names}
    return frozenset(name for name in names if len(name) > 1 and name not in STOP_WORDS)


def sings_artist(song: Song) -> bool:
    """Whether a name of the song's artist occurs in its lyrics; False when the artist is unknown."""
    if song.artist is None:
        return False
    folded = _fold(song.lyrics)
    # A name can only be there when each of its tokens is: most songs need no tokens of their own.
    names = [name for name in artist_names(song.artist) if all(token in folded for token in name.split())]
    if not names:
        return False
    text = f" {' '.join(_TOKEN.findall(folded))} "
    return any(_occurs(name, text) for name in names)


def redact_artist(song: Song) -> str:
    """The song's lyrics with every occurrence of its artist's names replaced by `REDACTED`."""
    lyrics = song.lyrics
    if song.artist is None:
        return lyrics
    for name in sorted(artist_names(song.artist), key=lambda name: (-len(name), name)):
        tokens = r"[\W_]+".join(map(re.escape, name.split()))
        pattern = tokens if _UNSPACED.search(name) else rf"(?<!\w){tokens}(?!\w)"
        lyrics = _replace(re.compile(pattern), lyrics)
    return lyrics


def _replace(pattern: re.Pattern[str], lyrics: str) -> str:
    """Replace what a pattern matches in the folded lyrics in the lyrics themselves, whose accents stay."""
    folded = [_fold(letter) for letter in lyrics]
    # Where in the lyrics each letter of the folded ones comes from: folding changes their number.
    places = [place for place, letters in enumerate(folded) for _ in letters]
    parts, done = [], 0
    for match in pattern.finditer("".join(folded)):
        end = places[match.end() - 1] + 1
        while end < len(lyrics) and not folded[end]:
            end += 1  # the accents of the last letter
        parts += [lyrics[done : places[match.start()]], REDACTED]
        done = end
    return "".join([*parts, lyrics[done:]])


def names(text: str, name: str) -> bool:
    """Whether a text contains a name as whole words, blind to case, accents and punctuation."""
    return _occurs(_reduce(name), f" {_reduce(text)} ")


def _reduce(text: str) -> str:
    return " ".join(_TOKEN.findall(_fold(text)))


def _fold(text: str) -> str:
    """Case and accents taken off, and compatibility forms (full width, ligatures) spelled out."""
    if text.isascii():
        return text.casefold()
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return _find_marks().sub("", letters)


@cache
def _find_marks() -> re.Pattern[str]:
    """An expression for every nonspacing mark (category Mn), by runs of neighbours."""
    marks = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Mn"]
    runs: list[list[int]] = []
    for code in marks:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return re.compile("[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs) + "]+")


def _occurs(name: str, text: str) -> bool:
    return bool(name) and (name if _UNSPACED.search(name) else f" {name} ") in text
