"""What a data set knows of its training songs, without their lyrics: the facts of each, and figures over them.

    DIR/knowledge.jsonl      a line with the figures, then a line a song

The figures are those that answers quote (`preprocess.tasks.statistics`). Songs are kept by artist: past `MAX_SONGS` the
songs of a half of the artists are left out, whole, so that of each artist who is there all songs are known.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from preprocess.tasks.statistics import Group

KNOWLEDGE_FILE = "knowledge.jsonl"


@dataclass(frozen=True, slots=True)
class KnownSong:
    """The facts of a training song; None (or empty) where its source does not give one.

    Attributes:
        id: The song's id, as in the rows.
        title: Title.
        artist: Performer, as the source spells it.
        genre: Genre.
        year: Year of release.
        album: Album title.
        language: ISO 639 code.
        themes: Its main themes, as answers name them.
    """

    id: str
    title: str | None = None
    artist: str | None = None
    genre: str | None = None
    year: int | None = None
    album: str | None = None
    language: str | None = None
    themes: tuple[str, ...] = ()

    @property
    def decade(self) -> str | None:
        """The decade as in "1990s", or None when the year is unknown."""
        return None if self.year is None else f"{self.year // 10 * 10}s"


@dataclass(frozen=True, slots=True)
class CorpusFigures:
    """Groups of the songs that were counted.

    Attributes:
        everything: All of them.
        genres: By genre, those with songs enough.
        decades: By decade, as in "1990s".
        artists: By artist and genre.
    """

    everything: Group
    genres: Mapping[str, Group]
    decades: Mapping[str, Group]
    artists: Mapping[tuple[str, str], Group]


class Knowledge:
    """What is known of the training songs.

    Args:
        songs: The songs.
        corpus: The figures.
        is_cut: Whether some artists' songs were left out for want of room.

    Attributes:
        songs: Id → song.
        corpus: The figures.
        is_cut: See above.
    """

    def __init__(self, songs: Iterable[KnownSong], corpus: CorpusFigures, *, is_cut: bool = False) -> None:
        self.songs: Mapping[str, KnownSong] = {song.id: song for song in songs}
        self.corpus = corpus
        self.is_cut = is_cut
        self._by_artist: dict[str, list[KnownSong]] = {}
        self._by_title: dict[str, list[KnownSong]] = {}
        for song in self.songs.values():
            if song.artist:
                self._by_artist.setdefault(normal_name(song.artist), []).append(song)
            if song.title:
                self._by_title.setdefault(normal_name(song.title), []).append(song)

    def by_artist(self, name: str) -> tuple[KnownSong, ...]:
        """The songs of an artist, by whole normalised name; () for one who is not in the catalogue."""
        return tuple(self._by_artist.get(normal_name(name), ()))

    def by_title(self, title: str) -> tuple[KnownSong, ...]:
        """The songs of a title, by whole normalised title."""
        return tuple(self._by_title.get(normal_name(title), ()))

    @property
    def artists(self) -> Mapping[str, str]:
        """Normalised name → a spelling of it, of every artist of the catalogue."""
        return {name: songs[0].artist or "" for name, songs in self._by_artist.items()}


_FEATURED = re.compile(r"\s*[(\[]?\b(?:feat|ft|featuring)\b\.?.*$", re.IGNORECASE)
_TOKEN = re.compile(r"\w+")


@lru_cache(maxsize=65_536)
def normal_name(name: str) -> str:
    """A name as it is compared: no case, accents or punctuation, "&" as "and", no "The" before, no guest after."""
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(letter for letter in letters if unicodedata.category(letter) != "Mn")
    words = _TOKEN.findall(_FEATURED.sub("", bare).replace("&", " and ").replace("'", "")) or [bare.strip()]
    return " ".join(words[1:] if words[0] == "the" and len(words) > 1 else words)


def read_knowledge(data: Path) -> Knowledge:
    """Read what a data set knows of its training songs.

    Args:
        data: Folder of the data set.

    Raises:
        DataError: The file is missing or damaged.
    """
    raise NotImplementedError
