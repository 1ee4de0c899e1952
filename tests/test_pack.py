from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.build import pack
from preprocess.build.dataset import EncodeSettings
from preprocess.build.pack import pack_lengths

CAPACITY = 60

lengths_lists = st.lists(st.integers(1, CAPACITY), max_size=120)


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


@given(lengths=lengths_lists)
def test_as_many_bins_as_item_wise_best_fit_decreasing(lengths: list[int]) -> None:
    assert len(pack_lengths(lengths, CAPACITY)) == count_bins_best_fit_decreasing(lengths, CAPACITY)


def test_as_many_bins_on_song_like_lengths() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(6.0, 0.6, 5000), 1, 2048).astype(int).tolist()
    num_bins = len(pack_lengths(lengths, 2048))
    assert num_bins == count_bins_best_fit_decreasing(lengths, 2048)
    assert sum(lengths) / (num_bins * 2048) > 0.98


def test_first_fit_in_input_order_needs_more_bins_so_the_comparison_bites() -> None:
    lengths = [20, 20, 20, 40, 40, 40]
    assert count_bins_first_fit_in_input_order(lengths, CAPACITY) == 4
    assert len(pack_lengths(lengths, CAPACITY)) == count_bins_best_fit_decreasing(lengths, CAPACITY) == 3


def test_worst_fit_needs_more_bins_here_so_best_fit_is_told_apart() -> None:
    lengths = [18, 16, 12, 10, 3]  # best fit: 18 + 12 and 16 + 10 + 3; worst fit opens a third
    assert len(pack_lengths(lengths, 30)) == count_bins_best_fit_decreasing(lengths, 30) == 2
    lengths_in_favour_of_worst_fit = [20, 16, 8, 6, 6, 3, 1]
    assert len(pack_lengths(lengths_in_favour_of_worst_fit, 30)) == 3


@given(lengths=lengths_lists, seed=st.integers(0, 5))
def test_every_item_once_and_no_bin_too_full(lengths: list[int], seed: int) -> None:
    bins = pack_lengths(lengths, CAPACITY, seed)
    assert sorted(item for bin_ in bins for item in bin_) == list(range(len(lengths)))
    assert all(0 < sum(lengths[item] for item in bin_) <= CAPACITY for bin_ in bins)


@given(lengths=lengths_lists, seed=st.integers(0, 5))
def test_the_same_seed_gives_the_same_bins(lengths: list[int], seed: int) -> None:
    assert pack_lengths(lengths, CAPACITY, seed) == pack_lengths(
        np.array(lengths, dtype=np.int64), CAPACITY, seed
    )


def test_another_seed_deals_other_items_into_the_same_number_of_bins() -> None:
    lengths = [30] * 40 + [17] * 40
    first, second = pack_lengths(lengths, CAPACITY, 0), pack_lengths(lengths, CAPACITY, 1)
    assert len(first) == len(second)
    assert {frozenset(bin_) for bin_ in first} != {frozenset(bin_) for bin_ in second}


def test_the_order_of_the_bins_is_shuffled() -> None:
    lengths = [60] * 20 + [10] * 120
    sizes = [max(lengths[item] for item in bin_) for bin_ in pack_lengths(lengths, CAPACITY)]
    assert sizes not in (sorted(sizes), sorted(sizes, reverse=True))


def test_nothing_packs_into_nothing() -> None:
    assert pack_lengths([], CAPACITY) == []


@pytest.mark.parametrize("bad", [0, -3, CAPACITY + 1])
def test_a_length_that_no_bin_holds_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match=r"lengths must lie in 1 … 60"):
        pack_lengths([5, bad, 7], CAPACITY)


def test_only_the_lengths_that_occur_are_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a histogram over every length of the row was made")

    monkeypatch.setattr(np, "bincount", refuse)
    assert sorted(pack._pack_histogram(np.array([10**6, 7, 3]), 10**6 + 8)) == [((3,), 1), ((10**6, 7), 1)]


def test_a_row_length_beyond_any_model_is_refused() -> None:
    assert EncodeSettings(seq_len=1_048_576).seq_len == 1_048_576
    with pytest.raises(ValueError, match="less than or equal to 1048576"):
        EncodeSettings(seq_len=1_048_577)
