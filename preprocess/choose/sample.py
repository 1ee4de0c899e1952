"""A balanced sample of songs, and its split into training and evaluation songs.

    columns ── length, quality, language ── one copy of each lyrics ── near-duplicates ── songs per artist
            ── genres, each spread over its languages and decades ── artists set aside ── songs set aside

Which songs are taken depends on the seed and on the songs alone: each has a priority, the hash of (seed, id), and every
"take n" takes the n smallest. The order of the input, the process and the machine do not matter.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field

from preprocess.choose.columns import NONE, SongColumns
from preprocess.choose.duplicates import SIMILARITY, find_near_duplicates
from preprocess.choose.order import order_songs, rank_within
from preprocess.choose.outcome import SampleOutcome, count_decades, count_genres, count_languages
from preprocess.choose.shingles import mix
from preprocess.choose.split import SplitSongs, code_artists, set_artists_aside, set_songs_aside
from preprocess.choose.strata import spread
from preprocess.errors import ConfigError, DataError
from preprocess.schema import BoolArray, Int32Array, Int64Array
from preprocess.settings import Settings

_QUALITY_STEP = 0.1

MAX_BY_FRACTION = 10_000
"""Songs that a fraction sets aside at most: they are held in memory to be looked for among the training songs."""


class SampleConfig(Settings):
    """How many songs of what kind are taken."""

    songs_per_genre: int = Field(default=2000, ge=1)
    """Songs taken of each genre, training and evaluation together."""

    songs_without_genre: int | None = Field(default=None, ge=0)
    """Songs taken of those without a genre. None: none where any song has a genre, else as many as of a genre."""

    genres: tuple[str, ...] | None = None
    """Take only these genres. None: every genre there is."""

    languages: tuple[str, ...] | None = None
    """Take only songs in these languages, as in ["en", "und"]. None: all."""

    songs_per_artist: int = Field(default=50, ge=1)
    """Songs of one artist at most, over all genres; names are compared without case."""

    min_chars: int = Field(default=0, ge=0)
    """Songs with shorter lyrics are left out; cleaning has limits of its own."""

    max_chars: int | None = Field(default=None, ge=1)
    """Songs with longer lyrics are left out; None: none are. Cleaning has limits of its own."""

    min_quality: float = Field(default=0.3, ge=0, le=1)
    """Songs judged worse, from 0 (hardly a song) to 1, are left out."""

    near_duplicates: bool = True
    """Leave out songs that are nearly the same as a better one: covers, versions, copies with typos."""

    near_duplicate_similarity: float = Field(default=SIMILARITY, gt=0, le=1)
    """Share of common runs of three words (of all in either song) from which two songs are nearly the same."""

    balance_decades: bool = True
    """Within a genre take from every decade in turn, as long as it lasts, instead of as they come."""

    balance_languages: bool = True
    """Within a genre give each language songs by the square root of what it has, instead of as they come."""

    eval_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Part of the taken songs that is set aside for evaluation, the same in every genre; at most 10,000 songs."""

    eval_songs: int | None = Field(default=None, ge=0)
    """Number of songs set aside for evaluation, in place of `eval_fraction`."""

    train_songs_per_eval_artist: int = Field(default=1, ge=0)
    """A song is set aside only if so many songs of its artist, when known, stay in training."""

    eval_unseen_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Part of the taken songs that is set aside with all songs of their artists: nothing of these is in training; at
    most 10,000 songs."""

    eval_unseen_songs: int | None = Field(default=None, ge=0)
    """Number of songs set aside with their artists, in place of `eval_unseen_fraction`."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The songs chosen, as indices into the columns, in an order that is fixed by the seed and the songs.

    Attributes:
        train: int64[T].
        evaluation: int64[E], new songs by artists that have songs in training.
        eval_unseen: int64[U], songs by artists that have none.
        same_id: int64[S], those of all the above whose id another one before them has, too.
        outcome: What was wanted, there, and taken.
    """

    train: Int64Array
    evaluation: Int64Array
    eval_unseen: Int64Array
    same_id: Int64Array
    outcome: SampleOutcome


def choose_songs(columns: SongColumns, config: SampleConfig, seed: int) -> Choice:
    """Take a balanced sample and split it.

    No lyrics are in two parts, compared by `preprocess.clean.lyrics.lyrics_hash`; near-duplicates, unless turned off,
    as far as `preprocess.choose.duplicates` finds them: `preprocess.choose.crossing` proves it.

    Args:
        columns: The songs.
        config: The limits.
        seed: Chooses among equals.

    Raises:
        ConfigError: A genre or a language is asked for that no song has, or as many evaluation songs as there are.
        DataError: No song is left.
    """
    _check_names("genre", config.genres or (), columns.genres)
    _check_names("language", config.languages or (), columns.languages)
    columns = _sort_codes(columns)
    left_out: dict[str, int] = {}
    kept = _keep_fit(columns, config, order_songs(columns, seed), left_out)
    quotas = _quotas(columns, kept, config)
    wanted = kept[quotas[columns.genre[kept]] > 0]
    left_out["num_other_genre"] = len(kept) - len(wanted)
    artists = columns.artist[wanted]
    allowed = wanted[(artists == 0) | (rank_within(artists) < config.songs_per_artist)]
    left_out["num_over_artist_limit"] = len(wanted) - len(allowed)
    del wanted, artists
    taken = spread(
        columns, allowed, quotas, decades=config.balance_decades, languages=config.balance_languages
    )
    left_out["num_over_quota"] = len(allowed) - len(taken)
    if not len(taken):
        raise DataError(_explain_none(columns, kept, config))
    return _split(columns, config, seed, kept, taken, quotas, left_out)


def count_near_duplicates(columns: SongColumns, config: SampleConfig, seed: int) -> int | None:
    """How many songs `choose_songs` would leave out as near-duplicates; None where it is not to look for any."""
    if not config.near_duplicates:
        return None
    left_out: dict[str, int] = {}
    columns = _sort_codes(columns)
    _keep_fit(columns, config, order_songs(columns, seed), left_out)
    return left_out["num_near_duplicates"]


def _check_names(kind: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    names = {name.casefold(): name for name in sorted(found)}
    for name in wanted:
        if name in names.values():
            continue
        near = difflib.get_close_matches(name.casefold(), names, n=1)
        hint = f"did you mean {names[near[0]]!r}? " if near else ""
        listed = ", ".join(sorted(names.values())) or "none"
        raise ConfigError(
            f"sample.{kind}s: no song has the {kind} {name!r}; {hint}{kind.capitalize()}s found: {listed}"
        )


def _sort_codes(columns: SongColumns) -> SongColumns:
    """The same songs with genres and languages coded in alphabetical order, whatever was met first."""
    changed: dict[str, Any] = {}
    for codes, names in (("genre", columns.genres), ("language", columns.languages)):
        if list(names) != sorted(names):
            place = {name: code for code, name in enumerate(sorted(names))}
            table = np.array([*(place[name] for name in names), NONE], np.int32)
            changed |= {codes: table[getattr(columns, codes)], f"{codes}s": tuple(sorted(names))}
    return replace(columns, **changed) if changed else columns


def _keep_fit(
    columns: SongColumns, config: SampleConfig, order: Int32Array, left_out: dict[str, int]
) -> Int32Array:
    """The songs, in their order, that meet the conditions on a single song and are the best of their copies."""
    max_chars = np.iinfo(np.int32).max if config.max_chars is None else config.max_chars
    conditions = {
        "num_wrong_length": (columns.num_chars >= config.min_chars) & (columns.num_chars <= max_chars),
        # In the precision of the column: float32(0.3) is not below 0.3.
        "num_low_quality": columns.quality >= np.float32(config.min_quality),
        "num_other_language": _in_languages(columns, config.languages),
    }
    for reason, holds in conditions.items():
        before = len(order)
        order = order[holds[order]]
        left_out[reason] = before - len(order)
    steps = np.floor(columns.quality[order] / np.float32(_QUALITY_STEP)).astype(np.int8)
    best_first = order[np.argsort(-steps, kind="stable")]
    kept = best_first[rank_within(columns.lyrics[best_first]) == 0]
    left_out["num_duplicates"] = len(order) - len(kept)
    left_out["num_near_duplicates"] = 0
    if config.near_duplicates:
        dropped = find_near_duplicates(columns.signature, kept, config.near_duplicate_similarity)
        left_out["num_near_duplicates"] = int(dropped.sum())
        kept = kept[~dropped]
    return order[_mark(kept, len(columns))[order]]


def _in_languages(columns: SongColumns, wanted: tuple[str, ...] | None) -> BoolArray:
    if wanted is None:
        return np.ones(len(columns), np.bool_)
    # One more for songs without a code.
    return np.array([*(name in wanted for name in columns.languages), False], np.bool_)[columns.language]


def _mark(indices: Int32Array, size: int) -> BoolArray:
    marked = np.zeros(size, np.bool_)
    marked[indices] = True
    return marked


def _quotas(columns: SongColumns, kept: Int32Array, config: SampleConfig) -> Int64Array:
    """int64[G + 1], songs wanted of each genre and, at the end, where `NONE` points, of those without."""
    wanted = [
        config.songs_per_genre if config.genres is None or name in config.genres else 0
        for name in columns.genres
    ]
    without = config.songs_without_genre
    if without is None:
        has_genres = config.genres is not None or bool((columns.genre[kept] != NONE).any())
        without = 0 if has_genres else config.songs_per_genre
    return np.array([*wanted, without], np.int64)


def _explain_none(columns: SongColumns, kept: Int32Array, config: SampleConfig) -> str:
    most = "any number of" if config.max_chars is None else f"{config.max_chars:,}"
    return (
        f"No song is left of {len(columns):,}: {len(kept):,} have {config.min_chars:,} to {most} characters, a quality "
        f"of {config.min_quality:g} or more and an allowed language, and are no copies; genres are "
        f"{', '.join(columns.genres) or 'not given'}. Loosen the sample's limits."
    )


def _split(
    columns: SongColumns,
    config: SampleConfig,
    seed: int,
    kept: Int32Array,
    taken: Int32Array,
    quotas: Int64Array,
    left_out: dict[str, int],
) -> Choice:
    num_eval = _number(len(taken), config.eval_songs, config.eval_fraction)
    num_unseen = _number(len(taken), config.eval_unseen_songs, config.eval_unseen_fraction)
    if num_eval + num_unseen >= len(taken):
        raise ConfigError(
            f"got {num_eval + num_unseen:,} evaluation songs of {len(taken):,} songs in the sample: none would be left "
            "to train on. Set sample.eval_songs, eval_fraction, eval_unseen_songs or eval_unseen_fraction lower, or "
            "take more songs"
        )
    # Equal ids have different lyrics here; copies of both were left out.
    hashes = mix(columns.id_hash[taken]) ^ columns.lyrics[taken]
    genre = columns.genre[taken] % len(quotas)
    songs = SplitSongs(hashes, *code_artists(columns.artist[taken]), genre, len(quotas))
    unseen = set_artists_aside(songs, num_unseen, seed)
    aside = set_songs_aside(songs, ~unseen, num_eval, config.train_songs_per_eval_artist, seed)
    outcome = SampleOutcome(
        num_read=len(columns),
        **left_out,
        num_eval_wanted=num_eval,
        num_unseen_wanted=num_unseen,
        genres=count_genres(columns, quotas, kept, taken, taken[aside], taken[unseen]),
        decades=count_decades(columns, kept, taken),
        languages=count_languages(columns, kept, taken),
    )
    same_id = taken[rank_within(columns.id_hash[taken]) > 0]
    return Choice(
        train=taken[~(aside | unseen)].astype(np.int64),
        evaluation=taken[aside].astype(np.int64),
        eval_unseen=taken[unseen].astype(np.int64),
        same_id=same_id.astype(np.int64),
        outcome=outcome,
    )


def _number(num_taken: int, number: int | None, fraction: float) -> int:
    return min(round(num_taken * fraction), MAX_BY_FRACTION) if number is None else number
