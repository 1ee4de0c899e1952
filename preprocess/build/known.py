"""The facts of the training songs, gathered piece by piece within a bounded memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from preprocess.knowledge import MAX_SONGS, CorpusFigures, Knowledge, KnownSong
from preprocess.measure.song import Measures
from preprocess.schema import Song
from preprocess.tasks.counts import CorpusCounts, artist_level
from preprocess.tasks.main_themes import main_themes
from preprocess.tasks.statistics import CorpusStatistics

_MAX_LEVEL = 20


class KnownSongs:
    """Songs without their lyrics; the same ones in any order of adding and merging.

    Past `max_songs` a half of the artists is left out, whole, by a hash of their names, then another half, as in
    `preprocess.tasks.counts`: of an artist who is there, all songs are there.

    Args:
        max_songs: Songs that are kept, about 0.5 KiB each.
    """

    def __init__(self, max_songs: int = MAX_SONGS) -> None:
        self.max_songs = max_songs
        self.num_by_level = np.zeros(_MAX_LEVEL + 1, np.int64)
        self._songs: list[tuple[int, KnownSong]] = []
        self._level = 0

    @property
    def is_cut(self) -> bool:
        """Whether songs were left out."""
        return self._level > 0

    def add(self, song: Song, measures: Measures) -> None:
        """Add a training song, with what was measured in it."""
        themes = tuple(dict.fromkeys(theme.theme for theme in main_themes(song, measures)))
        known = KnownSong(
            song.id, song.title, song.artist, song.genre, song.year, song.album, song.language, themes
        )
        level = artist_level(song)
        self.num_by_level[level] += 1
        if level >= self._level:
            self._songs.append((level, known))
        if len(self._songs) > self.max_songs:
            self._cut()

    def merge(self, other: KnownSongs) -> None:
        """Add another piece's songs."""
        self.num_by_level += other.num_by_level
        self._songs += other._songs
        self._cut()

    def knowledge(self, statistics: CorpusStatistics, counts: CorpusCounts) -> Knowledge:
        """What is known: the songs, the figures, and the words of those songs among which similar ones are looked for.

        Args:
            statistics: Of the same songs.
            counts: That the statistics were made of.
        """
        words = {song.id: " ".join(sorted(song.words)) for song in statistics.similar.songs}
        songs = (replace(song, words=words.get(song.id, "")) for _, song in self._songs)
        return Knowledge(songs, CorpusFigures.of(statistics, counts), is_cut=self.is_cut)

    def _cut(self) -> None:
        """Leave out artists until the songs fit: which ones is told by the songs of each level, in whatever order."""
        kept = np.cumsum(self.num_by_level[::-1])[::-1]
        fitting = np.flatnonzero(kept <= self.max_songs)
        self._level = int(fitting[0]) if len(fitting) else _MAX_LEVEL
        self._songs = [item for item in self._songs if item[0] >= self._level]
