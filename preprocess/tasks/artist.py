"""The task "artist": who performs a song, and what in it fits."""

from __future__ import annotations

from preprocess.clean.leaks import sings_artist
from preprocess.tasks.comparison import compare_artist, corpus_sentences
from preprocess.tasks.evidence import sentences_about
from preprocess.tasks.task import Answer, Draw, Facts, Task


def answer_artist(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'The artist is X.' and what the song shares with the artist's others; None when it sings the name."""
    artist = facts.song.artist
    if artist is None or sings_artist(facts.song):
        return None
    shown = corpus_sentences(compare_artist(facts), facts, draw)
    shown += draw.some_of(sentences_about(facts.measures), 1) if not shown or draw.below(2) else []
    return Answer(" ".join([f"The artist is {artist}.", *draw.shuffled(shown)]), artist)


TASK = Task(
    name="artist",
    questions=(
        "Which artist most likely performs this song?",
        "Based on these lyrics, which artist are they most likely by?",
        "Name the artist behind these lyrics.",
        "Whose song is this? Give the artist and what in the lyrics fits.",
        "Who sings this, most likely?",
        "By whom are these lyrics? Say what speaks for it.",
        "Identify the performer of this song.",
    ),
    answer_stem="The artist is ",
    answer=answer_artist,
)
