"""Intervals by song, slices, confusion, calibration: against closed forms, libraries and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from harness.evaluation.accuracy import NO_ANSWER, count_answers, wilson_interval
from harness.evaluation.statistics import (
    bootstrap,
    bootstrap_difference,
    calibrate,
    make_buckets,
    slice_values,
    softmax,
)
from preprocess.schema import Song


def draw(seed: int, num_songs: int, per_song: int = 1) -> tuple[list[float], list[str]]:
    """Rights and wrongs whose chance is that of their song."""
    rng = np.random.Generator(np.random.Philox(seed))
    chances = rng.beta(2, 2, num_songs)
    values = [float(rng.random() < chance) for chance in chances.tolist() for _ in range(per_song)]
    return values, [f"song{i}" for i in range(num_songs) for _ in range(per_song)]


def test_the_interval_is_the_normal_one_where_songs_are_many() -> None:
    values, songs = draw(0, 2000)
    found = bootstrap(values, songs)
    assert found is not None
    half = 1.96 * float(np.std(values)) / 2000**0.5
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.002)
    assert found.n == 2000


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    # Four questions a song, whose chances differ by song: the mean chance is 0.5.
    held = 0
    for seed in range(200):
        found = bootstrap(*draw(seed, 60, per_song=4), num_samples=500)
        assert found is not None
        held += found.low <= 0.5 <= found.high
    assert 180 <= held <= 199


def test_an_interval_over_questions_would_be_too_narrow() -> None:
    values, songs = draw(1, 60, per_song=8)
    by_song = bootstrap(values, songs)
    by_question = bootstrap(values, [str(i) for i in range(len(values))])
    assert by_song is not None
    assert by_question is not None
    assert by_song.high - by_song.low > 1.3 * (by_question.high - by_question.low)


def test_the_order_of_the_values_does_not_matter_and_the_seed_does() -> None:
    values, songs = draw(2, 50, per_song=3)
    values = [value + 0.1 * i for i, value in enumerate(values)]
    mixed = np.random.Generator(np.random.Philox(9)).permutation(len(values)).tolist()
    found = bootstrap(values, songs)
    assert bootstrap([values[i] for i in mixed], [songs[i] for i in mixed]) == found
    assert bootstrap(values, songs, seed=1) != found


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_takes_wilsons_interval(value: float) -> None:
    found = bootstrap([value] * 40, [str(i // 2) for i in range(40)])
    assert found is not None
    assert (found.low, found.high) == wilson_interval(20 * int(value), 20)


def test_songs_that_are_all_alike_do_not_make_an_interval_a_point() -> None:
    alike = bootstrap([0.1, 0.2, 0.3] * 7, [str(i // 3) for i in range(21)])
    assert alike is not None
    assert (alike.low, alike.high) == pytest.approx(wilson_interval(1.4, 7))
    one = bootstrap([1.0, 0.0], ["a", "a"])
    assert one is not None
    assert (one.low, one.high) == pytest.approx(wilson_interval(0.5, 1))


def test_a_difference_that_is_the_same_for_every_song_is_sure_only_where_songs_are_enough() -> None:
    def differ(before: float, after: float, num_songs: int) -> tuple[float, float]:
        ids = [str(i) for i in range(num_songs)]
        found = bootstrap_difference([before] * num_songs, [after] * num_songs, ids)
        assert found is not None
        assert found.low <= found.value <= found.high
        return found.low, found.high

    assert differ(0, 1, 1)[0] < 0
    assert 0.5 < differ(0, 1, 20)[0] < 1
    assert differ(0.25, 0.75, 2)[0] < 0 < differ(0.25, 0.75, 60)[0]
    low, high = differ(0.25, 0.75, 9)
    assert differ(0.75, 0.25, 9) == pytest.approx((-high, -low))
    assert differ(1, 1, 10) == pytest.approx((-0.2775, 0.2775), abs=5e-5)


def test_no_values_have_no_interval() -> None:
    assert bootstrap([], []) is None
    assert bootstrap_difference([], [], []) is None
    assert calibrate([], []) is None


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    before, songs = draw(3, 200)
    after = [1.0 if i % 10 == 0 else value for i, value in enumerate(before)]
    found = bootstrap_difference(before, after, songs)
    alone = bootstrap(before, songs)
    assert found is not None
    assert alone is not None
    assert found.value == pytest.approx(np.mean(after) - np.mean(before))
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < alone.high - alone.low
    same = bootstrap_difference(before, before, songs)
    assert same is not None
    assert (same.value, same.high, same.low) == (0, wilson_interval(0, 200)[1], -wilson_interval(0, 200)[1])


def test_values_without_a_song_each_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values of 1 songs"):
        bootstrap([1, 0], ["a"])
    with pytest.raises(ValueError, match="1 values before, 2 after"):
        bootstrap_difference([1], [1, 0], ["a", "b"])


def test_slices_part_the_songs_and_their_counts_add_up() -> None:
    songs = [
        Song("a", "la", artist="A", genre="Rock", year=1991, language="en"),
        Song("b", "la", artist="A", genre="Pop", year=1985, language="de"),
        Song("c", "la", artist="B", genre="Rock", year=None, language="und"),
        Song("d", "la"),
    ]
    found = list(slice_values([1, 0, 1, 0], songs, {"A": 6, "B": 21}, num_samples=100))
    assert [(part.by, part.slice, part.interval.value, part.interval.n) for part in found] == [
        ("genre", "Pop", 0, 1),
        ("genre", "Rock", 1, 2),
        ("genre", "unknown", 0, 1),
        ("decade", "1980s", 0, 1),
        ("decade", "1990s", 1, 1),
        ("decade", "unknown", 0.5, 2),
        ("language", "de", 0, 1),
        ("language", "en", 1, 1),
        ("language", "unknown", 0.5, 2),
        ("artist_frequency", "6-20 songs", 0.5, 2),
        ("artist_frequency", "over 20 songs", 1, 1),
        ("artist_frequency", "unknown", 0, 1),
    ]


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (0, "0 songs"),
        (1, "1-5 songs"),
        (5, "1-5 songs"),
        (6, "6-20 songs"),
        (20, "6-20 songs"),
        (21, "over 20 songs"),
    ],
)
def test_artists_go_by_their_training_songs(count: int, name: str) -> None:
    bucket = make_buckets({"A": count})["artist_frequency"]
    assert bucket(Song("a", "la", artist="A")) == name
    assert bucket(Song("b", "la", artist="B")) == "0 songs"


def test_confusion_counts_the_answers_that_could_not_be_read() -> None:
    pairs = [("B", "A"), ("A", "A"), ("A", None), ("A", "A")]
    assert count_answers(pairs) == {"A": {NO_ANSWER: 1, "A": 2}, "B": {"A": 1}}


def test_softmax_of_log_likelihoods_sums_to_one_and_bears_any_size() -> None:
    assert softmax([-1000.0, -1000.0]) == [0.5, 0.5]
    assert softmax([0.0, np.log(3)]) == pytest.approx([0.25, 0.75])
    assert softmax([-5.0, float("-inf")]) == [1.0, 0.0]


def test_calibration_of_a_hand_made_case() -> None:
    is_right = [mark == "x" for mark in "xxx..xx."]
    found = calibrate([0.95, 0.95, 0.95, 0.95, 0.55, 0.55, 1.0, 0.0], is_right)
    assert found is not None
    assert [(part.low, part.n, part.accuracy) for part in found.bins] == [
        (0.0, 1, 0.0),
        (0.5, 2, 0.5),
        (0.9, 5, 0.8),
    ]
    assert found.ece == pytest.approx((0 + 2 * 0.05 + 5 * abs(0.8 - 0.96)) / 8)


def test_the_brier_score_is_that_of_scikit_learn() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    sure = rng.random(300)
    right = rng.random(300) < sure
    found = calibrate(sure.tolist(), right.tolist())
    assert found is not None
    assert found.brier == pytest.approx(brier_score_loss(right, sure))
    assert found.ece < 0.1
    off = calibrate(sure.tolist(), (~right).tolist())
    assert off is not None
    assert off.ece > 0.3


def test_a_probability_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        calibrate([1.2], [True])
    with pytest.raises(ValueError, match="expected as many"):
        calibrate([0.2], [])
