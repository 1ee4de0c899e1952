"""One song cleaned and judged: the door to this package.

song ── clean_lyrics ── split_sung ── judge_lyrics ── read_language ── measure_traits ── Cleaned
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import Field, model_validator

from preprocess.clean.headings import Headings
from preprocess.clean.judge import Reason, judge_lyrics
from preprocess.clean.language import UNKNOWN, read_language, settle_language
from preprocess.clean.leaks import NamedArtist, redact_artist, sings_artist
from preprocess.clean.lyrics import MAX_CHARS, MIN_CHARS, clean_lyrics
from preprocess.clean.sung import split_sung
from preprocess.clean.traits import measure_traits
from preprocess.schema import Song, Traits
from preprocess.settings import Settings


class CleanSettings(Settings):
    """How songs are cleaned, and which are dropped."""

    min_chars: int = Field(default=MIN_CHARS, ge=0)
    """Shorter cleaned lyrics (characters, headings included) are dropped. A Chinese, Japanese or Korean character
    counts as two and a half."""

    max_chars: int = Field(default=MAX_CHARS, ge=1)
    """Longer ones too."""

    headings: Headings = "plain"
    """Section headings as "plain" ("[Verse 1]"), as "tags" ("[VERSE]", the music tokens), or "drop" them."""

    named_artist: NamedArtist = "withhold"
    """A song whose lyrics name its artist: "withhold" asks no artist question, "redact" the name, "drop" the song."""

    @model_validator(mode="after")
    def _check_limits(self) -> CleanSettings:
        if self.min_chars > self.max_chars:
            raise ValueError(
                f"min_chars {self.min_chars} exceeds max_chars {self.max_chars}: no song would be kept"
            )
        return self


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A song after cleaning.

    Attributes:
        song: The song with clean lyrics and its language ("und" when it cannot be told).
        reason: Why it is to be dropped, or None.
        traits: What was judged of it.
    """

    song: Song
    reason: Reason | None
    traits: Traits


_DROPPED = Traits(is_explicit=False, is_truncated=False, quality=0.0)


def clean_song(song: Song, settings: CleanSettings) -> Cleaned:
    """Clean a song and judge it.

    A song that is dropped for its form has no language looked for and no traits measured.

    Args:
        song: A song as read.
        settings: How. With `named_artist` "withhold" a song that names its artist stays whole, and
            `preprocess.tasks.instruct.make_examples` asks nothing of it that the name would answer.
    """
    lyrics = clean_lyrics(song.lyrics, headings=settings.headings, title=song.title)
    sung = split_sung(lyrics)
    reason = judge_lyrics(song, lyrics, sung, min_chars=settings.min_chars, max_chars=settings.max_chars)
    if reason:
        return Cleaned(replace(song, lyrics=lyrics, language=song.language or UNKNOWN), reason, _DROPPED)
    read = read_language(sung)
    language, conflict = settle_language(song.language, *read)
    cleaned = replace(song, lyrics=lyrics, language=language)
    traits = measure_traits(song, sung, read, conflict)
    if settings.named_artist == "withhold" or not sings_artist(cleaned):
        return Cleaned(cleaned, None, traits)
    if settings.named_artist == "drop":
        return Cleaned(cleaned, "artist named in lyrics", traits)
    return Cleaned(replace(cleaned, lyrics=redact_artist(cleaned)), None, traits)
