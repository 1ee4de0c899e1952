from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocess.build.balance import even_out
from preprocess.build.bins import Bins
from preprocess.build.pack import pack_lengths
from preprocess.schema import Int64Array

CAPACITY = 2048


def make_rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def draw_songs(num_songs: int, seed: int = 0) -> tuple[Int64Array, Int64Array]:
    """Lengths like those of songs, and supervised tokens that hardly depend on them."""
    rng = make_rng(seed)
    lengths = np.clip(np.rint(rng.lognormal(np.log(400), 0.55, num_songs)), 16, CAPACITY).astype(np.int64)
    return lengths, np.clip(rng.normal(200, 50, num_songs), 10, None).astype(np.int64)


def variation(values: Int64Array) -> float:
    return float(values.std() / values.mean())


def test_rows_of_songs_carry_nearly_equal_numbers_of_supervised_tokens() -> None:
    lengths, weights = draw_songs(20_000)
    by_chance = pack_lengths(lengths, CAPACITY, 0)
    evened = pack_lengths(lengths, CAPACITY, 0, weights)
    assert variation(by_chance.sums(weights)) > 0.5
    assert variation(evened.sums(weights)) < 0.15
    assert evened.sums(lengths).tolist() == by_chance.sums(lengths).tolist()


def test_any_ranks_rows_carry_nearly_equal_numbers() -> None:
    lengths, weights = draw_songs(20_000)
    sums = pack_lengths(lengths, CAPACITY, 0, weights).sums(weights)
    ranks = make_rng(5).permutation(sums)[: len(sums) // 24 * 24].reshape(-1, 3, 8).sum(axis=2)
    assert variation(ranks.ravel()) < 0.06


@given(seed=st.integers(0, 30), num_songs=st.integers(1, 300))
def test_exchanges_keep_every_item_and_every_bin_s_length_and_never_widen_the_spread(
    seed: int, num_songs: int
) -> None:
    lengths, weights = draw_songs(num_songs, seed)
    before = pack_lengths(lengths, CAPACITY, seed)
    after = even_out(before, lengths, weights, make_rng(seed))
    assert sorted(after.order.tolist()) == list(range(num_songs))
    assert after.sums(lengths).tolist() == before.sums(lengths).tolist()
    assert after.sums(weights).std() <= before.sums(weights).std()


def test_two_short_songs_change_places_with_a_long_one() -> None:
    lengths, weights = np.array([2, 2, 2, 2, 4, 4]), np.array([10, 10, 10, 10, 10, 10])
    bins = Bins(np.arange(6), np.array([4, 6]))
    assert bins.sums(weights).tolist() == [40, 20]
    after = even_out(bins, lengths, weights, make_rng())
    assert after.sums(weights).tolist() == [30, 30]
    assert after.sums(lengths).tolist() == [8, 8]


def test_nothing_is_exchanged_where_no_lengths_agree() -> None:
    lengths, weights = np.array([3, 3, 4, 5]), np.array([9, 9, 1, 1])
    after = even_out(Bins(np.arange(4), np.array([2, 4])), lengths, weights, make_rng())
    assert [sorted(items.tolist()) for items in after] == [[0, 1], [2, 3]]


def test_a_single_bin_and_equal_bins_stay() -> None:
    for ends in ([4], [1, 2, 3, 4]):
        bins = Bins(np.arange(4), np.array(ends))
        after = even_out(bins, np.full(4, 5), np.full(4, 3), make_rng())
        assert (after.order.tolist(), after.ends.tolist()) == ([0, 1, 2, 3], ends)
