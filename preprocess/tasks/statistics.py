"""What sets an artist, a genre or a decade apart in the training songs, with the figures that show it.

Words and themes are told by the log-odds ratio with an informative Dirichlet prior of Monroe, Colaresi & Quinn,
"Fightin' Words" (Political Analysis 16, 2008, equations 15-22), over the number of songs that have them. The artist is
compared with the rest of the genre, a genre and a decade with the rest of the corpus.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.measure.rhyme import SCHEMES
from preprocess.measure.structure import PERSONS, find_words
from preprocess.schema import Int64Array
from preprocess.tasks.counts import Cell, CorpusCounts
from preprocess.tasks.neighbours import SimilarIndex

MIN_SONGS_OF_ARTIST = 5
MIN_SONGS_OF_GROUP = 20
"""Songs that a genre or a decade needs to be spoken of."""

MIN_Z = 2.0
"""Standard deviations of the log-odds ratio from which a word is telling: about one in fifty by chance."""

MIN_RATIO = 1.5
"""A telling word is in a share of the group's songs that is larger by this factor than in all songs compared."""

PRIOR_WEIGHT = 500
"""Songs' worth of words that the prior stands for (alpha_0 in the paper)."""

MIN_SONGS_WITH_WORD = {"artist": 3, "genre": 5, "decade": 5}
MAX_WORDS = {"artist": 30, "genre": 300, "decade": 300}

_THEME = ":theme:"

_GROUPED: dict[str, Callable[[Cell], str]] = {
    "genre": lambda cell: cell.genre,
    "decade": lambda cell: cell.decade,
}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Share:
    """In how many songs something is.

    Attributes:
        inside: Songs of the group that have it.
        outside: Songs that the group is compared with, itself among them, that have it.
        rank: How many words or themes are more telling of the group.
    """

    inside: int
    outside: int
    rank: int


@dataclass(frozen=True, slots=True)
class Group:
    """The songs of the corpus, of a genre or decade, or of an artist in a genre, as counted.

    Attributes:
        num_songs: Songs.
        num_english: Those whose words were counted.
        num_lines: Lines that they sing.
        num_words: Words that they sing.
        num_distinct: Different words of each song, summed up.
        num_with_chorus: Songs that have a chorus, headed or not.
        persons: Pronoun → English songs in which it leads.
        schemes: Rhyme scheme → English songs in which it leads.
        words: Telling words, the most telling first; in how many English songs.
        themes: Themes that are more frequent than elsewhere, the most telling first; in how many songs.
    """

    num_songs: int
    num_english: int
    num_lines: int
    num_words: int
    num_distinct: int
    num_with_chorus: int
    persons: Mapping[str, int]
    schemes: Mapping[str, int]
    words: Mapping[str, Share]
    themes: Mapping[str, Share]

    @property
    def words_per_line(self) -> float:
        """Mean length of a line, in words."""
        return self.num_words / max(1, self.num_lines)

    @property
    def distinct_share(self) -> float:
        """Different words of a song per word, over all songs."""
        return self.num_distinct / max(1, self.num_words)


class CorpusStatistics:
    """What examples may know of the training songs. It travels to other processes.

    Args:
        counts: Of all training songs.

    Attributes:
        everything: All songs that were counted.
        similar: The songs that are looked through for similar ones.
        genres: By genre, what is known of those with songs enough.
        decades: By decade, as in "1990s", likewise.
        artists: By artist and genre ("" for songs without one), likewise.
    """

    def __init__(self, counts: CorpusCounts) -> None:
        table = _Table(counts)
        self.everything = table.describe(table.sum(range(len(table.cells))))
        self.similar = SimilarIndex(counts.pool.songs())
        self.genres: Mapping[str, Group] = table.compare_groups("genre", _GROUPED["genre"])
        self.decades: Mapping[str, Group] = table.compare_groups("decade", _GROUPED["decade"])
        self.artists: Mapping[tuple[str, str], Group] = table.compare_artists()

    def genre(self, name: str | None) -> Group | None:
        """What is known of a genre; None for one with too few songs."""
        return self.genres.get(name or "")

    def decade(self, name: str | None) -> Group | None:
        """What is known of a decade, as in "1990s"; None for one with too few songs."""
        return self.decades.get(name or "")

    def artist(self, name: str | None, genre: str | None) -> Group | None:
        """What is known of an artist's songs of a genre (of those without one for None), against that genre."""
        return self.artists.get((name or "", genre or ""))


class _Table:
    """The counts with rows and columns in alphabetical order, so that nothing depends on the order of counting."""

    def __init__(self, counts: CorpusCounts) -> None:
        from scipy.sparse import csr_matrix

        keys, values = counts.table()
        cells, rows = _sort_keys(counts.cells, keys >> 32)
        features, columns = _sort_keys(counts.features, keys & 0xFFFFFFFF)
        self.cells: list[Cell] = cells
        self.features: list[str] = features
        self.column = {feature: column for column, feature in enumerate(features)}
        self.matrix = csr_matrix((values, (rows, columns)), (len(cells), len(features)))
        self.is_word = np.array([not feature.startswith(":") for feature in features], bool)
        self.is_theme = np.array([feature.startswith(_THEME) for feature in features], bool)
        self.all = self.sum(range(len(cells)))

    def sum(self, rows: Iterable[int]) -> Int64Array:
        """The features of some cells, summed: int64[features]."""
        total: Int64Array = np.asarray(self.matrix[list(rows)].sum(axis=0)).ravel()
        return total

    def group_by(self, key: Callable[[Cell], Any]) -> dict[Any, list[int]]:
        """The rows of each group that has a name."""
        rows: dict[Any, list[int]] = {}
        for row, cell in enumerate(self.cells):
            rows.setdefault(key(cell), []).append(row)
        return rows

    def compare_groups(self, kind: str, key: Callable[[Cell], str]) -> dict[str, Group]:
        """Each genre or decade with songs enough, against the whole corpus."""
        groups = {}
        for name, rows in self.group_by(key).items():
            counts = self.sum(rows)
            if name and self.count(counts, ":songs") >= MIN_SONGS_OF_GROUP:
                groups[name] = self.describe(counts, self.all, kind)
        return groups

    def compare_artists(self) -> dict[tuple[str, str], Group]:
        """Each artist with songs enough in a genre, against that genre."""
        groups = {}
        genres = {genre: self.sum(rows) for genre, rows in self.group_by(lambda cell: cell.genre).items()}
        for (artist, genre), rows in self.group_by(lambda cell: (cell.artist, cell.genre)).items():
            counts = self.sum(rows)
            if artist and self.count(counts, ":songs") >= MIN_SONGS_OF_ARTIST:
                own = frozenset(find_words(artist))
                groups[artist, genre] = self.describe(counts, genres[genre], "artist", without=own)
        return groups

    def count(self, counts: Int64Array, feature: str) -> int:
        """One of the features, 0 where no song has it."""
        return int(counts[self.column[feature]]) if feature in self.column else 0

    def tell_all(self, rows: Iterable[int], minimum: int) -> dict[str, int]:
        """Songs of some cells with each word that `minimum` of them have, and with each theme."""
        counts = self.sum(rows)
        kept = (self.is_word & (counts >= minimum)) | (self.is_theme & (counts > 0))
        return {self.features[column]: int(counts[column]) for column in np.flatnonzero(kept)}

    def describe(
        self,
        counts: Int64Array,
        whole: Int64Array | None = None,
        kind: str = "",
        without: frozenset[str] = frozenset(),
    ) -> Group:
        """What is known of a group; words and themes only against a whole that the group is a part of."""
        words, themes = {}, {}
        if whole is not None:
            minimum = MIN_SONGS_WITH_WORD[kind]
            words = self._tell(counts, whole, self.is_word, minimum, MAX_WORDS[kind], without)
            themes = self._tell(counts, whole, self.is_theme, minimum, MAX_WORDS[kind], without)
        return Group(
            num_songs=self.count(counts, ":songs"),
            num_english=self.count(counts, ":english"),
            num_lines=self.count(counts, ":lines"),
            num_words=self.count(counts, ":words"),
            num_distinct=self.count(counts, ":distinct"),
            num_with_chorus=self.count(counts, ":chorus"),
            persons={person: self.count(counts, f":person:{person}") for person in PERSONS},
            schemes={scheme: self.count(counts, f":rhyme:{scheme}") for scheme in SCHEMES},
            words=words,
            themes=themes,
        )

    def _tell(
        self,
        counts: Int64Array,
        whole: Int64Array,
        of_kind: npt.NDArray[np.bool_],
        minimum: int,
        most: int,
        without: frozenset[str],
    ) -> dict[str, Share]:
        """The telling words or themes of a group, by z."""
        columns = np.flatnonzero(of_kind & (counts >= minimum))
        inside, outside = counts[columns], whole[columns]
        sizes = int(counts[of_kind].sum()), int((whole - counts)[of_kind].sum())
        prior = PRIOR_WEIGHT * self.all[columns] / max(1, int(self.all[of_kind].sum()))
        z = log_odds_z(inside, outside - inside, sizes, prior)
        songs = self.count(counts, ":english"), self.count(whole, ":english")
        ratio = inside * songs[1] / np.maximum(1, outside * songs[0])
        order = np.lexsort((columns, -np.round(z, 6)))
        told: dict[str, Share] = {}
        for i in order[(z[order] >= MIN_Z) & (ratio[order] >= MIN_RATIO)]:
            name = self.features[columns[i]].removeprefix(_THEME)
            if name not in without and len(told) < most:
                told[sys.intern(name)] = Share(int(inside[i]), int(outside[i]), len(told))
        return told


def count_songs_with(counts: CorpusCounts, minimum: int) -> dict[str, dict[str, int]]:
    """In how many English songs words and themes are: group → word, or ":theme:" and a theme → songs.

    The groups are "" (all songs), "genre:" and a genre, "decade:" and a decade, of those that are spoken of.

    Args:
        counts: Of all training songs.
        minimum: A word in fewer songs of a group is left out; a theme never is.
    """
    table = _Table(counts)
    groups = {"": list(range(len(table.cells)))}
    for kind, key in _GROUPED.items():
        for name, rows in table.group_by(key).items():
            if name and table.count(table.sum(rows), ":songs") >= MIN_SONGS_OF_GROUP:
                groups[f"{kind}:{name}"] = rows
    return {name: table.tell_all(rows, minimum) for name, rows in sorted(groups.items())}


def log_odds_z(one: Int64Array, other: Int64Array, sizes: tuple[int, int], prior: Floats) -> Floats:
    """How far words are more frequent in one group than in another, in standard deviations.

    Equations 16, 18, 20 and 22 of Monroe, Colaresi & Quinn (2008).

    Args:
        one: int64[W], each word's count in one group.
        other: int64[W], its count in the other.
        sizes: Counts of all words in the two groups.
        prior: float64[W], the prior's count of each word; of all words it counts `PRIOR_WEIGHT`.

    Returns:
        float64[W]; positive where a word is more frequent in the first group.
    """
    left, right = one + prior, other + prior
    odds = left / (sizes[0] + PRIOR_WEIGHT - left), right / (sizes[1] + PRIOR_WEIGHT - right)
    z: Floats = (np.log(odds[0]) - np.log(odds[1])) / np.sqrt(1 / left + 1 / right)
    return z


def _sort_keys(numbers: Mapping[Any, int], used: Int64Array) -> tuple[list[Any], Int64Array]:
    """The keys that are used, sorted, and the place of each used number among them."""
    names = list(numbers)
    present = sorted(np.unique(used).tolist(), key=lambda number: names[number])
    place = np.zeros(len(names), np.int64)
    place[present] = np.arange(len(present))
    return [names[number] for number in present], place[used]
