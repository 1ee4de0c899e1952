from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.build import patterns
from preprocess.build.patterns import (
    Packing,
    Stock,
    count_bins,
    count_bins_needed,
    pack_best_fit,
    pack_exactly,
    pack_histogram,
)

CAPACITY = 60

lengths_lists = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=120)


def count_bins_best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """The item-wise algorithm: the longest first, each into the fullest bin that it fits in."""
    residuals: list[int] = []
    num_bins = 0
    for length in sorted(lengths, reverse=True):
        place = bisect_left(residuals, length)
        residual = residuals.pop(place) if place < len(residuals) else capacity
        num_bins += residual == capacity
        if residual > length:
            insort(residuals, residual - length)
    return num_bins


def count_bins_first_fit_in_input_order(lengths: list[int], capacity: int) -> int:
    residuals: list[int] = []
    for length in lengths:
        for i, residual in enumerate(residuals):
            if residual >= length:
                residuals[i] -= length
                break
        else:
            residuals.append(capacity - length)
    return len(residuals)


def count_fewest_bins(lengths: list[int], capacity: int) -> int:
    """By trying every place for every item."""
    best = len(lengths)

    def place(index: int, residuals: list[int]) -> None:
        nonlocal best
        if len(residuals) >= best:
            return
        if index == len(lengths):
            best = len(residuals)
            return
        for i, residual in enumerate(residuals):
            if residual >= lengths[index] and residual not in residuals[:i]:
                place(index + 1, [*residuals[:i], residual - lengths[index], *residuals[i + 1 :]])
        place(index + 1, [*residuals, capacity - lengths[index]])

    place(0, [])
    return best


def check_packing(packing: Packing, lengths: list[int], capacity: int) -> None:
    """Every item once, no bin too full, none empty."""
    packed: Counter[int] = Counter()
    for pattern, num_bins in packing:
        assert num_bins > 0
        assert 0 < sum(pattern) <= capacity
        for length in pattern:
            packed[length] += num_bins
    assert packed == Counter(lengths)


def bound(lengths: list[int], capacity: int) -> int:
    counts = sorted(Counter(lengths).items())
    return count_bins_needed([length for length, _ in counts], [count for _, count in counts], capacity)


@given(lengths=lengths_lists)
def test_as_many_bins_as_item_wise_best_fit_decreasing(lengths: list[int]) -> None:
    packing = pack_best_fit(Counter(lengths), CAPACITY)
    check_packing(packing, lengths, CAPACITY)
    assert count_bins(packing) == count_bins_best_fit_decreasing(lengths, CAPACITY)


def test_first_fit_in_input_order_needs_more_bins_so_the_comparison_bites() -> None:
    lengths = [20, 20, 20, 40, 40, 40]
    assert count_bins_first_fit_in_input_order(lengths, CAPACITY) == 4
    assert count_bins(pack_best_fit(Counter(lengths), CAPACITY)) == 3


def test_worst_fit_needs_more_bins_here_so_best_fit_is_told_apart() -> None:
    lengths = [18, 16, 12, 10, 3]  # best fit: 18 + 12 and 16 + 10 + 3; worst fit opens a third
    assert count_bins(pack_best_fit(Counter(lengths), 30)) == 2
    lengths_in_favour_of_worst_fit = [20, 16, 8, 6, 6, 3, 1]
    assert count_bins(pack_best_fit(Counter(lengths_in_favour_of_worst_fit), 30)) == 3


@given(lengths=lengths_lists)
def test_every_packing_holds_every_item_once_and_overfills_nothing(lengths: list[int]) -> None:
    for packing in patterns._packings(Counter(lengths), CAPACITY):
        check_packing(packing, lengths, CAPACITY)


@given(lengths=lengths_lists)
def test_never_more_bins_than_best_fit_and_never_fewer_than_the_bound(lengths: list[int]) -> None:
    num_bins = count_bins(pack_histogram(np.array(lengths), CAPACITY))
    assert bound(lengths, CAPACITY) <= num_bins <= count_bins_best_fit_decreasing(lengths, CAPACITY)


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_the_bound_is_never_above_the_fewest_bins(lengths: list[int]) -> None:
    fewest = count_fewest_bins(lengths, 20)
    assert -(-sum(lengths) // 20) <= bound(lengths, 20) <= fewest
    assert fewest <= count_bins(pack_histogram(np.array(lengths), 20))


def test_the_bound_sees_what_the_sum_does_not() -> None:
    assert bound([11] * 6, 20) == 6
    assert bound([12, 12, 9, 9], 20) == 3
    assert bound([20, 20, 10, 10], 20) == 3


@pytest.mark.parametrize(
    ("lengths", "num_bins"),
    [
        ([50, 30, 20, 40, 10, 30, 60], 4),  # one item, a pair and nothing complete the longest
        ([29, 20, 11, 28, 21, 11], 2),  # best fit puts 29 + 28 together and needs a third
    ],
)
def test_bins_are_completed_exactly(lengths: list[int], num_bins: int) -> None:
    assert count_bins(pack_histogram(np.array(lengths), CAPACITY)) == num_bins


def test_best_fit_alone_needs_a_third_bin_there() -> None:
    assert count_bins_best_fit_decreasing([29, 20, 11, 28, 21, 11], CAPACITY) == 3


def test_only_triples_fill_these_bins() -> None:
    lengths = Counter([31, 16, 8, 5, 31, 15, 9, 5])
    without, with_triples = (
        count_bins(pack_exactly(lengths, CAPACITY, "uneven", with_triples=value)) for value in (False, True)
    )
    assert (without, with_triples) == (2, 2)
    stock = Stock(lengths, CAPACITY)
    assert patterns._find_triple(stock, 29, Counter([31]), "even") == (16, 8, 5)
    assert patterns._find_triple(stock, 12, Counter([31]), "even") is None


@pytest.mark.parametrize("order", ["even", "uneven"])
def test_the_pair_that_is_found_is_the_first_of_all_pairs_in_its_order(order: patterns.PairOrder) -> None:
    counts = {3: 1, 5: 2, 10: 1, 11: 1, 15: 1, 17: 1}
    stock = Stock(counts, 40)
    for total in range(2, 40):
        pairs = [
            (long, short)
            for short, long in combinations_with_replacement(sorted(counts), 2)
            if short + long == total and (short != long or counts[short] > 1)
        ]
        wanted = (min if order == "even" else max)(pairs, default=None)
        assert stock.find_pair(total, Counter(), order) == wanted


def test_what_is_used_in_the_bin_is_not_offered_again() -> None:
    stock = Stock({10: 1, 5: 2}, 20)
    assert stock.find_pair(10, Counter(), "even") == (5, 5)
    assert stock.find_pair(10, Counter([5]), "even") is None
    assert list(stock.up_to(20, Counter([10, 5]))) == [5]
    assert not stock.has(10, Counter([10]))


@pytest.mark.parametrize(
    ("median", "capacity", "fill"), [(400, 2048, 0.999), (830, 2048, 0.99), (130, 512, 0.998)]
)
def test_song_like_lengths_fill_nearly_every_slot(median: int, capacity: int, fill: float) -> None:
    rng = np.random.Generator(np.random.Philox(0))
    lengths = np.clip(np.rint(rng.lognormal(np.log(median), 0.55, 20_000)), 16, capacity).astype(np.int64)
    packing = pack_histogram(lengths, capacity)
    check_packing(packing, lengths.tolist(), capacity)
    best_fit = count_bins_best_fit_decreasing(lengths.tolist(), capacity)
    num_bins, needed = count_bins(packing), bound(lengths.tolist(), capacity)
    assert needed <= num_bins < best_fit
    assert num_bins <= 1.002 * needed
    assert lengths.sum() / (num_bins * capacity) > min(fill, 0.998 * lengths.sum() / (needed * capacity))


def test_only_the_lengths_that_occur_are_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a histogram over every length of the row was made")

    monkeypatch.setattr(np, "bincount", refuse)
    packing = pack_histogram(np.array([10**6, 7, 3]), 10**6 + 8)
    assert sorted(packing) == [((3,), 1), ((10**6, 7), 1)]
