from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.build.bins import Bins
from preprocess.build.pack import pack_lengths
from tests.test_patterns import count_bins_best_fit_decreasing

CAPACITY = 60

lengths_lists = st.lists(st.integers(1, CAPACITY), max_size=120)


def as_lists(bins: Bins) -> list[list[int]]:
    return [items.tolist() for items in bins]


@given(lengths=lengths_lists, seed=st.integers(0, 5), weighted=st.booleans())
def test_every_item_once_and_no_bin_too_full(lengths: list[int], seed: int, weighted: bool) -> None:
    weights = [length * 7 % 11 for length in lengths] if weighted else None
    bins = pack_lengths(lengths, CAPACITY, seed, weights)
    assert sorted(item for bin_ in bins for item in bin_) == list(range(len(lengths)))
    assert all(0 < sum(lengths[item] for item in bin_) <= CAPACITY for bin_ in bins)
    assert len(bins) <= count_bins_best_fit_decreasing(lengths, CAPACITY)


@given(lengths=lengths_lists, seed=st.integers(0, 5), weighted=st.booleans())
def test_the_same_seed_gives_the_same_bins(lengths: list[int], seed: int, weighted: bool) -> None:
    weights = [length % 5 for length in lengths] if weighted else None
    first = pack_lengths(lengths, CAPACITY, seed, weights)
    again = pack_lengths(np.array(lengths, dtype=np.int64), CAPACITY, seed, weights)
    assert as_lists(first) == as_lists(again)


def test_the_bins_are_the_same_on_every_machine() -> None:
    rng = np.random.Generator(np.random.Philox(3))
    lengths, weights = rng.integers(16, 2049, 3000), rng.integers(0, 400, 3000)
    bins = pack_lengths(lengths, 2048, 7, weights)
    digest = hashlib.sha256(bins.order.astype("<i8").tobytes() + bins.ends.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "dfd6ee563342f1a0"


def test_another_seed_deals_other_items_into_the_same_number_of_bins() -> None:
    lengths = [30] * 40 + [17] * 40
    first, second = as_lists(pack_lengths(lengths, CAPACITY, 0)), as_lists(pack_lengths(lengths, CAPACITY, 1))
    assert len(first) == len(second)
    assert {frozenset(bin_) for bin_ in first} != {frozenset(bin_) for bin_ in second}


def test_the_order_of_the_bins_is_shuffled() -> None:
    lengths = [60] * 20 + [10] * 120
    sizes = [max(lengths[item] for item in bin_) for bin_ in pack_lengths(lengths, CAPACITY)]
    assert sizes not in (sorted(sizes), sorted(sizes, reverse=True))


def test_nothing_packs_into_nothing() -> None:
    assert as_lists(pack_lengths([], CAPACITY)) == as_lists(pack_lengths([], CAPACITY, 0, [])) == []


def test_bins_are_arrays_that_are_looked_into_one_by_one() -> None:
    bins = pack_lengths([60, 60, 60], CAPACITY)
    assert bins.order.dtype == bins.ends.dtype == np.dtype(np.int64)
    assert [bins[i].tolist() for i in range(len(bins))] == as_lists(bins)
    assert bins.sums(np.array([1, 1, 1])).tolist() == [1, 1, 1]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            bins[index]


@pytest.mark.parametrize("bad", [0, -3, CAPACITY + 1])
def test_a_length_that_no_bin_holds_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match=r"lengths must lie in 1 … 60"):
        pack_lengths([5, bad, 7], CAPACITY)


def test_weights_of_another_number_of_items_are_refused() -> None:
    with pytest.raises(ValueError, match="3 lengths, but 2 weights"):
        pack_lengths([5, 6, 7], CAPACITY, 0, [1, 2])
