"""Lyrics made clean: what a web page added is taken out, what was sung stays, lines, stanzas and scripts included.

Steps, in order: Unicode and line ends; residue of the Genius page; section headings (`preprocess.clean.headings`);
spaces and empty lines; then a verdict, with the reason for a drop.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

from preprocess.clean.headings import normalise_headings
from preprocess.clean.leaks import redact_artist, sings_artist
from preprocess.measure.structure import find_words, sung_lines
from preprocess.schema import Song

MIN_CHARS = 100
MAX_CHARS = 5000

Reason = Literal["empty", "placeholder", "too short", "too long", "artist named in lyrics"]
"""Why a song is dropped."""

NamedArtist = Literal["withhold", "redact", "drop"]
"""What to do with a song whose lyrics name its artist: keep it (it gets no artist task), take the name out, drop it."""


@dataclass(frozen=True, slots=True)
class CleanResult:
    """Cleaned lyrics, and why they are to be dropped (None: they are not)."""

    lyrics: str
    reason: Reason | None


_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029\x85\x0b\x0c]|<br\s*/?>", re.IGNORECASE)
_SPACES = re.compile(r"[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
# Joiners (U+200C, U+200D) are spelling in Persian, the Indic scripts and emoji: kept between such characters.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufffe]"
    r"|(?<![\u0590-\U0010ffff])[\u200c\u200d]|[\u200c\u200d](?![\u0590-\U0010ffff])"
)
_ENTITY = re.compile(r"&(?:amp|quot|apos|lt|gt|nbsp|#\d{1,6}|#x[0-9a-f]{1,6});", re.IGNORECASE)

_HEAD = re.compile(
    r"\A\s*(?:\d+ Contributors?[^\n]{0,300}?Lyrics|\d+ Contributors?(?=\n)|[^\n\[\]]{1,100} Lyrics(?=\[|\n))"
)
_TAIL = re.compile(
    r"(?:\d[\d.,]*K?)?\s*Embed\s?Share\s?(?:URL)?\s?Copy\s?Embed\s?(?:Copy)?\s*\Z|(?<=[^\s])\d[\d.,]*K?Embed\s*\Z"
    r"|(?<=[a-z.,!?)\]\"'\u2019\u201d])Embed\s*\Z|^(?:\d[\d.,]*K?)?Embed\s*\Z",
    re.MULTILINE,
)
_TICKETS = re.compile(
    r"See [^\n]{1,80}? ?Live\s?Get tickets as low as \$\d[\d.,]*\s?(?:You might also like(?=\W|[A-Z]|\Z))?"
)
_GLUED_LIKE = re.compile(r"(?<=[^\s\[(])You might also like(?=[A-Z\[\n]|\Z)|You might also like(?=[A-Z\[])")
_LIKE_LINE = re.compile(r"^You might also like$\n?", re.MULTILINE)

_PLACEHOLDER = re.compile(
    r"lyrics (?:for this song )?(?:have yet to be released|are (?:not|un)\s?available|will be (?:added|available|"
    r"updated|transcribed))|lyrics (?:not available|coming soon|to be (?:added|announced|transcribed))"
    r"|this (?:song|track) is (?:an )?instrumental|we do not have the lyrics|not licensed to display"
    r"|please check back (?:once|when|later)|lyrics from snippets?",
    re.IGNORECASE,
)
_ONLY_INSTRUMENTAL = re.compile(
    r"\W*(?:(?:this is )?an? )?instrumental(?: track| song| break| only)?\W*", re.IGNORECASE
)
_MAX_PLACEHOLDER_CHARS = 400


def clean_lyrics(text: str, *, min_chars: int = MIN_CHARS, max_chars: int = MAX_CHARS) -> CleanResult:
    """Clean lyrics and judge them.

    Args:
        text: Lyrics as the source has them.
        min_chars: Shorter cleaned lyrics (characters, headings included) are dropped.
        max_chars: Longer ones too.
    """
    lyrics = remove_residue(normalise_unicode(text))
    if _is_instrumental(lyrics):
        return CleanResult(lyrics.strip(), "placeholder")
    lyrics = tidy_lines(normalise_headings(lyrics))
    return CleanResult(lyrics, _judge(lyrics, min_chars, max_chars))


def _is_instrumental(lyrics: str) -> bool:
    return len(lyrics) < _MAX_PLACEHOLDER_CHARS and bool(_ONLY_INSTRUMENTAL.fullmatch(lyrics))


def _judge(lyrics: str, min_chars: int, max_chars: int) -> Reason | None:
    if not any(sung_lines(lyrics)):
        return "empty"
    if len(lyrics) < _MAX_PLACEHOLDER_CHARS and _PLACEHOLDER.search(lyrics):
        return "placeholder"
    if len(lyrics) < min_chars:
        return "too short"
    return "too long" if len(lyrics) > max_chars else None


def clean_song(
    song: Song,
    *,
    min_chars: int = MIN_CHARS,
    max_chars: int = MAX_CHARS,
    named_artist: NamedArtist = "withhold",
) -> tuple[Song, Reason | None]:
    """Clean a song's lyrics; the reason is None when the song is to be kept.

    Args:
        song: A song as read.
        min_chars: See `clean_lyrics`.
        max_chars: See `clean_lyrics`.
        named_artist: What to do when the lyrics name the artist. With "withhold" the song stays whole, and
            `preprocess.tasks.instruct.make_examples` asks nothing of it that the name would answer.
    """
    result = clean_lyrics(song.lyrics, min_chars=min_chars, max_chars=max_chars)
    cleaned = replace(song, lyrics=result.lyrics)
    if result.reason or named_artist == "withhold" or not sings_artist(cleaned):
        return cleaned, result.reason
    if named_artist == "drop":
        return cleaned, "artist named in lyrics"
    return replace(cleaned, lyrics=redact_artist(cleaned)), None


def normalise_unicode(text: str) -> str:
    """NFC, newline as the only line end, ordinary spaces, no control or invisible characters, no entities."""
    if "\n" not in text and text.count("\\n") > 1:
        # Line breaks that were escaped once too often on their way.
        text = text.replace("\\r", "").replace("\\n", "\n")
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text) if "&" in text else text
    text = _SPACES.sub(" ", _LINE_ENDS.sub("\n", text))
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


def remove_residue(text: str) -> str:
    """Take out what the Genius page adds: its head, its tail, its advertisements in the middle.

    Words that a song may sing are only taken where the page's own form gives them away: glued to a neighbour,
    with their numbers, or in a text that carries other residue.
    """
    cleaned = _HEAD.sub("", text, count=1)
    cleaned = _TAIL.sub("", cleaned.rstrip())
    cleaned = _TICKETS.sub(_break_between, cleaned)
    cleaned = _GLUED_LIKE.sub(_break_between, cleaned)
    if cleaned.strip() != text.strip():
        cleaned = _LIKE_LINE.sub("", cleaned)
    return cleaned


def _break_between(match: re.Match[str]) -> str:
    """A line end where the residue stood between two lines that it had glued together."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return "\n" if before not in ("", "\n") and after not in ("", "\n") else ""


def tidy_lines(text: str) -> str:
    """No spaces at line ends or doubled inside, at most one empty line in a row, none at the ends."""
    lines = (line.strip() for line in re.sub(r" {2,}", " ", text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def lyrics_hash(lyrics: str) -> int:
    """A 64-bit hash of the words that are sung, blind to headings, case, punctuation and line breaks.

    Lyrics without any word (numbers, signs) are hashed as they are.
    """
    words = [word for line in sung_lines(lyrics) for word in find_words(line)]
    text = " ".join(words) or lyrics
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
