"""The task "genre": which genre a song belongs to, and what shows it."""

from __future__ import annotations

from preprocess.tasks.comparison import compare_genre, corpus_sentences
from preprocess.tasks.evidence import sentences_about
from preprocess.tasks.task import Answer, Draw, Facts, Task


def answer_genre(facts: Facts, draw: Draw) -> Answer | None:
    """Say 'The genre is X.' and what the song has that other songs of X have too."""
    genre = facts.song.genre
    if genre is None:
        return None
    comparison = compare_genre(facts)
    shown = corpus_sentences(comparison, facts, draw)
    if comparison is not None and facts.measures.is_english and not (shown and draw.below(2)):
        length = comparison.line_sentence(facts.measures.structure.words_per_line)
        shown += [length] if length else []
    if not shown:
        shown = draw.some_of(sentences_about(facts.measures), 1)
    return Answer(" ".join([f"The genre is {genre}.", *draw.shuffled(shown)]), genre)


TASK = Task(
    name="genre",
    questions=(
        "What genre does this song belong to, and what shows it?",
        "Classify these lyrics by genre.",
        "Which genre are these lyrics from?",
        "Name the genre of this song and a feature of its lyrics.",
        "To which genre would you assign this song, and why?",
        "What kind of song is this? Give the genre and its signs.",
        "Under which genre would this be filed?",
    ),
    answer_stem="The genre is ",
    answer=answer_genre,
)
