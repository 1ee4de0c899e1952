"""A balanced sample of songs, and the split into training and evaluation songs.

    songs ── length ── one copy of each lyrics ── songs per artist ── genres, each spread over its decades ── split

Which songs are taken depends on the seed and on the songs alone: each has a priority, the hash of (seed, id), and
every "take n" takes the n smallest. The order of the input, the process and the machine do not matter.

Memory: some 30 bytes a song plus the names of artists; the songs themselves are read a second time and only the
taken ones are kept. (An iterator that can be read only once is made a list first.)
"""

from __future__ import annotations

import difflib
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from preprocess.choose.split import priority, split_songs
from preprocess.clean.lyrics import MAX_CHARS, MIN_CHARS, lyrics_hash
from preprocess.errors import ConfigError, DataError
from preprocess.read.columns import content_id
from preprocess.schema import Int64Array, Song
from preprocess.settings import Settings

_NONE = -1


class SampleConfig(Settings):
    """How many songs of what kind are taken."""

    songs_per_genre: int = Field(default=2000, ge=1)
    """Songs taken of each genre, training and evaluation together."""

    songs_without_genre: int | None = Field(default=None, ge=0)
    """Songs taken of those without a genre. None: none where any song has a genre, else as many as of a genre."""

    genres: tuple[str, ...] | None = None
    """Take only these genres. None: every genre there is."""

    songs_per_artist: int = Field(default=50, ge=1)
    """Songs of one artist at most, over all genres; names are compared without case."""

    min_chars: int = Field(default=MIN_CHARS, ge=0)
    """Songs with shorter lyrics are left out."""

    max_chars: int = Field(default=MAX_CHARS, ge=1)
    """Songs with longer lyrics are left out."""

    balance_decades: bool = True
    """Within a genre take from every decade in turn, as long as it lasts, instead of as they come."""

    eval_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Part of the taken songs that is set aside for evaluation, the same in every genre."""

    eval_songs: int | None = Field(default=None, ge=0)
    """Number of songs set aside for evaluation, in place of `eval_fraction`."""

    train_songs_per_eval_artist: int = Field(default=1, ge=0)
    """A song is set aside only if so many songs of its artist, when known, stay in training."""


@dataclass(frozen=True, slots=True)
class GenreOutcome:
    """What became of one genre.

    Attributes:
        genre: Name, or None for the songs without one.
        wanted: Songs that the settings ask for.
        had: Songs there were, without duplicates and wrong lengths.
        taken: Songs taken; fewer than both when the limit per artist stood in the way.
        evaluation: Of the taken, how many were set aside for evaluation.
    """

    genre: str | None
    wanted: int
    had: int
    taken: int
    evaluation: int


@dataclass(frozen=True, slots=True)
class SampleOutcome:
    """What a sample was made of.

    Attributes:
        num_read: Songs given.
        num_wrong_length: Left out for their length.
        num_duplicates: Left out because another copy of their lyrics was kept.
        num_over_artist_limit: Left out because their artist had enough songs.
        num_eval_wanted: Evaluation songs asked for.
        genres: By genre, in alphabetical order, songs without genre last.
    """

    num_read: int
    num_wrong_length: int
    num_duplicates: int
    num_over_artist_limit: int
    num_eval_wanted: int
    genres: tuple[GenreOutcome, ...]

    @property
    def num_taken(self) -> int:
        """Songs taken."""
        return sum(genre.taken for genre in self.genres)

    @property
    def num_eval(self) -> int:
        """Evaluation songs."""
        return sum(genre.evaluation for genre in self.genres)

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain values."""
        return asdict(self) | {"num_taken": self.num_taken, "num_eval": self.num_eval}


class _Columns:
    """What the choice needs of each song, as columns: place in the input, priority, lyrics, genre, artist, decade."""

    def __init__(self, songs: Iterable[Song], config: SampleConfig, seed: int) -> None:
        self.num_read = 0
        self.genres: dict[str, int] = {}
        artists: dict[str, int] = {}
        numbers = {name: array("q") for name in ("place", "genre", "artist", "decade")}
        hashes = {name: array("Q") for name in ("priority", "lyrics")}
        for place, song in enumerate(songs):
            self.num_read += 1
            if not config.min_chars <= len(song.lyrics) <= config.max_chars:
                continue
            numbers["place"].append(place)
            numbers["genre"].append(_code(self.genres, song.genre))
            numbers["artist"].append(_code(artists, song.artist and song.artist.casefold()))
            numbers["decade"].append(_NONE if song.year is None else song.year // 10)
            hashes["priority"].append(priority(seed, song.id, "take"))
            hashes["lyrics"].append(lyrics_hash(song.lyrics))
        columns = {name: np.asarray(values) for name, values in (numbers | hashes).items()}
        order = np.lexsort((columns["lyrics"], columns["priority"]))
        self.place, self.genre, self.artist = (columns[name][order] for name in ("place", "genre", "artist"))
        self.decade, self.lyrics = columns["decade"][order], columns["lyrics"][order]


def _code(codes: dict[str, int], name: str | None) -> int:
    return codes.setdefault(name, len(codes)) if name else _NONE


def rank_within(groups: Int64Array) -> Int64Array:
    """How many earlier entries have the same group.

    Args:
        groups: int64[N].

    Returns:
        int64[N], as in [7, 7, 3, 7] → [0, 1, 0, 2].
    """
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = (
        np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    )
    sizes = np.diff(np.r_[starts, len(ordered)])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return ranks


def sample_songs(
    songs: Iterable[Song], config: SampleConfig, seed: int
) -> tuple[list[Song], list[Song], SampleOutcome]:
    """Take a balanced sample and split it.

    No lyrics are in both parts (compared by `preprocess.clean.lyrics.lyrics_hash`), and the artist of every evaluation
    song, where given, also has songs in training: it can be recognised.

    No two songs taken have the same id: where ids repeat, in files that each count from 0, all but one of the songs
    get a hash of their content behind it.

    Args:
        songs: Cleaned songs; something that can be iterated twice (a list, a reader) saves memory.
        config: The limits.
        seed: Chooses among equals.

    Returns:
        Training songs, evaluation songs (each in an order that is fixed by the seed), and the outcome.

    Raises:
        ConfigError: A genre is asked for that no song has, or as many evaluation songs as there are songs.
        DataError: No song is left.
    """
    if iter(songs) is songs:
        songs = list(songs)
    columns = _Columns(songs, config, seed)
    _check_genres(config.genres or (), columns.genres)
    kept = _first_copies(columns.lyrics)
    quotas = _quotas(columns.genres, columns.genre[kept], config)
    wanted = kept[np.isin(columns.genre[kept], [genre for genre, quota in quotas.items() if quota])]
    artists = columns.artist[wanted]
    allowed = wanted[(artists == _NONE) | (rank_within(artists) < config.songs_per_artist)]
    taken = _take(columns, allowed, quotas, balance_decades=config.balance_decades)
    if not len(taken):
        raise DataError(
            f"No song is left of {columns.num_read:,}: {len(kept):,} have {config.min_chars} to {config.max_chars} "
            f"characters, genres are {', '.join(sorted(columns.genres)) or 'not given'}. Loosen the sample's limits."
        )
    chosen = _tell_apart(_fetch(songs, columns.place[taken]))
    num_eval = round(len(chosen) * config.eval_fraction) if config.eval_songs is None else config.eval_songs
    if num_eval >= len(chosen):
        raise ConfigError(
            f"got {num_eval:,} evaluation songs of {len(chosen):,} songs in the sample: none would be left to train "
            "on. Set sample.eval_songs or sample.eval_fraction lower, or take more songs"
        )
    train, evaluation = split_songs(chosen, num_eval, config.train_songs_per_eval_artist, seed)
    outcome = SampleOutcome(
        num_read=columns.num_read,
        num_wrong_length=columns.num_read - len(columns.place),
        num_duplicates=len(columns.place) - len(kept),
        num_over_artist_limit=len(wanted) - len(allowed),
        num_eval_wanted=num_eval,
        genres=_count_genres(columns, kept, quotas, train, evaluation),
    )
    return train, evaluation, outcome


def _check_genres(wanted: Iterable[str], found: Iterable[str]) -> None:
    names = {name.casefold(): name for name in sorted(found)}
    for genre in wanted:
        if genre in names.values():
            continue
        near = difflib.get_close_matches(genre.casefold(), names, n=1)
        hint = f"did you mean {names[near[0]]!r}? " if near else ""
        listed = ", ".join(sorted(names.values())) or "none"
        raise ConfigError(f"sample.genres: no song has the genre {genre!r}; {hint}Genres found: {listed}")


def _tell_apart(songs: list[Song]) -> list[Song]:
    """The songs with ids that occur once; their contents differ."""
    seen: set[str] = set()
    told: list[Song] = []
    for song in songs:
        if song.id in seen:
            song = replace(song, id=f"{song.id}-{content_id(song.title, song.artist, song.lyrics)}")
        seen.add(song.id)
        told.append(song)
    return told


def _first_copies(lyrics: np.ndarray[Any, np.dtype[np.uint64]]) -> Int64Array:
    return np.sort(np.unique(lyrics, return_index=True)[1]).astype(np.int64)


def _quotas(codes: dict[str, int], genres: Int64Array, config: SampleConfig) -> dict[int, int]:
    """Genre code → songs wanted of it."""
    wanted = {
        code: config.songs_per_genre if config.genres is None or name in config.genres else 0
        for name, code in codes.items()
    }
    without = config.songs_without_genre
    if without is None:
        without = 0 if config.genres is not None or (genres != _NONE).any() else config.songs_per_genre
    return wanted | {_NONE: without}


def _take(
    columns: _Columns, allowed: Int64Array, quotas: dict[int, int], *, balance_decades: bool
) -> Int64Array:
    taken = []
    for genre, quota in quotas.items():
        members = allowed[columns.genre[allowed] == genre]
        if balance_decades:
            # The first of every decade, then the second of every decade, …
            members = members[np.argsort(rank_within(columns.decade[members]), kind="stable")]
        taken.append(members[:quota])
    return np.sort(np.concatenate(taken))


def _fetch(songs: Iterable[Song], places: Int64Array) -> list[Song]:
    """The songs at these places of the input, in the order of the places given."""
    rank_of_place = {place: rank for rank, place in enumerate(places.tolist())}
    found = [(rank_of_place[place], song) for place, song in enumerate(songs) if place in rank_of_place]
    return [song for _, song in sorted(found, key=lambda item: item[0])]


def _count_genres(
    columns: _Columns, kept: Int64Array, quotas: dict[int, int], train: list[Song], evaluation: list[Song]
) -> tuple[GenreOutcome, ...]:
    had = Counter(columns.genre[kept].tolist())
    num_train, num_eval = (Counter(song.genre for song in part) for part in (train, evaluation))
    names: list[str | None] = [*sorted(columns.genres), None]
    codes = [columns.genres.get(name, _NONE) if name else _NONE for name in names]
    rows = (
        GenreOutcome(name, quotas[code], had[code], num_train[name] + num_eval[name], num_eval[name])
        for name, code in zip(names, codes, strict=True)
    )
    return tuple(row for row in rows if row.wanted or row.had)


def print_outcome(outcome: SampleOutcome, console: Console) -> None:
    """Print an outcome as a table."""
    table = Table(title=f"Sample: {outcome.num_taken:,} of {outcome.num_read:,} songs")
    table.add_column("genre")
    for heading in ("wanted", "had", "taken", "for evaluation"):
        table.add_column(heading, justify="right")
    for row in outcome.genres:
        counts = (row.wanted, row.had, row.taken, row.evaluation)
        table.add_row(Text(row.genre or "(none)"), *(f"{count:,}" for count in counts))
    console.print(table)
    console.print(
        f"left out: {outcome.num_wrong_length:,} of wrong length, {outcome.num_duplicates:,} duplicates, "
        f"{outcome.num_over_artist_limit:,} over the limit per artist; "
        f"{outcome.num_eval:,} of {outcome.num_eval_wanted:,} wanted songs set aside for evaluation"
    )
