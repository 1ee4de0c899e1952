"""How fast and how full does packing by counts pack, against best-fit decreasing item by item?"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from bench.record import Outcome, WrongResultError, compare, costs, summarize, time_in_turns
from preprocess.build.pack import pack_lengths
from preprocess.schema import Int64Array

CAPACITY = 2048
BY_COUNTS, BY_COUNTS_ALL, BY_ITEM = "by_counts", "by_counts_all", "by_item"


def measure(*, quick: bool) -> Outcome:
    """Pack all lengths by counts, and a sample of them both ways.

    Raises:
        WrongResultError: A packing loses an item, packs it twice, or overfills a bin.
    """
    num_items, num_sample, num_turns = (50_000, 5_000, 3) if quick else (1_000_000, 20_000, 5)
    lengths = draw_lengths(num_items)
    sample = lengths[:num_sample]
    turns = time_in_turns(
        {
            BY_ITEM: partial(pack_by_item, sample.tolist(), CAPACITY),
            BY_COUNTS: partial(pack_lengths, sample, CAPACITY),
            BY_COUNTS_ALL: partial(pack_lengths, lengths, CAPACITY),
        },
        num_turns,
    )
    packed = {BY_ITEM: sample, BY_COUNTS: sample, BY_COUNTS_ALL: lengths}
    per_item = {name: costs(turns.seconds[name], len(part)) for name, part in packed.items()}
    return Outcome(
        baseline=BY_ITEM,
        figures={
            **{f"{name}_us_per_item": summarize(values, "us/item") for name, values in per_item.items()},
            f"{BY_COUNTS_ALL}_s": summarize(turns.seconds[BY_COUNTS_ALL], "s"),
        },
        ratios={name: compare(per_item[BY_ITEM], per_item[name]) for name in (BY_COUNTS, BY_COUNTS_ALL)},
        facts={
            "items": num_items,
            "sample": num_sample,
            "capacity": CAPACITY,
            "mean_length": float(lengths.mean()),
            **{f"{name}_fill": fill(turns.results[name], part, CAPACITY) for name, part in packed.items()},
        },
    )


def draw_lengths(num_items: int, seed: int = 0) -> Int64Array:
    """int64[num_items]: lognormal lengths like those of songs in tokens (median 400), within a row."""
    rng = np.random.Generator(np.random.Philox(seed))
    drawn = rng.lognormal(mean=np.log(400), sigma=0.55, size=num_items)
    return np.clip(np.rint(drawn), 16, CAPACITY).astype(np.int64)


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


def fill(bins: Sequence[Sequence[int]], lengths: Int64Array, capacity: int) -> float:
    """Share of the bins' slots that items take, after checking the packing.

    Raises:
        WrongResultError: An item is missing or packed twice, or a bin holds more than its capacity.
    """
    items = np.fromiter((item for bin_ in bins for item in bin_), dtype=np.int64)
    if len(items) != len(lengths) or not np.array_equal(np.sort(items), np.arange(len(lengths))):
        twice = [item for item, count in Counter(items.tolist()).items() if count > 1]
        raise WrongResultError(f"{len(items)} of {len(lengths)} items packed, {len(twice)} more than once")
    starts = np.cumsum([0, *(len(bin_) for bin_ in bins[:-1])])
    fullest = int(np.add.reduceat(lengths[items], starts).max())
    if fullest > capacity:
        raise WrongResultError(f"a bin holds {fullest} of {capacity} slots")
    return float(lengths.sum() / (len(bins) * capacity))
