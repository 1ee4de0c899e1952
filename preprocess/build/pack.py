"""Packing items into bins: nearly full ones, that hold nearly equal weights.

`preprocess.build.patterns` decides which lengths share a bin; here the items are dealt out to the places, and
`preprocess.build.balance` exchanges some.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocess.build.balance import even_out
from preprocess.build.bins import Bins, IntegerArray, sort_stably
from preprocess.build.patterns import Packing, pack_histogram
from preprocess.schema import Int64Array


def pack_lengths(
    lengths: Sequence[int] | IntegerArray,
    capacity: int,
    seed: int = 0,
    weights: Sequence[int] | IntegerArray | None = None,
) -> Bins:
    """Pack items into bins, never more of them than item-wise best-fit decreasing finds.

    Args:
        lengths: Length of each item, 1 … capacity.
        capacity: Slots in a bin.
        seed: Which of the items of equal length goes where, and the order of the bins.
        weights: Of each item, 0 or more; the bins' sums are brought near each other. None: they are left to chance.

    Returns:
        The bins, in an order drawn from `seed`.

    Raises:
        ValueError: A length is below 1 or above the capacity, or there are not as many weights.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if not len(sizes):
        return Bins(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    if not 1 <= int(sizes.min()) <= int(sizes.max()) <= capacity:
        raise ValueError(f"lengths must lie in 1 … {capacity}, got {int(sizes.min())} … {int(sizes.max())}")
    if weights is not None and len(weights) != len(sizes):
        raise ValueError(f"{len(sizes)} lengths, but {len(weights)} weights")
    rng = np.random.Generator(np.random.Philox(seed))
    bins = _deal(pack_histogram(sizes, capacity), sizes, rng)
    if weights is None:
        return bins
    return even_out(bins, sizes, np.asarray(weights, dtype=np.int64), rng)


def _deal(packing: Packing, sizes: Int64Array, rng: np.random.Generator) -> Bins:
    """Deal the items out at random, to the bins of a packing in an order that is drawn."""
    num_places = np.array([len(pattern) for pattern, _ in packing])
    first = np.cumsum(num_places) - num_places
    flat = np.array([length for pattern, _ in packing for length in pattern], dtype=np.int32)
    pattern_of_bin = rng.permutation(np.repeat(np.arange(len(packing)), [number for _, number in packing]))
    places_of_bin = num_places[pattern_of_bin]
    ends = np.cumsum(places_of_bin)
    shift = first[pattern_of_bin] - (ends - places_of_bin)
    length_of_place = flat[np.arange(len(sizes)) + np.repeat(shift, places_of_bin)]
    shuffled = rng.permutation(len(sizes))
    order = np.empty_like(shuffled)
    order[sort_stably(length_of_place)] = shuffled[sort_stably(sizes[shuffled])]
    return Bins(order, ends)
