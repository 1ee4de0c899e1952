"""Sentences that set a song beside the songs of the training corpus, each with the figures that show it.

"Songs counted" are those of the corpus. A share among fewer than fifty songs is told as a number of songs.
"""

from __future__ import annotations

from dataclasses import dataclass

from preprocess.tasks.evidence import percent, quote
from preprocess.tasks.statistics import Group, Share
from preprocess.tasks.task import Facts

_MOST_TELLING = 4
"""A song's answer shows some of this many words, the most telling that it sings."""

_MIN_DIFFERENCE = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """A group of songs and the songs that it is compared with.

    Attributes:
        group: The songs of an artist, a genre or a decade.
        whole: The songs that they are compared with, themselves among them.
        name: What the group's songs are called after "in 9% of", as in "the Folk songs counted".
        whole_name: What the others are called, as in "all songs".
    """

    group: Group
    whole: Group
    name: str
    whole_name: str

    def words_of(self, facts: Facts) -> list[str]:
        """The group's most telling words among those that a song sings."""
        words = self.group.words
        shared = words.keys() & facts.measures.words.keys()
        return sorted(shared, key=lambda word: words[word].rank)[:_MOST_TELLING]

    def themes_of(self, facts: Facts) -> list[str]:
        """The themes of a song that the group has more often than others."""
        return [found.theme for found in facts.themes if found.theme in self.group.themes]

    def word_sentence(self, word: str) -> str:
        """In how many songs a telling word is sung."""
        return f"{quote(word)} is in {self.figures(self.group.words[word])}."

    def theme_sentence(self, theme: str) -> str:
        """How many songs have a theme among their main ones."""
        named = theme[:1].upper() + theme[1:]
        return f"{named} is a main theme in {self.figures(self.group.themes[theme])}."

    def figures(self, share: Share) -> str:
        """A share of the group's songs, against that of the others."""
        inside = percent(share.inside, self.group.num_english)
        outside = percent(share.outside, self.whole.num_english)
        return f"{inside} of {self.name}, against {outside} of {self.whole_name}"

    def line_sentence(self, words_per_line: float) -> str | None:
        """The length of a song's lines, when it is nearer to that of the group than to that of the others."""
        mean, others = self.group.words_per_line, self.whole.words_per_line
        is_nearer = abs(words_per_line - mean) < abs(words_per_line - others)
        if not is_nearer or abs(mean - others) < _MIN_DIFFERENCE * others:
            return None
        lengths = f"{words_per_line:.1f} words on average, those of {self.name} {mean:.1f}"
        return f"Its lines have {lengths}, those of {self.whole_name} {others:.1f}."


def compare_genre(facts: Facts) -> Comparison | None:
    """The song's genre beside all songs; None when too little is known of it."""
    corpus = facts.corpus
    group = corpus.genre(facts.song.genre) if corpus else None
    if corpus is None or group is None:
        return None
    return Comparison(
        group, corpus.everything, f"the {_called(f'{facts.song.genre} songs', group)} counted", "all"
    )


def compare_decade(facts: Facts) -> Comparison | None:
    """The song's decade beside all songs; None when too little is known of it."""
    corpus = facts.corpus
    group = corpus.decade(facts.song.decade) if corpus else None
    if corpus is None or group is None:
        return None
    return Comparison(group, corpus.everything, f"the {_called('songs', group)} counted from then", "all")


def compare_artist(facts: Facts) -> Comparison | None:
    """The artist's songs beside those of the genre; None when too little is known of them."""
    corpus, song = facts.corpus, facts.song
    group = corpus.artist(song.artist, song.genre) if corpus else None
    whole = corpus.genre(song.genre) if corpus else None
    if corpus is None or group is None or whole is None:
        return None
    return Comparison(
        group, whole, f"the artist's {_called('songs', group)}", f"the {song.genre} songs counted"
    )


def _called(noun: str, group: Group) -> str:
    """What a group's songs are called: the words of English ones alone are counted."""
    return noun if group.num_english == group.num_songs else f"English {noun}"


def corpus_sentences(comparison: Comparison | None, facts: Facts, most: int = 2) -> list[str]:
    """What a song has in common with its group, words first: at most so many words, and a theme."""
    if comparison is None:
        return []
    words = [comparison.word_sentence(word) for word in comparison.words_of(facts)[:most]]
    return words + [comparison.theme_sentence(theme) for theme in comparison.themes_of(facts)[:1]]
