"""What a data set knows of its training songs, without their lyrics: the facts of each, and figures over them.

    DIR/knowledge.jsonl      a line with the figures, then a line a song

The figures are those that answers quote (`preprocess.tasks.statistics`). Songs are kept by artist: past `MAX_SONGS` the
songs of a half of the artists are left out, whole, so that of each artist who is there all songs are known.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from preprocess.durable import write_whole
from preprocess.errors import DataError
from preprocess.outside_text import parse_json
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.neighbours import MAX_WORDS_KEPT, is_telling
from preprocess.tasks.statistics import CorpusStatistics, Group, Share, count_songs_with

KNOWLEDGE_FILE = "knowledge.jsonl"

MAX_SONGS = 100_000
"""Songs that are kept: 0.2 KB each on disk, 0.5 KB more with its words (20,000 songs at most), 1 KB in memory."""

MIN_SONGS_WITH = 3
"""How many songs of a genre, of a decade, and of all have a word is kept for words that so many of them have."""


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
        words: Telling words that it sings, in the order of the alphabet, with spaces between: of the songs among which
            similar ones are looked for; "" for the others.
    """

    id: str
    title: str | None = None
    artist: str | None = None
    genre: str | None = None
    year: int | None = None
    album: str | None = None
    language: str | None = None
    themes: tuple[str, ...] = ()
    words: str = ""

    def sings(self, word: str) -> bool | None:
        """Whether it sings a telling word; None where its words were not kept, or not all of them."""
        told, kept = word.casefold(), self.words.split()
        if told in kept:
            return True
        return False if 0 < len(kept) < MAX_WORDS_KEPT and is_telling(told) and " " not in told else None

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
        songs_with: In how many songs words and themes are, by group (`count_songs_with`, with `MIN_SONGS_WITH`).
    """

    everything: Group
    genres: Mapping[str, Group]
    decades: Mapping[str, Group]
    artists: Mapping[tuple[str, str], Group]
    songs_with: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, statistics: CorpusStatistics, counts: CorpusCounts | None = None) -> CorpusFigures:
        """The figures of some statistics and of the counts that they were made of."""
        songs_with = count_songs_with(counts, MIN_SONGS_WITH) if counts else {}
        return cls(
            statistics.everything, statistics.genres, statistics.decades, statistics.artists, songs_with
        )


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

    def find_artist_at_start(self, text: str, others: Collection[str] = ()) -> str | None:
        """The longest run of words that a text begins with and that is an artist's whole name; None without one.

        Args:
            text: Running text; the name is returned as it stands there.
            others: Normalised names that count as known too.
        """
        best = None
        for word in islice(re.finditer(r"\S+", text[:_MAX_NAME_CHARS]), _MAX_NAME_WORDS):
            told = text[: word.end()].rstrip(_AFTER_NAME)
            for name in (told, _POSSESSIVE.sub("", told)):
                is_known = name and (normal_name(name) in others or self.by_artist(name))
                if is_known and (best is None or normal_name(best) != normal_name(name)):
                    best = name
                if is_known:
                    break
        return best

    def by_title(self, title: str) -> tuple[KnownSong, ...]:
        """The songs of a title, by whole normalised title."""
        return tuple(self._by_title.get(normal_name(title), ()))

    @cached_property
    def themes(self) -> frozenset[str]:
        """The main themes of all songs, case-folded."""
        return frozenset(theme.casefold() for song in self.songs.values() for theme in song.themes)

    @cached_property
    def artist_groups(self) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        """Normalised name of an artist → genre → the key of that group in `corpus.artists`."""
        groups: dict[str, dict[str, tuple[str, str]]] = {}
        for artist, genre in self.corpus.artists:
            groups.setdefault(normal_name(artist), {})[genre] = (artist, genre)
        return groups

    @cached_property
    def artists(self) -> Mapping[str, str]:
        """Normalised name → a spelling of it, of every artist of the catalogue."""
        return {name: songs[0].artist or "" for name, songs in self._by_artist.items()}


_MAX_NAME_CHARS, _MAX_NAME_WORDS = 200, 12
_AFTER_NAME = ".,;:!?*_\"\u201c\u201d)('\u2019"
_POSSESSIVE = re.compile(r"['\u2019]s$")
_FEATURED = re.compile(r"\s*[(\[]?(?<!\w)(?:feat|ft|featuring)\b\.?\s.*$", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(r"\w+")
_APOSTROPHES = str.maketrans("", "", "'\u2019\u2018\u02bc`")


@lru_cache(maxsize=65_536)
def normal_name(name: str) -> str:
    """A name as it is compared: no case, accents or punctuation, "&" as "and", no "The" before, no guest after."""
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(letter for letter in letters if unicodedata.category(letter) != "Mn").strip()
    without_guest = _FEATURED.sub("", bare) or bare
    words = _TOKEN.findall(without_guest.replace("&", " and ").translate(_APOSTROPHES)) or [bare]
    return " ".join(words[1:] if words[0] == "the" and len(words) > 1 else words)


def write_knowledge(path: Path, knowledge: Knowledge) -> None:
    """Write what is known, durably; the same knowledge gives the same bytes.

    Raises:
        NoSpaceError: The disk is full.
        DataError: It cannot be written.
    """
    corpus = knowledge.corpus
    head = {
        "num_songs": len(knowledge.songs),
        "is_cut": knowledge.is_cut,
        "everything": asdict(corpus.everything),
        "genres": {name: asdict(corpus.genres[name]) for name in sorted(corpus.genres)},
        "decades": {name: asdict(corpus.decades[name]) for name in sorted(corpus.decades)},
        "artists": [[*names, asdict(corpus.artists[names])] for names in sorted(corpus.artists)],
        "songs_with": corpus.songs_with,
    }
    with write_whole(path) as file:
        file.write(_dump(head))
        for _, song in sorted(knowledge.songs.items()):
            file.write(_dump({name: value for name, value in asdict(song).items() if value}))


def _dump(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def read_knowledge(data: Path) -> Knowledge:
    """Read what a data set knows of its training songs.

    Args:
        data: Folder of the data set.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = data / KNOWLEDGE_FILE
    if not path.is_file():
        raise DataError(f"{path}: missing, so that statements cannot be checked. Build the data set again")
    try:
        with path.open("rb") as file:
            head = parse_json(file.readline())
            knowledge = Knowledge(map(_read_song, file), _read_figures(head), is_cut=bool(head["is_cut"]))
        if len(knowledge.songs) != head["num_songs"]:
            raise ValueError(f"{len(knowledge.songs)} songs, expected {head['num_songs']}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged ({type(error).__name__}: {error}); copy the data set again or build it again"
        ) from error
    return knowledge


def _read_song(line: bytes) -> KnownSong:
    value = parse_json(line)
    song = KnownSong(**{**value, "themes": tuple(map(str, value.get("themes", ())))})
    texts = (song.title, song.artist, song.genre, song.album, song.language, song.words)
    if not isinstance(song.id, str) or not all(isinstance(text, str | None) for text in texts):
        raise TypeError(f"song {song.id!r}: a fact that is no text")
    if not isinstance(song.year, int | None):
        raise TypeError(f"song {song.id!r}: year {song.year!r}")
    return song


def _read_figures(head: dict[str, Any]) -> CorpusFigures:
    return CorpusFigures(
        everything=_read_group(head["everything"]),
        genres={name: _read_group(value) for name, value in head["genres"].items()},
        decades={name: _read_group(value) for name, value in head["decades"].items()},
        artists={(artist, genre): _read_group(value) for artist, genre, value in head["artists"]},
        songs_with={group: _read_counts(value) for group, value in head["songs_with"].items()},
    )


def _read_group(value: dict[str, Any]) -> Group:
    return Group(
        num_songs=int(value["num_songs"]),
        num_english=int(value["num_english"]),
        num_lines=int(value["num_lines"]),
        num_words=int(value["num_words"]),
        num_distinct=int(value["num_distinct"]),
        num_with_chorus=int(value["num_with_chorus"]),
        persons=_read_counts(value["persons"]),
        schemes=_read_counts(value["schemes"]),
        words=dict(_read_shares(value["words"])),
        themes=dict(_read_shares(value["themes"])),
    )


def _read_counts(value: dict[str, Any]) -> dict[str, int]:
    return {name: int(count) for name, count in value.items()}


def _read_shares(value: dict[str, Any]) -> Iterator[tuple[str, Share]]:
    for name, share in value.items():
        yield str(name), Share(int(share["inside"]), int(share["outside"]), int(share["rank"]))
