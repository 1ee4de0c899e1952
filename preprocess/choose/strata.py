"""Taking so many songs of each genre, spread over its languages and their decades."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess.choose.columns import SongColumns
from preprocess.choose.order import rank_within
from preprocess.schema import Int32Array, Int64Array


def spread(
    columns: SongColumns, allowed: Int32Array, quotas: Int64Array, *, decades: bool, languages: bool
) -> Int32Array:
    """Take songs of every genre.

    Within a language of a genre: the first of every decade, then the second of every decade, … Within a genre each
    language gets songs in proportion to the square root of those it has (the exponent 0.5 of Lample, Conneau:
    "Cross-lingual language model pretraining", 2019), shared out as Sainte-Laguë does seats.

    Args:
        columns: The songs.
        allowed: int32[M], indices of songs that may be taken, in order of preference.
        quotas: int64[G + 1], how many of each genre; the last for songs without one.
        decades: Whether decades take turns.
        languages: Whether languages share by square roots. Otherwise their songs are taken as they come.

    Returns:
        int32[K], the songs taken, in the order of `allowed`.
    """
    genre = columns.genre[allowed] % len(quotas)
    group = genre
    if languages:
        num_languages = len(columns.languages) + 1
        group = genre * num_languages + columns.language[allowed] % num_languages
    places = np.arange(len(allowed), dtype=np.int32)
    if decades:
        turn = rank_within(_combine(group, columns.decade[allowed]))
        places = np.argsort(turn, kind="stable").astype(np.int32)
        del turn
    if languages:
        places = places[np.argsort(_shares(group[places]), kind="stable")]
    del group
    genre = genre[places]
    taken = np.zeros(len(allowed), np.bool_)
    taken[places[rank_within(genre) < quotas[genre]]] = True
    return allowed[taken]


def _combine(group: Int32Array, decade: Int32Array) -> Int64Array:
    if not len(group):
        return group.astype(np.int64)
    lowest = int(decade.min())
    return group * np.int64(int(decade.max()) - lowest + 1) + (decade - lowest)


def _shares(group: Int32Array) -> npt.NDArray[np.float64]:
    """A song's place in its group over the square root of the group's size: the smaller, the sooner taken.

    Division and square root are exact to the last bit on every machine.
    """
    if not len(group):
        return np.zeros(0)
    shares = rank_within(group).astype(np.float64) + 0.5
    shares /= np.sqrt(np.bincount(group))[group]
    return shares
