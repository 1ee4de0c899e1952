"""The task "analysis": five headings, over facts that its question states."""

from __future__ import annotations

from preprocess.tasks import style
from preprocess.tasks.comparison import compare_artist, compare_decade, compare_genre, corpus_sentences
from preprocess.tasks.evidence import quote, sentences_about, themes_in_words
from preprocess.tasks.similar import name_song
from preprocess.tasks.task import Answer, Draw, Facts, Task

_MIN_LINES = 4
_MAX_THEMES = 2


def answer_analysis(facts: Facts, draw: Draw) -> Answer | None:
    """The headings; artist, genre and year are stated by the question. None without a theme, or for a few lines."""
    if not facts.themes or facts.measures.structure.num_lines < _MIN_LINES:
        return None
    own = draw.shuffled(sentences_about(facts.measures))
    lines = {
        "Artist Style": _style(facts, draw) or own.pop(),
        "Genre Elements": _genre(facts, draw, own),
        "Lyrical Themes": _themes(facts),
        "Cultural Context": _context(facts, draw),
        "Similar Works": _similar(facts),
    }
    return Answer("\n".join(f"**{heading}**: {line}" for heading, line in lines.items() if line))


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


def _genre(facts: Facts, draw: Draw, own: list[str]) -> str:
    shown = corpus_sentences(compare_genre(facts), facts, draw, most=1) or own[:1]
    return " ".join([f"{facts.song.genre or 'Not given'}.", *shown])


def _themes(facts: Facts) -> str:
    moods = facts.measures.moods[:1]
    mood = f"; the mood is {themes_in_words(moods, num_words=1)}" if moods else ""
    return f"{themes_in_words(facts.themes[:_MAX_THEMES], num_words=1)}{mood}."


def _context(facts: Facts, draw: Draw) -> str:
    if facts.song.year is None:
        return "The year is not given."
    shown = corpus_sentences(compare_decade(facts), facts, draw, most=1)
    return " ".join([f"The {facts.song.decade} ({facts.song.year}).", *shown])


def _similar(facts: Facts) -> str | None:
    """The nearest songs with two words each; None where nothing was looked through."""
    if facts.corpus is None or not facts.corpus.similar.songs:
        return None
    told = [f"{name_song(near.song)} ({', '.join(map(quote, near.words[:2]))})" for near in facts.similar[:1]]
    return f"{told[0]}." if told else "None is near among the songs compared."


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
        "Analyze them: artist style, genre elements, lyrical themes, cultural context and similar works.",
        "Give an analysis: Artist Style, Genre Elements, Lyrical Themes, Cultural Context, Similar Works.",
        "Write a short analysis: style, genre, themes, context, similar works.",
        "Analyze style, genre, themes, context and similar works, each under its heading.",
        "What do they show of style, genre, themes and time, and what are they close to?",
        "Characterize them under five headings, from artist style to similar works.",
    ),
    answer_stem="**Artist Style**: ",
    answer=answer_analysis,
    introduce=introduce_facts,
)
