"""The task "context": the decade of a song, and what the corpus shows of that decade."""

from __future__ import annotations

from preprocess.tasks.comparison import compare_decade, corpus_sentences
from preprocess.tasks.task import Answer, Draw, Facts, Task

_NUM_TYPICAL = 5


def answer_context(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'The song is from the 1990s.' and what was sung more often then than over all."""
    song = facts.song
    if song.decade is None:
        return None
    comparison = compare_decade(facts)
    shown = corpus_sentences(comparison, facts, draw)
    if comparison is not None and not shown:
        typical = list(comparison.group.themes)[:_NUM_TYPICAL]
        shown = [comparison.theme_sentence(theme) for theme in draw.some_of(typical, 1)]
    if not shown:
        shown = [f"Its year is {song.year}."]
    return Answer(" ".join([f"The song is from the {song.decade}.", *shown]), song.decade)


TASK = Task(
    name="context",
    questions=(
        "Which decade is this song from?",
        "Place these lyrics in their time: which decade do they come from?",
        "From which decade are these lyrics?",
        "When was this song written? Name the decade first.",
        "To which decade does this song belong, and what of its time does it show?",
        "Describe the cultural context of this song: its decade first.",
        "Date this song to a decade.",
    ),
    answer_stem="The song is from the ",
    answer=answer_context,
)
