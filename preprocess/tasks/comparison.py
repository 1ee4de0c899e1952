"""Sentences that set a song beside the songs of the training corpus, each with the figures that show it.

"Songs counted" are those of the corpus. Shares are told in hundredths, and as a number of songs where these are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from preprocess.tasks.evidence import FEW_SONGS, join, percent, quote
from preprocess.tasks.statistics import Group, Share
from preprocess.tasks.task import Draw, Facts

_MOST_TELLING = 4
"""A song's answer shows some of this many words, the most telling that it sings."""

_MIN_DIFFERENCE = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """A group of songs and the songs that it is compared with.

    Attributes:
        group: The songs of an artist, a genre or a decade.
        whole: The songs that they are compared with, themselves among them.
        name: What the group's songs are called, as in "the Folk songs counted".
        whole_name: What the others are called, as in "all".
    """

    group: Group
    whole: Group
    name: str
    whole_name: str

    def words_of(self, facts: Facts) -> list[str]:
        """The group's most telling words among those that a song sings; none for a song that is not English."""
        words = self.group.words
        shared = words.keys() & facts.measures.words.keys() if facts.measures.is_english else ()
        return sorted(shared, key=lambda word: words[word].rank)[:_MOST_TELLING]

    def themes_of(self, facts: Facts) -> list[str]:
        """The themes of a song that the group has more often than others."""
        return [found.theme for found in facts.themes if found.theme in self.group.themes]

    def words_sentence(self, words: Sequence[str]) -> str:
        """How many songs sing each of one or two telling words."""
        shares = [self.group.words[word] for word in words]
        inside = [percent(share.inside, self.group.num_english) for share in shares]
        told = join([f"{part} {quote(word)}" for part, word in zip(inside, words, strict=True)])
        return self._compare(f"{inside[0]} sing{told.removeprefix(inside[0])}", shares)

    def theme_sentence(self, theme: str) -> str:
        """How many songs have a theme among their main ones."""
        share = self.group.themes[theme]
        inside = percent(share.inside, self.group.num_english)
        return self._compare(f"{inside} have {theme} as a main theme", [share])

    def _compare(self, told: str, shares: Sequence[Share]) -> str:
        inside = _count(self.name, self.group.num_english)
        others = join([percent(share.outside, self.whole.num_english) for share in shares])
        return f"Of {inside}, {told}; of {_count(self.whole_name, self.whole.num_english)}, {others}."

    def line_sentence(self, words_per_line: float) -> str | None:
        """The length of a song's lines, when it is nearer to that of the group than to that of the others."""
        mean, others = self.group.words_per_line, self.whole.words_per_line
        is_nearer = abs(words_per_line - mean) < abs(words_per_line - others)
        # The lines of songs in every language are counted.
        is_read = (
            self.group.num_english == self.group.num_songs and self.whole.num_english == self.whole.num_songs
        )
        if not is_nearer or not is_read or abs(mean - others) < _MIN_DIFFERENCE * others:
            return None
        lengths = f"{words_per_line:.1f} words on average, those of {self.name} {mean:.1f}"
        return f"Its lines have {lengths}, those of {self.whole_name} {others:.1f}."


def compare_genre(facts: Facts) -> Comparison | None:
    """The song's genre beside all songs; None when too little is known of it."""
    corpus, genre = facts.corpus, facts.song.genre
    group = corpus.genre(genre) if corpus else None
    if corpus is None or group is None:
        return None
    return Comparison(
        group, corpus.everything, f"the {_songs(group, genre)} counted", _all(corpus.everything)
    )


def compare_decade(facts: Facts) -> Comparison | None:
    """The song's decade beside all songs; None when too little is known of it."""
    corpus = facts.corpus
    group = corpus.decade(facts.song.decade) if corpus else None
    if corpus is None or group is None:
        return None
    return Comparison(
        group, corpus.everything, f"the {_songs(group)} counted from then", _all(corpus.everything)
    )


def compare_artist(facts: Facts) -> Comparison | None:
    """The artist's songs beside those of the genre; None when too little is known of them."""
    corpus, song = facts.corpus, facts.song
    group = corpus.artist(song.artist, song.genre) if corpus else None
    whole = corpus.genre(song.genre) if corpus else None
    if group is None or whole is None:
        return None
    return Comparison(
        group, whole, f"the artist's {_songs(group)}", f"the {_songs(whole, song.genre)} counted"
    )


def _count(called: str, total: int) -> str:
    """What some songs are called, with their number where they are few: "the artist's 12 songs"."""
    if total >= FEW_SONGS:
        return called
    article = next(article for article in ("the artist's", "the", "all") if called.startswith(article))
    return f"{article} {total}{called.removeprefix(article)}"


def _songs(group: Group, genre: str | None = None) -> str:
    """What a group's songs are called: of those in several languages the English ones, whose words are counted."""
    words = ["" if group.num_english == group.num_songs else "English", genre or "", "songs"]
    return " ".join(word for word in words if word)


def _all(group: Group) -> str:
    return "all" if group.num_english == group.num_songs else "all English songs"


def corpus_sentences(comparison: Comparison | None, facts: Facts, draw: Draw, most: int = 2) -> list[str]:
    """What a song has in common with its group: one or two words, or (in a third of the cases) a theme."""
    if comparison is None:
        return []
    words, themes = comparison.words_of(facts), comparison.themes_of(facts)
    if themes and (not words or not draw.below(3)):
        return [comparison.theme_sentence(draw.one_of(themes))]
    return [comparison.words_sentence(draw.some_of(words, most))] if words else []
