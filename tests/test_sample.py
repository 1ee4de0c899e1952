from __future__ import annotations

import io
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from preprocess.choose.sample import SampleConfig, print_outcome, rank_within, sample_songs
from preprocess.choose.split import priority, share_out, split_songs
from preprocess.clean.lyrics import lyrics_hash
from preprocess.errors import ConfigError, DataError
from preprocess.schema import Song

GENRES = ("Rock", "Pop", "Folk")


def make_songs(num: int, *, artists: int = 20) -> list[Song]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        Song(
            id=f"s{n}",
            lyrics=" ".join("".join(letters[int(d)] for d in f"{n}{word}") for word in range(20)),
            artist=f"Artist {n % artists}",
            genre=GENRES[n % 3],
            year=1960 + n % 50,
        )
        for n in range(num)
    ]


CONFIG = SampleConfig(songs_per_genre=40, songs_per_artist=10, min_chars=10, eval_fraction=0.1)


def ids(songs: list[Song]) -> list[str]:
    return [song.id for song in songs]


def test_every_genre_gets_its_number_and_the_outcome_says_so() -> None:
    train, evaluation, outcome = sample_songs(make_songs(600, artists=97), CONFIG, seed=1)
    assert Counter(song.genre for song in train + evaluation) == dict.fromkeys(GENRES, 40)
    assert [(row.genre, row.wanted, row.had, row.taken, row.evaluation) for row in outcome.genres] == [
        ("Folk", 40, 200, 40, 4),
        ("Pop", 40, 200, 40, 4),
        ("Rock", 40, 200, 40, 4),
    ]
    assert outcome.num_taken == len(train) + len(evaluation)
    assert outcome.num_eval == len(evaluation) == outcome.num_eval_wanted
    assert outcome.to_json()["num_read"] == 600


def test_the_choice_does_not_depend_on_the_order_of_the_input() -> None:
    songs = make_songs(500)
    songs += [replace(songs[n], id=f"copy{n}") for n in range(0, 500, 7)]
    shuffled = random.Random(5).sample(songs, len(songs))
    first = sample_songs(songs, CONFIG, seed=3)
    assert sample_songs(shuffled, CONFIG, seed=3) == first
    assert sample_songs(iter(shuffled), CONFIG, seed=3) == first
    assert set(ids(sample_songs(songs, CONFIG, seed=4)[0])) != set(ids(first[0]))


def test_the_choice_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    command = "from preprocess.choose.split import priority; print(priority(1, 'a', 'take'))"
    told = subprocess.run(
        [sys.executable, "-c", command],
        env={"PYTHONHASHSEED": "99", "PYTHONPATH": ":".join(path or "." for path in sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) == priority(1, "a", "take")


def test_no_artist_has_more_songs_than_the_limit() -> None:
    config = CONFIG.model_copy(update={"songs_per_genre": 1000, "songs_per_artist": 3})
    songs = [
        replace(song, artist=(song.artist or "").upper() if n % 2 else song.artist)
        for n, song in enumerate(make_songs(300))
    ]
    train, evaluation, outcome = sample_songs(songs, config, seed=0)
    counts = Counter((song.artist or "").casefold() for song in train + evaluation)
    assert set(counts.values()) == {3}
    assert outcome.num_over_artist_limit == 300 - 60
    unlimited = sample_songs([replace(song, artist=None) for song in songs], config, seed=0)[2]
    assert unlimited.num_taken == 300


def test_copies_of_lyrics_are_kept_once_and_never_cross_the_split() -> None:
    songs = make_songs(200)
    copies = [replace(song, id=f"c{song.id}", lyrics=song.lyrics.upper() + "!\n") for song in songs]
    train, evaluation, outcome = sample_songs(songs + copies, CONFIG, seed=2)
    hashes = [lyrics_hash(song.lyrics) for song in train + evaluation]
    assert outcome.num_duplicates == 200
    assert len(set(hashes)) == len(hashes)
    assert evaluation


def test_lengths_outside_the_limits_are_left_out() -> None:
    songs = make_songs(30)
    songs[0] = replace(songs[0], lyrics="x" * 9)
    songs[1] = replace(songs[1], lyrics="x" * 6000)
    train, evaluation, outcome = sample_songs(songs, CONFIG, seed=2)
    assert outcome.num_wrong_length == 2
    assert not {"s0", "s1"} & set(ids(train + evaluation))


def test_decades_are_taken_in_turn_while_they_last() -> None:
    songs = [replace(song, genre="Rock", year=2015) for song in make_songs(300, artists=300)]
    for n, year in enumerate([1965, 1975, 1975, *[1985] * 50]):
        songs[n] = replace(songs[n], year=year)
    taken: dict[bool, Counter[str | None]] = {}
    for balanced in (True, False):
        config = CONFIG.model_copy(update={"balance_decades": balanced})
        train, evaluation, _ = sample_songs(songs, config, seed=0)
        taken[balanced] = Counter(song.decade for song in train + evaluation)
    decades = taken[True]
    assert (decades["1960s"], decades["1970s"]) == (1, 2)
    assert abs(decades["1980s"] - decades["2010s"]) <= 1
    assert taken[False]["2010s"] > 25


def test_every_evaluation_artist_is_known_from_training() -> None:
    songs = [replace(song, artist=f"Solo {n}") if n % 2 else song for n, song in enumerate(make_songs(120))]
    config = CONFIG.model_copy(update={"eval_fraction": 0.4})
    train, evaluation, _ = sample_songs(songs, config, seed=6)
    assert evaluation
    assert {song.artist for song in evaluation} <= {song.artist for song in train}


def test_too_few_possible_evaluation_songs_are_reported() -> None:
    songs = make_songs(60, artists=60)
    _, evaluation, outcome = sample_songs(songs, CONFIG.model_copy(update={"eval_songs": 12}), seed=0)
    assert evaluation == []
    assert (outcome.num_eval, outcome.num_eval_wanted) == (0, 12)
    loose = CONFIG.model_copy(update={"eval_songs": 12, "train_songs_per_eval_artist": 0})
    assert sample_songs(songs, loose, seed=0)[2].num_eval == 12


def test_songs_without_artist_may_be_set_aside() -> None:
    songs = [replace(song, artist=None) for song in make_songs(10)]
    train, evaluation = split_songs(songs, 4, 1, seed=0)
    assert (len(train), len(evaluation)) == (6, 4)


def test_songs_without_genre_are_taken_only_where_there_are_no_genres() -> None:
    songs = make_songs(90)
    mixed = [replace(song, genre=None) if n < 30 else song for n, song in enumerate(songs)]
    assert sample_songs(mixed, CONFIG, seed=0)[2].num_taken == 60
    assert (
        sample_songs(mixed, CONFIG.model_copy(update={"songs_without_genre": 5}), seed=0)[2].num_taken == 65
    )
    none = [replace(song, genre=None) for song in songs]
    assert sample_songs(none, CONFIG, seed=0)[2].num_taken == 40
    rock = sample_songs(songs, CONFIG.model_copy(update={"genres": ("Rock",)}), seed=0)[0]
    assert {song.genre for song in rock} == {"Rock"}


def test_songs_that_can_be_read_twice_are_not_held_in_memory() -> None:
    class Reader:
        num_passes = 0

        def __iter__(self) -> Iterator[Song]:
            self.num_passes += 1
            yield from make_songs(100)

    reader = Reader()
    train, _, _ = sample_songs(reader, CONFIG, seed=0)
    assert train == sample_songs(make_songs(100), CONFIG, seed=0)[0]
    assert reader.num_passes >= 2


def test_no_song_left_is_an_error_that_says_why() -> None:
    with pytest.raises(DataError, match="No song is left of 5") as error:
        sample_songs(make_songs(5), CONFIG.model_copy(update={"min_chars": 5000}), seed=0)
    assert error.value.exit_code == 4
    with pytest.raises(DataError, match="No song is left of 0"):
        sample_songs([], CONFIG, seed=0)


def test_unknown_and_impossible_settings_are_refused() -> None:
    with pytest.raises(ValidationError):
        SampleConfig.model_validate({"song_per_genre": 3})
    with pytest.raises(ValidationError):
        SampleConfig(eval_fraction=1.0)


def test_ranks_and_shares() -> None:
    assert rank_within(np.array([7, 7, 3, 7, 3])).tolist() == [0, 1, 0, 2, 1]
    assert rank_within(np.array([], np.int64)).tolist() == []
    assert share_out({"a": 50, "b": 30, "c": 20}, 7) == {"a": 4, "b": 2, "c": 1}
    assert share_out({"a": 2, "b": 1}, 99) == {"a": 2, "b": 1}


def test_the_outcome_prints_as_a_table() -> None:
    outcome = sample_songs(make_songs(90), CONFIG, seed=0)[2]
    console = Console(record=True, width=100, file=io.StringIO())
    print_outcome(outcome, console)
    assert "Folk" in console.export_text()


def test_a_genre_that_no_song_has_is_refused_with_the_nearest_one() -> None:
    config = CONFIG.model_copy(update={"genres": ("Folk", "rok")})
    with pytest.raises(ConfigError, match="'rok'; did you mean 'Rock'\\? Genres found: Folk, Pop, Rock"):
        sample_songs(make_songs(60), config, seed=0)
    known = CONFIG.model_copy(update={"genres": ("Folk", "Rock")})
    assert sample_songs(make_songs(60), known, seed=0)[2].num_taken == 40
    with pytest.raises(ConfigError, match="Genres found: none"):
        sample_songs([replace(song, genre=None) for song in make_songs(60)], config, seed=0)


def test_evaluation_songs_must_leave_some_to_train_on() -> None:
    loose = {"train_songs_per_eval_artist": 0}
    with pytest.raises(ConfigError, match="got 30 evaluation songs of 30 songs"):
        sample_songs(make_songs(30), CONFIG.model_copy(update={"eval_songs": 30} | loose), seed=0)
    train, evaluation, _ = sample_songs(
        make_songs(30), CONFIG.model_copy(update={"eval_songs": 29} | loose), seed=0
    )
    assert (len(train), len(evaluation)) == (1, 29)


def test_songs_whose_ids_repeat_are_told_apart_whatever_their_order() -> None:
    songs = make_songs(90)
    songs = [replace(song, id=str(n % 30)) for n, song in enumerate(songs)]
    first = sample_songs(songs, CONFIG, seed=1)
    taken = ids(first[0] + first[1])
    assert len(set(taken)) == len(taken) == 90
    assert {id_.partition("-")[0] for id_ in taken} == {str(n) for n in range(30)}
    assert sum("-" in id_ for id_ in taken) == 60
    assert sample_songs(songs[::-1], CONFIG, seed=1) == first
