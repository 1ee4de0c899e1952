"""The task "analysis": up to five headings, over facts that its question states."""

from __future__ import annotations

from preprocess.tasks import style
from preprocess.tasks.comparison import compare_artist, compare_decade, compare_genre, corpus_sentences
from preprocess.tasks.evidence import quote, themes_in_words
from preprocess.tasks.similar import name_song
from preprocess.tasks.task import Answer, Draw, Facts, Task

_MIN_LINES = 4
_MAX_THEMES = 2
_MIN_HEADINGS = 3


def answer_analysis(facts: Facts, draw: Draw) -> Answer | None:
    """The headings of which something is known; artist, genre and year are stated by the question.

    None without a theme, for a few lines, or when fewer than three headings are left.
    """
    if not facts.themes or facts.measures.structure.num_lines < _MIN_LINES:
        return None
    lines = {
        "Artist Style": _style(facts, draw),
        "Genre Elements": _genre(facts, draw),
        "Lyrical Themes": _themes(facts),
        "Cultural Context": _context(facts, draw),
        "Similar Works": _similar(facts),
    }
    told = [f"**{heading}**: {line}" for heading, line in lines.items() if line]
    return Answer("\n".join(told)) if len(told) >= _MIN_HEADINGS else None


def _style(facts: Facts, draw: Draw) -> str | None:
    """A word or a trait that sets the artist apart."""
    comparison = compare_artist(facts)
    if comparison is None:
        return None
    traits = list(style.traits(comparison))
    if traits and draw.below(2):
        return f"The artist's songs: {draw.one_of(traits)}."
    words = style.told_words(comparison, facts, draw)[:1]
    return comparison.words_sentence(words) if words else None


def _genre(facts: Facts, draw: Draw) -> str | None:
    if facts.song.genre is None:
        return None
    shown = corpus_sentences(compare_genre(facts), facts, draw, most=1)
    return " ".join([f"{facts.song.genre}.", *shown])


def _themes(facts: Facts) -> str:
    moods = facts.measures.moods[:1]
    mood = f"; the mood is {themes_in_words(moods, num_words=1)}" if moods else ""
    return f"{themes_in_words(facts.themes[:_MAX_THEMES], num_words=1)}{mood}."


def _context(facts: Facts, draw: Draw) -> str | None:
    if facts.song.year is None:
        return None
    shown = corpus_sentences(compare_decade(facts), facts, draw, most=1)
    return " ".join([f"The {facts.song.decade} ({facts.song.year}).", *shown])


def _similar(facts: Facts) -> str | None:
    """The nearest song with two words that both sing; None where none is near."""
    told = [f"{name_song(near.song)} ({', '.join(map(quote, near.words[:2]))})" for near in facts.similar[:1]]
    return f"{told[0]}." if told else None


def introduce_facts(facts: Facts) -> str:
    """The facts that an analysis may use, as a sentence before the question."""
    song = facts.song
    details = ", ".join(str(fact) for fact in (song.genre, song.year) if fact)
    if song.artist:
        return f"These lyrics are by {song.artist}{f' ({details})' if details else ''}. "
    return f"About these lyrics is known: {details}. " if details else ""


TASK = Task(
    name="analysis",
    questions=(
        "Analyze them: artist style, genre elements, lyrical themes, cultural context and similar works, where known.",
        "Give an analysis: Artist Style, Genre Elements, Lyrical Themes, Cultural Context, Similar Works.",
        "Write a short analysis: style, genre, themes, context, similar works.",
        "Analyze style, genre, themes, context and similar works, each under its heading.",
        "What do they show of style, genre, themes and time, and what are they close to?",
        "Characterize them under headings, from artist style to similar works.",
    ),
    answer_stem="**",
    answer=answer_analysis,
    introduce=introduce_facts,
)
