"""Answers: what a song's facts and counts say in reply to each task. A song that lacks the fact gets None.

Every statement is given with the song or can be counted in its lyrics; `preprocess.tasks.instruct` has the questions.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property

from preprocess.clean.leaks import sings_artist
from preprocess.measure.structure import (
    STOP_WORDS,
    Structure,
    find_words,
    is_english,
    measure_structure,
    sung_lines,
)
from preprocess.measure.themes import (
    ThemeEvidence,
    find_evidence,
    find_moods,
    find_themes,
    load_lexicon,
    strongest_words,
)
from preprocess.schema import Song
from preprocess.tasks import evidence

MAX_THEMES = 3
"""An answer names this many themes at most."""


class Facts:
    """A song and what is derived from it, each measured once and only when a task asks for it."""

    def __init__(self, song: Song) -> None:
        self.song = song

    @cached_property
    def structure(self) -> Structure:
        """The counts of the lyrics."""
        return measure_structure(self.song.lyrics)

    @cached_property
    def themes(self) -> tuple[ThemeEvidence, ...]:
        """The themes given with the song, else those that the lexicon finds; at most `MAX_THEMES`."""
        return (
            given_themes(self.song) if self.song.themes else tuple(find_themes(self.song.lyrics, MAX_THEMES))
        )


Answer = tuple[str, str | None]
"""The text, and the label when there is a single one."""


def given_themes(song: Song) -> tuple[ThemeEvidence, ...]:
    """The `MAX_THEMES` themes, of those that a song came with, that show most in its lyrics.

    A theme shows in the words that the lexicon has for it, or in the words of its own name. Names that are a plain
    word or two go before a catalogue's entries ("God, Goodness of").
    """
    lexicon = load_lexicon("themes")
    found = find_evidence(song.lyrics, lexicon, keep_weak=True)
    sung = Counter(word for line in sung_lines(song.lyrics) for word in find_words(line))
    english = is_english(sung)
    themes = []
    for theme in song.themes:
        # The German "war" does not show the theme "war".
        names = find_words(theme) if english or theme.casefold() not in lexicon.about else []
        own = {word: 1 + math.log(sung[word]) for word in names if word in sung.keys() - STOP_WORDS}
        words = found.get(theme.casefold(), own)
        themes.append(ThemeEvidence(theme_name(theme), sum(words.values()), strongest_words(words, theme)))
    ranked = sorted(themes, key=lambda theme: (not theme.words, " - " in theme.theme, -theme.score))
    return tuple(ranked[:MAX_THEMES])


def theme_name(theme: str) -> str:
    """A theme's name as it stands in a list in an answer: without the marks that part the list."""
    return theme.replace(", ", " - ").replace(",", " ").replace(" and ", " & ").replace(".", "")


def _pick_sentence(*clauses: str | None, pick: int) -> str:
    """One of the clauses that are there, as a sentence with a space before it."""
    found = [clause for clause in clauses if clause]
    return f" The song {found[pick % len(found)]}." if found else ""


def answer_artist(facts: Facts, pick: int) -> Answer | None:
    """Say 'The artist is X.' and how the song speaks; None when its lyrics sing the name."""
    artist = facts.song.artist
    if artist is None or sings_artist(facts.song):
        return None
    counts = facts.structure
    clauses = (evidence.person_clause(counts), evidence.line_clause(counts), evidence.length_clause(counts))
    return f"The artist is {artist}.{_pick_sentence(*clauses, pick=pick)}", artist


def answer_genre(facts: Facts, pick: int) -> Answer | None:
    """Say 'The genre is X.' and what is counted in the lyrics."""
    genre = facts.song.genre
    if genre is None:
        return None
    counts = facts.structure
    clauses = (
        evidence.sections_clause(counts),
        evidence.words_clause(counts),
        evidence.person_clause(counts),
    )
    return f"The genre is {genre}.{_pick_sentence(*clauses, pick=pick)}", genre


def answer_context(facts: Facts, pick: int) -> Answer | None:
    """Say 'The song is from the 1990s.' with year and genre: nothing else is known of its time."""
    song = facts.song
    if song.decade is None:
        return None
    genre = f" and its genre is {song.genre}" if song.genre else ""
    return f"The song is from the {song.decade}. It dates from {song.year}{genre}.", song.decade


def answer_themes(facts: Facts, pick: int) -> Answer | None:
    """Say 'The main themes are a, b and c.' and the words that show them."""
    themes = facts.themes
    if not themes:
        return None
    plural = len(themes) > 1
    fact = f"The main {'themes are' if plural else 'theme is'} {evidence.join([theme.theme for theme in themes])}."
    num_words = 1 if len(themes) > 2 else 2
    words = [evidence.quote(word) for theme in themes for word in theme.words[:num_words]]
    shown = f" {'They show' if plural else 'It shows'} in {evidence.join(words)}." if words else ""
    return fact + shown, None


def answer_analysis(facts: Facts, pick: int) -> Answer | None:
    """Five headings; artist, genre and year are stated by the question."""
    if not facts.themes or facts.structure.num_lines < 4:
        return None
    song, counts = facts.song, facts.structure
    mood = evidence.themes_in_words(find_moods(song.lyrics), num_words=1)
    speaks = evidence.person_clause(counts) or ("has no leading pronoun" if counts.is_english else None)
    style = f"{song.artist or 'The song'} {speaks}"
    different = f"{counts.num_distinct_words} of {counts.num_words} words are different"
    returning = evidence.words_clause(counts) or "no telling word returns"
    length = evidence.line_clause(counts) or evidence.length_clause(counts)
    built = "; it ".join(clause for clause in (evidence.sections_clause(counts), length) if clause)
    themes = evidence.themes_in_words(facts.themes, num_words=1)
    lines = {
        "Artist Style": f"{style}; {different}" if speaks else different,
        "Genre Elements": f"{song.genre or 'Genre not given'}; {returning}",
        "Lyrical Themes": f"{themes}; the mood is {mood}" if mood else themes,
        "Cultural Context": f"The {song.decade} ({song.year})" if song.year else "Year not given",
        "Structure": f"The song {built}",
    }
    text = (f"**{heading}**: {line}." for heading, line in lines.items())
    return "\n".join(text), None


def introduce_analysis(song: Song) -> str:
    """The facts that an analysis may use, as a sentence before the question."""
    details = ", ".join(str(fact) for fact in (song.genre, song.year) if fact)
    if song.artist:
        return f"These lyrics are by {song.artist}{f' ({details})' if details else ''}. "
    return f"About these lyrics is known: {details}. " if details else ""
