"""The task "similar": the nearest songs of the training corpus, each with what it shares."""

from __future__ import annotations

from preprocess.tasks.evidence import join, quote
from preprocess.tasks.neighbours import PoolSong, Similar
from preprocess.tasks.task import Answer, Draw, Facts, Task

_NUM_WORDS = 3


def name_song(song: PoolSong) -> str:
    """A song as it is named in an answer: by title and artist, or by the one that is known."""
    if song.title and song.artist:
        return f"{quote(song.title)} by {song.artist}"
    return quote(song.title) if song.title else f"a song by {song.artist}"


def answer_similar(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'It is nearest to "T" by A:' and what both share; None without a near song."""
    if not facts.similar:
        return None
    first, *others = facts.similar
    text = f"It is nearest to {name_song(first.song)}: {_shared(first, facts, draw)}."
    for other in others:
        named = name_song(other.song)
        text += (
            f" {named[:1].upper()}{named[1:]} sings {join([quote(word) for word in other.words[:2]])} too."
        )
    return Answer(text)


def _shared(similar: Similar, facts: Facts, draw: Draw) -> str:
    """What two songs have in common: words always, a theme or the decade where they have it."""
    own = [found.theme for found in facts.themes]
    shown = [f"both sing {join([quote(word) for word in similar.words[:_NUM_WORDS]])}"]
    further = [f"{theme} is a theme of both" for theme in own if theme in similar.song.themes][:1]
    if similar.song.decade and similar.song.decade == facts.song.decade:
        further.append(f"both are from the {facts.song.decade}")
    return "; ".join(shown + draw.some_of(further, 1))


TASK = Task(
    name="similar",
    questions=(
        "Which songs are similar to this one, and in what?",
        "Name songs that are close to these lyrics.",
        "What else sounds like this? Say what they have in common.",
        "Recommend similar works, with what they share with this song.",
        "Find the nearest relatives of this song.",
        "Which other songs sing of the same things?",
    ),
    answer_stem="It is nearest to ",
    answer=answer_similar,
)
