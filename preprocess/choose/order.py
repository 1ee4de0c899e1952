"""An order of songs that depends on the seed and on the songs alone, and counting along it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.choose.columns import SongColumns
from preprocess.choose.shingles import Uint64Array, mix
from preprocess.schema import Int32Array, Int64Array


def hash_text(text: str) -> int:
    """The first 64 bits of BLAKE2b: the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def hash_names(names: Iterable[str]) -> Uint64Array:
    """uint64[K + 1], the hashes of K names, and at the end, where the code `NONE` = -1 points, 0."""
    return np.array([*(hash_text(name) for name in names), 0], np.uint64)


def priorities(hashes: Uint64Array, seed: int, purpose: str) -> Uint64Array:
    """A number for each hash that depends on the seed and the purpose alone; the smallest are taken first.

    Args:
        hashes: uint64[N].
        seed: The user's.
        purpose: What is chosen: choices for two purposes are independent.

    Returns:
        uint64[N].
    """
    return mix(mix(hashes ^ np.uint64(hash_text(f"{purpose}\x1f{seed}"))))


def order_songs(columns: SongColumns, seed: int) -> Int32Array:
    """All songs by priority: a shuffle in which the order of the input has no part.

    Equal ids (files that each count from 0) are told apart by the lyrics, equal lyrics by everything else.

    Returns:
        int32[N], indices into the columns.
    """
    priority = priorities(columns.id_hash, seed, "take")
    order = np.argsort(priority).astype(np.int32)
    ordered = priority[order]
    del priority
    tied = np.zeros(len(order), np.bool_)
    tied[1:] = ordered[1:] == ordered[:-1]
    tied[:-1] |= tied[1:]
    among = order[tied]
    order[tied] = among[np.lexsort((_hash_facts(columns, among), columns.lyrics[among], ordered[tied]))]
    return order


def _hash_facts(columns: SongColumns, songs: Int32Array) -> Uint64Array:
    facts = mix(columns.artist[songs])
    numbers: tuple[npt.NDArray[Any], ...] = (
        hash_names(columns.genres)[columns.genre[songs]],
        hash_names(columns.languages)[columns.language[songs]],
        columns.decade[songs].astype(np.uint64),
        columns.num_chars[songs].astype(np.uint64),
        columns.quality[songs].view(np.uint32).astype(np.uint64),
    )
    for values in numbers:
        facts = mix(facts ^ values)
    return facts


def rank_within(groups: npt.NDArray[Any]) -> Int32Array:
    """How many earlier entries have the same group.

    Args:
        groups: Numbers, [N].

    Returns:
        int32[N], as in [7, 7, 3, 7] → [0, 1, 0, 2].
    """
    order = np.argsort(groups, kind="stable").astype(np.int32)
    ordered = groups[order]
    is_first = np.ones(len(groups), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    del ordered
    place = np.arange(len(groups), dtype=np.int32)
    ranks = np.empty(len(groups), np.int32)
    ranks[order] = place - np.maximum.accumulate(np.where(is_first, place, 0))
    return ranks


def share_out(sizes: Int64Array, total: int) -> Int64Array:
    """Share a total out in proportion to sizes, by largest remainders; no share exceeds its size.

    Args:
        sizes: int64[K]; of equal remainders the first one's share is rounded up.
        total: What is shared out; at most the sum of the sizes is.

    Returns:
        int64[K].
    """
    whole = int(sizes.sum())
    total = min(total, whole)
    if not total:
        return np.zeros(len(sizes), np.int64)
    shares, remainders = np.divmod(sizes.astype(np.int64) * total, whole)
    first = np.argsort(-remainders, kind="stable")[: total - int(shares.sum())]
    shares[first] += 1
    return shares
