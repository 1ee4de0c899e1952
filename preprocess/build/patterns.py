"""Bin packing of a histogram: which lengths share a bin, and how many bins are alike.

Items of equal length are interchangeable, so a bin is a pattern of lengths and a packing is a list of patterns with
their numbers of bins. Sets of lengths are the bits of an integer, so that "which two lengths that are left add up to
r" is one AND of the set with its mirror image. A million items take milliseconds; the time grows with the number of
different lengths.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Literal

import numpy as np

from preprocess.schema import Int64Array

Pattern = tuple[int, ...]
Packing = list[tuple[Pattern, int]]
"""Patterns, each with the number of bins that are filled so."""

PairOrder = Literal["even", "uneven"]
"""Of the pairs that fill a bin: the one of the most equal lengths first, or the one with the longest length."""

MAX_THIRDS = 40
"""Lengths that are tried as the third of a triple before the bin takes the longest one."""


def pack_histogram(sizes: Int64Array, capacity: int) -> Packing:
    """The best of several packings, among them best-fit decreasing: never more bins than that.

    Args:
        sizes: Length of each item, 1 … capacity.
        capacity: Slots in a bin.
    """
    lengths, counts = (array.tolist() for array in np.unique(sizes, return_counts=True))
    stock = dict(zip(lengths, counts, strict=True))
    bound = count_bins_needed(lengths, counts, capacity)
    best: Packing | None = None
    for packing in _packings(stock, capacity):
        if best is None or count_bins(packing) < count_bins(best):
            best = packing
        if count_bins(best) == bound:
            break
    assert best is not None
    return best


def _packings(stock: dict[int, int], capacity: int) -> Iterator[Packing]:
    """Which one is best depends on the lengths; on those of songs it is the first, mostly at the lower bound."""
    yield pack_exactly(stock, capacity, "even", with_triples=False)
    yield pack_exactly(stock, capacity, "uneven", with_triples=False)
    yield pack_best_fit(stock, capacity)
    yield pack_exactly(stock, capacity, "even", with_triples=True)
    yield pack_exactly(stock, capacity, "uneven", with_triples=True)


def count_bins(packing: Packing) -> int:
    """Number of bins of a packing."""
    return sum(num_bins for _, num_bins in packing)


def count_bins_needed(lengths: list[int], counts: list[int], capacity: int) -> int:
    """A number of bins that no packing goes below: the bound L2 of Martello and Toth (1990), for each threshold k.

    Items above capacity - k share a bin with none of length k or more; items above half of the capacity with none of
    their kind; what items of k … half of the capacity do not find beside these needs bins of its own.

    Args:
        lengths: Different lengths, ascending.
        counts: Items of each.
        capacity: Slots in a bin.
    """
    sizes, numbers = np.array(lengths, dtype=np.int64), np.array(counts, dtype=np.int64)
    items = np.concatenate([[0], np.cumsum(numbers)])
    slots = np.concatenate([[0], np.cumsum(numbers * sizes)])
    half = int(np.searchsorted(sizes, capacity // 2, side="right"))
    thresholds = np.concatenate([[0], sizes[:half]])
    small = np.searchsorted(sizes, thresholds, side="left")  # the first length that counts
    large = np.searchsorted(
        sizes, capacity - thresholds, side="right"
    )  # the first that needs a bin of its own
    alone, shared = items[-1] - items[large], items[large] - items[half]
    left = shared * capacity - (slots[large] - slots[half])
    extra = -(-np.maximum(0, slots[half] - slots[small] - left) // capacity)
    return int(np.max(alone + shared + extra))


def pack_best_fit(stock: dict[int, int], capacity: int) -> Packing:
    """Best-fit decreasing (Johnson 1974: at most 11/9 of the optimum): the bins of the item-wise algorithm.

    `open_bins[r]` holds the bins with r slots left.
    """
    open_bins: defaultdict[int, Packing] = defaultdict(list)
    residuals = 0  # bit r is set when open_bins[r] is not empty
    for length, count in sorted(stock.items(), reverse=True):
        left = count
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


class Stock:
    """The items that are left, by length.

    Args:
        counts: Items of each length.
        capacity: Slots in a bin.
    """

    def __init__(self, counts: dict[int, int], capacity: int) -> None:
        self.counts = dict(counts)
        self.capacity = capacity
        self.present = self.mirrored = 0  # bits `length`, bits `capacity - length`
        for length in counts:
            self.present |= 1 << length
            self.mirrored |= 1 << (capacity - length)

    def take(self, pattern: Pattern) -> int:
        """Take out as many bins of a pattern as there are, and say how many."""
        used = Counter(pattern)
        num_bins = min(self.counts[length] // number for length, number in used.items())
        for length, number in used.items():
            self.counts[length] -= number * num_bins
            if not self.counts[length]:
                self.present ^= 1 << length
                self.mirrored ^= 1 << (self.capacity - length)
        return num_bins

    def has(self, length: int, used: Counter[int]) -> bool:
        """Whether an item of this length is left beside the used ones."""
        return self.counts.get(length, 0) > used[length]

    def up_to(self, length: int, used: Counter[int]) -> Iterator[int]:
        """The lengths that are left up to this one, descending."""
        left = self.present & ((1 << (length + 1)) - 1)
        while left:
            longest = left.bit_length() - 1
            if self.has(longest, used):
                yield longest
            left ^= 1 << longest

    def find_pair(self, total: int, used: Counter[int], order: PairOrder) -> Pattern | None:
        """Two lengths that add up to `total`, the longer one first, or None."""
        sums = self.present & (self.mirrored >> (self.capacity - total))  # bit a: a and total - a are present
        shift = -(-total // 2)
        longer = sums >> shift
        while longer:
            bit = longer & -longer if order == "even" else 1 << (longer.bit_length() - 1)
            longer ^= bit
            first = shift + bit.bit_length() - 1
            second = total - first
            if second and self.has(first, used) and self.counts[second] > used[second] + (first == second):
                return first, second
        return None


def pack_exactly(stock: dict[int, int], capacity: int, order: PairOrder, *, with_triples: bool) -> Packing:
    """The longest item first, then whatever fills its bin to the last slot: one item, a pair, or a triple.

    Where nothing does, the longest item that fits goes in and the rest is looked at again.

    Args:
        stock: Items of each length.
        capacity: Slots in a bin.
        order: Which pair is taken of several.
        with_triples: Look for triples too.
    """
    left = Stock(stock, capacity)
    packing: Packing = []
    while left.present:
        pattern = _fill_bin(left, order, with_triples=with_triples)
        packing.append((pattern, left.take(pattern)))
    return packing


def _fill_bin(left: Stock, order: PairOrder, *, with_triples: bool) -> Pattern:
    pattern = [left.present.bit_length() - 1]
    residual = left.capacity - pattern[0]
    used = Counter(pattern)
    while residual:
        if left.has(residual, used):
            return (*pattern, residual)
        pair = left.find_pair(residual, used, order)
        if pair is None and with_triples:
            pair = _find_triple(left, residual, used, order)
        if pair is not None:
            return (*pattern, *pair)
        longest = next(left.up_to(residual, used), None)
        if longest is None:
            break
        pattern.append(longest)
        used[longest] += 1
        residual -= longest
    return tuple(pattern)


def _find_triple(left: Stock, total: int, used: Counter[int], order: PairOrder) -> Pattern | None:
    for tried, first in enumerate(left.up_to(total - 2, used)):
        if tried == MAX_THIRDS:
            break
        pair = left.find_pair(total - first, used + Counter([first]), order)
        if pair is not None:
            return first, *pair
    return None
