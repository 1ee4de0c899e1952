"""Best-fit-decreasing bin packing by counts: the bins of the item-wise algorithm, in time that hardly grows with items.

Items of equal length are interchangeable, so lengths are packed as a histogram and the items dealt out afterwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from preprocess.schema import Int64Array

Pattern = tuple[int, ...]


def pack_lengths(lengths: Sequence[int] | Int64Array, capacity: int, seed: int = 0) -> list[list[int]]:
    """Pack items into as few bins as best-fit decreasing finds (Johnson 1974: at most 11/9 of the optimum).

    Args:
        lengths: Length of each item, 1 … capacity.
        capacity: Slots in a bin.
        seed: Which of the items of equal length goes where, and the order of the bins.

    Returns:
        The items' indices, bin by bin, in an order drawn from `seed`.

    Raises:
        ValueError: A length is below 1 or above the capacity.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and not 1 <= int(sizes.min()) <= int(sizes.max()) <= capacity:
        raise ValueError(f"lengths must lie in 1 … {capacity}, got {int(sizes.min())} … {int(sizes.max())}")
    rng = np.random.Generator(np.random.Philox(seed))
    patterns = _pack_histogram(sizes, capacity)
    bins = _deal_items(patterns, sizes, rng)
    return [bins[i] for i in rng.permutation(len(bins))]


def _pack_histogram(sizes: Int64Array, capacity: int) -> list[tuple[Pattern, int]]:
    """Bins as (lengths in it, how many such bins). `open_bins[r]` holds the bins with r slots left."""
    open_bins: defaultdict[int, list[tuple[Pattern, int]]] = defaultdict(list)
    residuals = 0  # bit r is set when open_bins[r] is not empty
    lengths, counts = np.unique(sizes, return_counts=True)
    for length, left in zip(lengths[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while left > 0:
            fitting = residuals >> length
            residual = length + ((fitting & -fitting).bit_length() - 1) if fitting else capacity
            pattern, available = open_bins[residual].pop() if fitting else ((), left)
            fit = min(residual // length, left)
            num_bins = min(available, left // fit)
            left -= fit * num_bins
            open_bins[residual - fit * length].append(((*pattern, *(length,) * fit), num_bins))
            residuals |= 1 << (residual - fit * length)
            if fitting and available > num_bins:
                open_bins[residual].append((pattern, available - num_bins))
            if not open_bins[residual]:
                residuals &= ~(1 << residual)
    return [entry for residual in sorted(open_bins) for entry in open_bins[residual]]


def _deal_items(
    patterns: list[tuple[Pattern, int]], sizes: Int64Array, rng: np.random.Generator
) -> list[list[int]]:
    shuffled = rng.permutation(len(sizes))
    by_length = shuffled[np.argsort(sizes[shuffled], kind="stable")]
    ends = np.cumsum(np.bincount(sizes)) if len(sizes) else np.zeros(1, dtype=np.int64)
    next_item = {int(length): int(ends[length]) for length in np.unique(sizes)}
    bins: list[list[int]] = []
    for pattern, num_bins in patterns:
        for _ in range(num_bins):
            bins.append([])
            for length in pattern:
                next_item[length] -= 1
                bins[-1].append(int(by_length[next_item[length]]))
    return bins
