"""How fast, how full and how even does packing by counts pack, against best-fit decreasing item by item?"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from bench.record import Outcome, WrongResultError, compare, costs, summarize, time_in_turns
from preprocess.build.bins import Bins
from preprocess.build.pack import pack_lengths
from preprocess.build.patterns import count_bins_needed
from preprocess.schema import Int64Array

CAPACITY = 2048
BY_ITEM, BY_COUNTS, BY_COUNTS_ALL = "by_item", "by_counts", "by_counts_all"
EVENED_ALL = "evened_all"
MEDIANS = {"songs": 400, "long_songs": 830}
"""Median lengths of two sets of items: the first is what is timed, the other what is only packed."""


def measure(*, quick: bool) -> Outcome:
    """Pack all lengths by counts, with their weights evened out and without, and a sample of them both ways.

    Raises:
        WrongResultError: A packing loses an item, packs it twice, or overfills a bin.
    """
    num_items, num_sample, num_turns = (50_000, 5_000, 3) if quick else (1_000_000, 20_000, 5)
    lengths = draw_lengths(num_items)
    weights = draw_weights(num_items)
    sample = lengths[:num_sample]
    turns = time_in_turns(
        {
            BY_ITEM: partial(pack_by_item, sample.tolist(), CAPACITY),
            BY_COUNTS: partial(pack_lengths, sample, CAPACITY),
            BY_COUNTS_ALL: partial(pack_lengths, lengths, CAPACITY),
            EVENED_ALL: partial(pack_lengths, lengths, CAPACITY, 0, weights),
        },
        num_turns,
    )
    packed = {BY_ITEM: sample, BY_COUNTS: sample, BY_COUNTS_ALL: lengths, EVENED_ALL: lengths}
    per_item = {name: costs(turns.seconds[name], len(part)) for name, part in packed.items()}
    return Outcome(
        baseline=BY_ITEM,
        figures={
            **{f"{name}_us_per_item": summarize(values, "us/item") for name, values in per_item.items()},
            **{f"{name}_s": summarize(turns.seconds[name], "s") for name in (BY_COUNTS_ALL, EVENED_ALL)},
        },
        ratios={name: compare(per_item[BY_ITEM], per_item[name]) for name in packed if name != BY_ITEM},
        facts={
            "items": num_items,
            "sample": num_sample,
            "capacity": CAPACITY,
            "mean_length": float(lengths.mean()),
            **{f"{name}_fill": fill(turns.results[name], part, CAPACITY) for name, part in packed.items()},
            **describe_limits(lengths, sample),
            **describe_long_songs(num_items),
            **{
                f"{name}_weight_variation": variation(turns.results[name].sums(weights))
                for name in (BY_COUNTS_ALL, EVENED_ALL)
            },
        },
    )


def describe_limits(lengths: Int64Array, sample: Int64Array) -> dict[str, float]:
    """The fills that no packing goes above: by the bound of Martello and Toth."""
    return {
        f"{name}_fill_limit": float(part.sum() / (count_needed(part) * CAPACITY))
        for name, part in ((BY_COUNTS, sample), (BY_COUNTS_ALL, lengths))
    }


def count_needed(lengths: Int64Array) -> int:
    """A number of bins that no packing goes below."""
    sizes, counts = np.unique(lengths, return_counts=True)
    return count_bins_needed(sizes.tolist(), counts.tolist(), CAPACITY)


def describe_long_songs(num_items: int) -> dict[str, float]:
    """How full bins are when the items are so long that often only one or two fit."""
    lengths = draw_lengths(num_items, median=MEDIANS["long_songs"])
    return {
        "long_songs_mean_length": float(lengths.mean()),
        "long_songs_fill": fill(pack_lengths(lengths, CAPACITY), lengths, CAPACITY),
        "long_songs_fill_limit": float(lengths.sum() / (count_needed(lengths) * CAPACITY)),
    }


def variation(sums: Int64Array) -> float:
    """Standard deviation over mean."""
    return float(sums.std() / sums.mean())


def draw_lengths(num_items: int, seed: int = 0, median: int = MEDIANS["songs"]) -> Int64Array:
    """int64[num_items]: lognormal lengths like those of songs in tokens, within a row."""
    rng = np.random.Generator(np.random.Philox(seed))
    drawn = rng.lognormal(mean=np.log(median), sigma=0.55, size=num_items)
    return np.clip(np.rint(drawn), 16, CAPACITY).astype(np.int64)


def draw_weights(num_items: int, seed: int = 1) -> Int64Array:
    """int64[num_items]: supervised tokens of a few answers, which hardly depend on a song's length."""
    rng = np.random.Generator(np.random.Philox(seed))
    return np.clip(np.rint(rng.normal(200, 50, num_items)), 10, None).astype(np.int64)


def pack_by_item(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing, one item after another (Johnson 1974): the fullest bin that still takes the item.

    Open bins are kept sorted by what is left in them, so finding one is a binary search.
    """
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # (slots left, bin)
    for item in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        place = bisect.bisect_left(open_bins, (lengths[item], -1))
        if place == len(open_bins):
            left, number = capacity, len(bins)
            bins.append([])
        else:
            left, number = open_bins.pop(place)
        bins[number].append(item)
        if left > lengths[item]:
            bisect.insort(open_bins, (left - lengths[item], number))
    return bins


def fill(bins: Bins | Sequence[Sequence[int]], lengths: Int64Array, capacity: int) -> float:
    """Share of the bins' slots that items take, after checking the packing.

    Raises:
        WrongResultError: An item is missing or packed twice, or a bin holds more than its capacity.
    """
    items = np.fromiter((item for bin_ in bins for item in bin_), dtype=np.int64)
    if len(items) != len(lengths) or not np.array_equal(np.sort(items), np.arange(len(lengths))):
        twice = [item for item, count in Counter(items.tolist()).items() if count > 1]
        raise WrongResultError(f"{len(items)} of {len(lengths)} items packed, {len(twice)} more than once")
    starts = np.cumsum([0, *(len(bin_) for bin_ in bins)])[:-1]
    fullest = int(np.add.reduceat(lengths[items], starts).max())
    if fullest > capacity:
        raise WrongResultError(f"a bin holds {fullest} of {capacity} slots")
    return float(lengths.sum() / (len(bins) * capacity))
