"""Evening out what the bins of a packing hold, without making any of them fuller.

Rows that are drawn at random for a rank carry nearly equal numbers of supervised tokens when all rows do. A long song
has hardly more of them than a short one, so a row of many short songs has several times those of a row of one::

    heavy bin   A A A A A b b b c c c c c     b + c are as long as E: they change places, and both bins
    light bin   D D D D D E E E E E E E E     are as full as before

In each round a heavy and a light bin are paired where what is drawn from them is equally long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.build.bins import Bins, sort_stably
from preprocess.schema import Int32Array, Int64Array

SPARE_PLACES = 8
"""How many items a bin can gain."""

ITEMS_GIVEN = (2, 2, 2, 1) * 4
"""In each round: the items that a heavy bin gives for one of a light bin."""

LEAST_GAIN = 0.03
"""A round that lowers the squares of the deviations by less than this share is the last."""


def even_out(bins: Bins, lengths: Int64Array, weights: Int64Array, rng: np.random.Generator) -> Bins:
    """Exchange items of the bins for others of the same length, so that the bins' weights come near each other.

    Args:
        bins: B bins, none of them empty.
        lengths: int64[N], length of each item.
        weights: int64[N], weight of each item.
        rng: Draws which items are tried.

    Returns:
        Bins of the same lengths as before, in the same order.
    """
    table = _lay_out(bins, lengths, weights)
    spread = table.spread()
    for num_given in ITEMS_GIVEN:
        _exchange(table, num_given, rng)
        before, spread = spread, table.spread()
        if spread >= (1 - LEAST_GAIN) * before:
            break
    return Bins(table.items[table.items >= 0].astype(np.int64), np.cumsum(table.num_items))


@dataclass(slots=True, eq=False)
class Table:
    """Bins with room for more items.

    Attributes:
        items: int32[P], the places of the bins, -1 where there is no item; a bin's items come first in its places.
        starts: int64[B], the first place of each bin.
        num_items: int64[B], the items in each.
        room: int64[B], the places of each.
        sums: int64[B], the weight of each.
        lengths: int32[N], of the items.
        weights: int32[N], of the items.
    """

    items: Int32Array
    starts: Int64Array
    num_items: Int64Array
    room: Int64Array
    sums: Int64Array
    lengths: Int32Array
    weights: Int32Array

    def spread(self) -> int:
        """The squares of the sums' deviations from the mean, times the number of bins."""
        return int((self.sums**2).sum()) * len(self.sums) - int(self.sums.sum()) ** 2


def _lay_out(bins: Bins, lengths: Int64Array, weights: Int64Array) -> Table:
    num_items = bins.ends - bins.starts
    room = num_items + SPARE_PLACES
    starts = np.cumsum(room) - room
    items = np.full(int(room.sum()), -1, dtype=np.int32)
    items[np.arange(len(bins.order)) + np.repeat(starts - bins.starts, num_items)] = bins.order
    return Table(
        items, starts, num_items, room, bins.sums(weights), lengths.astype(np.int32), weights.astype(np.int32)
    )


def _exchange(table: Table, num_given: int, rng: np.random.Generator) -> None:
    """One round: each bin takes part in one exchange at most."""
    by_weight = sort_stably(table.sums)
    half = len(by_weight) // 2
    heavy, light = by_weight[::-1][:half], by_weight[:half]
    heavy = heavy[table.num_items[heavy] >= num_given]
    light = light[table.num_items[light] + num_given - 1 <= table.room[light]]
    given, taken = _draw(table, heavy, num_given, rng), _draw(table, light, 1, rng)
    # Of equal lengths the heaviest bin meets the lightest one.
    first, second = _match(_sum(table.lengths, table, given), _sum(table.lengths, table, taken))
    excess = _sum(table.weights, table, given)[first] - _sum(table.weights, table, taken)[second]
    gap = table.sums[heavy[first]] - table.sums[light[second]]
    helps = (excess > 0) & (excess < gap)
    first, second, excess = first[helps], second[helps], excess[helps]
    _swap(table, heavy[first], given[:, first], light[second], taken[0, second])
    table.sums[heavy[first]] -= excess
    table.sums[light[second]] += excess


def _draw(table: Table, bins: Int64Array, number: int, rng: np.random.Generator) -> Int64Array:
    """int64[number, len(bins)]: places of one item of each bin, or of two different ones."""
    starts, num_items = table.starts[bins], table.num_items[bins]
    first = (rng.random(len(bins)) * num_items).astype(np.int64)
    if number == 1:
        return (starts + first)[None]
    further = 1 + (rng.random(len(bins)) * (num_items - 1)).astype(np.int64)
    return np.stack([starts + first, starts + (first + further) % num_items])


def _sum(values: Int32Array, table: Table, places: Int64Array) -> Int64Array:
    sums: Int64Array = values[table.items[places]].sum(axis=0, dtype=np.int64)
    return sums


def _match(first: Int64Array, second: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Indices of equal numbers in two arrays: the k-th of a number in one beside the k-th of it in the other."""
    by_first, by_second = sort_stably(first), sort_stably(second)
    wanted, offered = first[by_first], second[by_second]
    rank = np.arange(len(wanted)) - np.searchsorted(wanted, wanted, side="left")
    place = np.searchsorted(offered, wanted, side="left") + rank
    found = place < np.searchsorted(offered, wanted, side="right")
    return by_first[found], by_second[place[found]]


def _swap(table: Table, heavy: Int64Array, given: Int64Array, light: Int64Array, taken: Int64Array) -> None:
    """Exchange what lies at the places `given` (int64[1 or 2, K]) of K bins for that at `taken` of K others."""
    items = table.items
    items[given[0]], items[taken] = items[taken], items[given[0]]
    if len(given) == 1:
        return
    table.num_items[heavy] -= 1
    last = table.starts[heavy] + table.num_items[heavy]
    items[table.starts[light] + table.num_items[light]] = items[given[1]]
    items[given[1]] = items[last]  # the gap is closed by the last item, which may be the one that left
    items[last] = -1
    table.num_items[light] += 1
