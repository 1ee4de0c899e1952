"""What a sample was made of, as values and as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from preprocess.choose.columns import NONE, SongColumns
from preprocess.schema import Int32Array, Int64Array

_MAX_STRATA_SHOWN = 12


@dataclass(frozen=True, slots=True)
class GenreOutcome:
    """What became of one genre.

    Attributes:
        genre: Name, or None for the songs without one.
        wanted: Songs that the settings ask for.
        had: Songs there were that meet the conditions, each lyrics once.
        taken: Songs taken; fewer than both when the limit per artist stood in the way.
        evaluation: Of the taken, how many were set aside for evaluation.
        eval_unseen: Of the taken, how many were set aside for evaluation with all others of their artists.
    """

    genre: str | None
    wanted: int
    had: int
    taken: int
    evaluation: int
    eval_unseen: int = 0


@dataclass(frozen=True, slots=True)
class StratumOutcome:
    """What became of one decade or one language.

    Attributes:
        name: As in "1990s" or "en"; None for songs of unknown year.
        had: Songs there were that meet the conditions, each lyrics once.
        taken: Songs taken.
    """

    name: str | None
    had: int
    taken: int


@dataclass(frozen=True, slots=True)
class SampleOutcome:
    """What a sample was made of. Songs read are songs taken and songs left out, each for the first reason that holds.

    Attributes:
        num_read: Songs given.
        num_wrong_length: Left out for their length.
        num_low_quality: Left out for their quality.
        num_other_language: Left out for their language.
        num_duplicates: Left out because another copy of their lyrics was kept.
        num_near_duplicates: Left out because a better song is nearly the same.
        num_other_genre: Left out because nothing of their genre, or nothing without a genre, is wanted.
        num_over_artist_limit: Left out because their artist had enough songs.
        num_over_quota: Left out because their genre had enough songs.
        num_eval_wanted: Evaluation songs asked for, by artists that stay in training.
        num_unseen_wanted: Evaluation songs asked for, by artists that do not.
        genres: By genre, in alphabetical order, songs without genre last.
        decades: By decade, in order, unknown ones last.
        languages: By language, those with most songs first.
    """

    num_read: int
    num_wrong_length: int
    num_low_quality: int
    num_other_language: int
    num_duplicates: int
    num_near_duplicates: int
    num_other_genre: int
    num_over_artist_limit: int
    num_over_quota: int
    num_eval_wanted: int
    num_unseen_wanted: int
    genres: tuple[GenreOutcome, ...]
    decades: tuple[StratumOutcome, ...]
    languages: tuple[StratumOutcome, ...]

    @property
    def num_taken(self) -> int:
        """Songs taken."""
        return sum(genre.taken for genre in self.genres)

    @property
    def num_eval(self) -> int:
        """Evaluation songs by artists that stay in training."""
        return sum(genre.evaluation for genre in self.genres)

    @property
    def num_eval_unseen(self) -> int:
        """Evaluation songs by artists that do not."""
        return sum(genre.eval_unseen for genre in self.genres)

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain values."""
        sums = {
            "num_taken": self.num_taken,
            "num_eval": self.num_eval,
            "num_eval_unseen": self.num_eval_unseen,
        }
        return asdict(self) | sums


def count_genres(columns: SongColumns, quotas: Int64Array, *parts: Int32Array) -> tuple[GenreOutcome, ...]:
    """How many songs of each genre there were, were taken, and are in either evaluation split.

    Args:
        columns: The songs.
        quotas: int64[G + 1], songs wanted of each genre; the last of those without one.
        parts: Indices of the songs that there were, that were taken, and of the two splits.
    """
    counts = (np.bincount(columns.genre[part] % len(quotas), minlength=len(quotas)) for part in parts)
    rows = zip((*columns.genres, None), quotas.tolist(), *(count.tolist() for count in counts), strict=True)
    return tuple(GenreOutcome(*row) for row in rows if row[1] or row[2])


def count_decades(columns: SongColumns, *parts: Int32Array) -> tuple[StratumOutcome, ...]:
    """How many songs of each decade there were and were taken; `parts` are their indices."""
    found = np.unique(columns.decade[parts[0]])
    had, taken = (
        np.bincount(np.searchsorted(found, columns.decade[part]), minlength=len(found)) for part in parts
    )
    rows = [
        StratumOutcome(None if decade == NONE else f"{decade * 10}s", *counts)
        for decade, *counts in zip(found.tolist(), had.tolist(), taken.tolist(), strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: row.name is None))


def count_languages(columns: SongColumns, *parts: Int32Array) -> tuple[StratumOutcome, ...]:
    """How many songs of each language there were and were taken; `parts` are their indices."""
    size = len(columns.languages) + 1
    had, taken = (np.bincount(columns.language[part] % size, minlength=size).tolist() for part in parts)
    rows = [
        StratumOutcome(*row) for row in zip((*columns.languages, None), had, taken, strict=True) if row[1]
    ]
    return tuple(sorted(rows, key=lambda row: -row.had))


def print_outcome(outcome: SampleOutcome, console: Console) -> None:
    """Print an outcome as tables."""
    table = Table(title=f"Sample: {outcome.num_taken:,} of {outcome.num_read:,} songs")
    table.add_column("genre")
    for heading in ("wanted", "had", "taken", "for evaluation", "of unseen artists"):
        table.add_column(heading, justify="right")
    for row in outcome.genres:
        counts = (row.wanted, row.had, row.taken, row.evaluation, row.eval_unseen)
        table.add_row(Text(row.genre or "(none)"), *(f"{count:,}" for count in counts))
    console.print(table)
    for title, strata in (("decades", outcome.decades), ("languages", outcome.languages)):
        console.print(Text(f"{title}: {_list_strata(strata)}"))
    console.print(Text(f"left out: {_list_reasons(outcome)}"))
    console.print(
        f"set aside for evaluation: {outcome.num_eval:,} of {outcome.num_eval_wanted:,} wanted songs by artists that "
        f"are in training, {outcome.num_eval_unseen:,} of {outcome.num_unseen_wanted:,} by artists that are not"
    )


def _list_strata(strata: tuple[StratumOutcome, ...]) -> str:
    shown = [f"{row.name or 'unknown'} {row.taken:,} of {row.had:,}" for row in strata[:_MAX_STRATA_SHOWN]]
    rest = strata[_MAX_STRATA_SHOWN:]
    if rest:
        shown.append(
            f"{len(rest)} more {sum(row.taken for row in rest):,} of {sum(row.had for row in rest):,}"
        )
    return ", ".join(shown) or "none"


def _list_reasons(outcome: SampleOutcome) -> str:
    reasons = {
        "of wrong length": outcome.num_wrong_length,
        "of low quality": outcome.num_low_quality,
        "in other languages": outcome.num_other_language,
        "duplicates": outcome.num_duplicates,
        "near-duplicates": outcome.num_near_duplicates,
        "of another genre or without one": outcome.num_other_genre,
        "over the limit per artist": outcome.num_over_artist_limit,
        "more than their genre needs": outcome.num_over_quota,
    }
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count) or "nothing"
