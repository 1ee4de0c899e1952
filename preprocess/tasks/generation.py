"""The task "generation": lyrics in an artist's style. Off by default: it trains on the lyrics themselves."""

from __future__ import annotations

import re

from preprocess.tasks.evidence import join
from preprocess.tasks.task import Answer, Draw, Facts, Task

MAX_CHARS = 1200
"""Lyrics that are longer are cut at the end of a stanza, or of a line where one stanza is longer."""

_DANGLING_HEADING = re.compile(r"(?:\n|^)\[[^\[\]\n]*\]\s*$")


def cut_lyrics(lyrics: str, max_chars: int = MAX_CHARS) -> str:
    """Whole stanzas from the start, or whole lines where not even the first stanza fits; "" where no line does."""
    if len(lyrics) <= max_chars:
        return lyrics
    start = lyrics[: max_chars + 1]
    end = start.rfind("\n\n")
    cut = start[: end if end > 0 else max(0, start.rfind("\n"))].rstrip()
    return _DANGLING_HEADING.sub("", cut)


def answer_generation(facts: Facts, draw: Draw) -> Answer | None:
    """The song's lyrics; None when neither its artist nor its genre is known, which the question needs."""
    lyrics = cut_lyrics(facts.song.lyrics)
    if not lyrics or not (facts.song.artist or facts.song.genre):
        return None
    return Answer(lyrics)


def introduce_wish(facts: Facts) -> str:
    """In whose style, in which genre, and about what."""
    song = facts.song
    genre = f" in the genre {song.genre}" if song.genre else ""
    style = f"In the style of {song.artist}{genre}" if song.artist else f"In the genre {song.genre}"
    about = f", about {join([theme.theme for theme in facts.themes])}" if facts.themes else ""
    return f"{style}{about}: "


TASK = Task(
    name="generation",
    questions=(
        "write the lyrics of a song.",
        "write lyrics.",
        "make up the words of a song.",
        "compose the lyrics of a new song.",
        "what could a song sound like? Write its lyrics.",
        "put a song into words.",
    ),
    answer_stem="",
    answer=answer_generation,
    introduce=introduce_wish,
    default=False,
    with_lyrics=False,
)
