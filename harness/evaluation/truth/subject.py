"""One song that statements are checked against: its facts, its lyrics, and what a data set knows of others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from harness.evaluation.truth.claims import Verdict
from harness.evaluation.truth.names import decade_of, genre_of, genre_parts, same_artist
from preprocess.knowledge import Knowledge, KnownSong, normal_name
from preprocess.measure.song import Measures, measure_song
from preprocess.measure.structure import find_words, sung_lines
from preprocess.measure.themes import find_evidence, load_lexicon
from preprocess.schema import Song
from preprocess.tasks.main_themes import main_themes, theme_name

Judgement = tuple[Verdict, str]
"""A verdict and what it rests on."""

_ASIDE = re.compile(r"\([^()]*\)")
_SPACELESS = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Letters of scripts without spaces between words."""


def so(why: str) -> Judgement:
    """A statement that is so."""
    return "supported", why


def not_so(why: str) -> Judgement:
    """A statement that is not so."""
    return "contradicted", why


def untold(why: str) -> Judgement:
    """A statement of which nothing tells whether it is so."""
    return "not checkable", why


def judge(holds: object, why: str) -> Judgement:
    """A statement that can be checked."""
    return so(why) if holds else not_so(why)


def join_judgements(judgements: Iterable[Judgement]) -> Judgement:
    """Of several conditions that a statement has: contradicted by one, else untold by one, else so."""
    found = list(judgements)
    for verdict in ("contradicted", "not checkable"):
        for judgement in found:
            if judgement[0] == verdict:
                return judgement
    return found[0]


class Subject:
    """The song that a text is about.

    Args:
        song: The song, with the lyrics that the model saw.
        knowledge: Of the data set.

    Attributes:
        song: The song.
        knowledge: Of the data set.
        told_artist: The artist whom the text names; the song's own until then.
        told_genre: The genre that the text names, likewise.
        told_decade: The decade that the text names, likewise.
    """

    def __init__(self, song: Song, knowledge: Knowledge) -> None:
        self.song = song
        self.knowledge = knowledge
        self.told_artist = song.artist
        self.told_genre = song.genre
        self.told_decade = song.decade

    @cached_property
    def measures(self) -> Measures:
        """What is counted in the lyrics."""
        return measure_song(self.song.lyrics, self.song.language)

    @cached_property
    def lines(self) -> list[str]:
        """The sung lines as words with spaces between."""
        return [" ".join(find_words(line)) for line in sung_lines(self.song.lyrics)]

    @cached_property
    def words(self) -> Counter[str]:
        """The sung words, counted."""
        return Counter(word for line in self.lines for word in line.split())

    @cached_property
    def themes(self) -> frozenset[str]:
        """The main themes, as answers name them, and all that the song came with."""
        found = {theme.theme for theme in main_themes(self.song, self.measures)}
        return frozenset(found | {theme_name(theme) for theme in self.song.themes})

    @cached_property
    def shown_themes(self) -> frozenset[str]:
        """Themes of which the lexicon finds any word in the lyrics."""
        return frozenset(find_evidence(self.song.lyrics, load_lexicon("themes"), keep_weak=True))

    @cached_property
    def shown_moods(self) -> frozenset[str]:
        """Moods of which the lexicon finds any word in the lyrics."""
        return frozenset(find_evidence(self.song.lyrics, load_lexicon("moods"), keep_weak=True))

    # Facts.

    def artist(self, name: str) -> Judgement:
        """Whether this is the song's artist."""
        if self.song.artist is None:
            return untold("the song's artist is not known")
        return judge(same_artist(name, self.song.artist), f"the artist is {self.song.artist}")

    def genre(self, name: str) -> Judgement:
        """Whether this is the song's genre."""
        true = self.song.genre
        if true is None:
            return untold("the song's genre is not known")
        if normal_name(name) == normal_name(true):
            return so(f"the genre is {true}")
        counted = set(map(normal_name, self.knowledge.corpus.genres))
        if counted.issuperset({normal_name(name), normal_name(true)}):
            return not_so(f"the genre is {true}")
        told = genre_of(name)
        if told is None:
            return untold(f"{name} is no genre that is told apart")
        if normal_name(told) == normal_name(true):
            return so(f"the genre is {true}")
        if normal_name(true) in map(normal_name, genre_parts(name)):
            return untold(f"{name} lies between genres; the genre is {true}")
        return not_so(f"the genre is {true}")

    def decade(self, told: str) -> Judgement:
        """Whether the song is from this decade, as in "1980s" or "eighties"."""
        if self.song.decade is None:
            return untold("the song's year is not known")
        return judge(decade_of(told) == self.song.decade, f"the song is from {self.song.year}")

    def year(self, told: int) -> Judgement:
        """Whether the song is of this year."""
        if self.song.year is None:
            return untold("the song's year is not known")
        return judge(told == self.song.year, f"the song is from {self.song.year}")

    def name(self, told: str, true: str | None, what: str) -> Judgement:
        """Whether a title or an album is the song's."""
        if true is None:
            return untold(f"the song's {what} is not known")
        return judge(normal_name(told) == normal_name(true), f"the {what} is {true}")

    def theme(self, name: str, *, is_main: bool) -> Judgement:
        """Whether the song is about something.

        Args:
            name: Name of the theme.
            is_main: Whether it is told as one of its main themes in the data set's own terms. Else one that shows in
                any word of the lyrics is neither so nor not so.
        """
        told = name.casefold().strip()
        if told in {theme.casefold() for theme in self.themes}:
            return so(f"a main theme is {told}")
        if not self.themes:
            return untold("the song's themes are not known")
        why = f"its main themes are {', '.join(sorted(self.themes))}"
        if is_main:
            return not_so(why)
        if told not in load_lexicon("themes").about or not self.measures.is_english:
            return untold(f"{told} is no theme that is looked for")
        if told in self.shown_themes:
            return untold(f"some words are of {told}; {why}")
        return not_so(f"no word is of {told}; {why}")

    def mood(self, name: str, *, is_main: bool) -> Judgement:
        """Whether the song has a mood; `is_main` as in `theme`."""
        told = name.casefold().strip()
        if not self.measures.is_english:
            return untold("moods are found in English lyrics alone")
        moods = [mood.theme for mood in self.measures.moods]
        if told in moods:
            return so(f"the mood is {told}")
        if told not in load_lexicon("moods").about:
            return untold(f"{told} is no mood that is looked for")
        why = f"the mood found is {' or '.join(moods) or 'none'}"
        if not is_main and told in self.shown_moods:
            return untold(f"some words are {told}; {why}")
        return not_so(why)

    # What is sung.

    def sings(self, phrase: str) -> Judgement:
        """Whether the lyrics have these words, in this order, without what stands between lines."""
        words = " ".join(find_words(phrase))
        if not words:
            return untold("no words are quoted")
        text = " ".join(self.lines)
        found = f" {words} " in f" {text} " or (_SPACELESS.search(words) and words in text)
        return judge(found, f'the lyrics sing "{phrase}"' if found else f'the lyrics do not sing "{phrase}"')

    def sings_times(self, phrase: str, times: int) -> Judgement:
        """How often a word is sung."""
        words = find_words(phrase)
        text = f" {' '.join(self.lines)} ".replace(" ", "  ")
        count = self.words[words[0]] if len(words) == 1 else text.count(f" {'  '.join(words)} ")
        return judge(words and count == times, f'"{phrase}" is sung {count} times')

    def line_comes(self, line: str, times: int) -> Judgement:
        """How often a line is sung."""
        count = self.lines.count(" ".join(find_words(line)))
        return judge(count == times, f"the line is sung {count} times")

    def bare(self, line: str) -> str:
        """The words of a line without what it has in parentheses, unless that is all."""
        return " ".join(find_words(_ASIDE.sub(" ", line)) or find_words(line))

    # Other songs.

    def find_work(self, title: str | None, artist: str | None) -> tuple[Judgement, tuple[KnownSong, ...]]:
        """Whether a song that is named as another one is real, and the songs that it may be."""
        by = self.knowledge.by_artist(artist) if artist else ()
        if title is None:
            assert artist is not None
            if not by:
                return untold(f"{artist} is not among the known artists"), ()
            return so(f"{by[0].artist} is a known artist"), by
        own = self.song.title is not None and normal_name(title) == normal_name(self.song.title)
        if own and (artist is None or self.song.artist is None or same_artist(artist, self.song.artist)):
            return not_so("it is the song itself"), ()
        called = self.knowledge.by_title(title)
        found = tuple(song for song in called if artist is None or same_artist(artist, song.artist or ""))
        if found:
            return so(f'"{found[0].title}" is a known song'), found
        if by:
            return not_so(f'no song of {by[0].artist} is called "{title}"'), ()
        return untold("the song is not among the known ones, nor is its artist"), ()
