from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from preprocess.choose.columns import SongColumns
from preprocess.choose.describe import concatenate, describe_songs
from preprocess.choose.outcome import SampleOutcome, StratumOutcome, print_outcome
from preprocess.choose.sample import Choice, SampleConfig, choose_songs, count_near_duplicates
from preprocess.clean.lyrics import lyrics_hash
from preprocess.errors import ConfigError, DataError
from preprocess.schema import Int64Array, Song, Traits

GENRES = ("Rock", "Pop", "Folk")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_songs(num: int, *, artists: int = 20) -> list[Song]:
    return [
        Song(
            id=f"s{n}",
            lyrics=" ".join("".join(LETTERS[int(d)] for d in f"{n}{word}") for word in range(20)),
            artist=f"Artist {n % artists}",
            genre=GENRES[n % 3],
            year=1960 + n % 50,
        )
        for n in range(num)
    ]


CONFIG = SampleConfig(songs_per_genre=40, songs_per_artist=10, min_chars=10, eval_fraction=0.1)


def change(**settings: object) -> SampleConfig:
    return SampleConfig.model_validate(CONFIG.model_dump() | settings)


def ids(songs: list[Song]) -> list[str]:
    return [song.id for song in songs]


def choose(
    songs: list[Song], config: SampleConfig = CONFIG, seed: int = 0
) -> tuple[Choice, list[list[Song]]]:
    """The choice, and its songs by part: train, eval, eval_unseen."""
    choice = choose_songs(describe_songs(songs), config, seed)
    parts: tuple[Int64Array, ...] = (choice.train, choice.evaluation, choice.eval_unseen)
    return choice, [[songs[index] for index in part.tolist()] for part in parts]


def sample_songs(
    songs: list[Song], config: SampleConfig, seed: int
) -> tuple[list[Song], list[Song], SampleOutcome]:
    """Training songs, evaluation songs and the outcome, without songs of unseen artists."""
    seen_only = config.model_copy(update={"eval_unseen_fraction": 0.0})
    choice, (train, evaluation, _) = choose(songs, seen_only, seed)
    return train, evaluation, choice.outcome


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
    songs = make_songs(500, artists=120)
    songs += [replace(songs[n], id=f"copy{n}") for n in range(0, 500, 7)]
    songs += [replace(songs[n], lyrics=songs[n].lyrics.replace("b", "c", 1)) for n in range(0, 500, 11)]
    songs = [replace(song, language=("en", "fr", "de")[n % 3]) for n, song in enumerate(songs)]
    shuffled = random.Random(5).sample(songs, len(songs))
    for config in (CONFIG, change(near_duplicates=False), change(balance_languages=False)):
        first, parts = choose(songs, config, seed=3)
        again, shuffled_parts = choose(shuffled, config, seed=3)
        assert shuffled_parts == parts
        assert again.outcome == first.outcome
        assert all(parts)
    assert set(ids(choose(songs, seed=4)[1][0])) != set(ids(choose(songs, seed=3)[1][0]))


def test_rows_that_differ_only_in_their_facts_are_chosen_from_whatever_their_order() -> None:
    songs = [replace(song, id="1", lyrics="one and the same song, sung by all") for song in make_songs(40)]
    first = choose(songs)[1]
    for seed in range(5):
        assert choose(random.Random(seed).sample(songs, len(songs)))[1] == first


def test_the_choice_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    program = (
        "from preprocess.corpus import generate_songs\n"
        "from preprocess.choose.describe import describe_songs\n"
        "from preprocess.choose.sample import SampleConfig, choose_songs\n"
        "config = SampleConfig(songs_per_genre=15)\n"
        "choice = choose_songs(describe_songs(list(generate_songs(200, seed=0))), config, 1)\n"
        "print(choice.train.tolist(), choice.evaluation.tolist(), choice.eval_unseen.tolist())\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": ":".join(path or "." for path in sys.path),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "99")
    }
    assert len(told) == 1
    assert len(told.pop()) > 300


def test_columns_in_parts_of_any_size_are_the_columns_of_all() -> None:
    songs = [replace(song, language=("fr", "en", None)[n % 3]) for n, song in enumerate(make_songs(60))]
    songs[7] = replace(songs[7], genre=None, artist=None, year=None)
    traits = [Traits(is_explicit=False, is_truncated=False, quality=n / 60) for n in range(60)]
    whole = describe_songs(songs, traits)
    parts = [describe_songs(songs[n : n + 2], traits[n : n + 2]) for n in range(0, 60, 2)]
    assert len({part.genres for part in parts} | {part.languages for part in parts}) > 5
    for joined in (concatenate(parts), concatenate(iter(parts), num_songs=60), concatenate([whole])):
        for name in SongColumns.__slots__:
            assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
            assert joined.signature.dtype == np.uint8
    assert whole.languages == ("en", "fr", "und")
    assert (whole.genre[7], whole.artist[7], whole.decade[7]) == (-1, 0, -1)
    assert len(concatenate([])) == 0


def test_no_artist_has_more_songs_than_the_limit() -> None:
    config = change(songs_per_genre=1000, songs_per_artist=3)
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
    songs = make_songs(200, artists=100)
    copies = [replace(song, id=f"c{song.id}", lyrics=song.lyrics.upper() + "!\n") for song in songs]
    choice, parts = choose(songs + copies, seed=2)
    hashes = [lyrics_hash(song.lyrics) for part in parts for song in part]
    assert choice.outcome.num_duplicates == 200
    assert len(set(hashes)) == len(hashes)
    assert all(parts)


def test_of_copies_and_of_near_copies_the_better_one_is_kept() -> None:
    songs = make_songs(60)
    copies = [replace(song, id=f"c{song.id}") for song in songs[:30]]
    near = [replace(song, id=f"n{song.id}", lyrics=song.lyrics + " and more") for song in songs[30:]]
    poor, good = Traits(False, False, 0.5), Traits(False, False, 0.9)
    for judged, expected in (([poor] * 60 + [good] * 60, "cn"), ([good] * 60 + [poor] * 60, "s")):
        columns = describe_songs(songs + copies + near, judged)
        choice = choose_songs(columns, change(eval_songs=0, eval_unseen_songs=0), 0)
        kept = [(songs + copies + near)[index].id[0] for index in choice.train.tolist()]
        assert len(kept) == 60
        assert set(kept) == set(expected)
        assert (choice.outcome.num_duplicates, choice.outcome.num_near_duplicates) == (30, 30)
    assert count_near_duplicates(columns, CONFIG, 0) == 30
    assert count_near_duplicates(columns, change(near_duplicates=False), 0) is None
    without = choose_songs(columns, change(near_duplicates=False), 0).outcome
    assert (without.num_taken, without.num_duplicates, without.num_near_duplicates) == (90, 30, 0)


def test_lengths_qualities_and_languages_outside_the_limits_are_left_out() -> None:
    songs = [replace(song, language="en") for song in make_songs(30)]
    songs[0] = replace(songs[0], lyrics="x" * 9)
    songs[1] = replace(songs[1], lyrics="x" * 6000)
    assert choose(songs)[0].outcome.num_wrong_length == 1
    songs[2] = replace(songs[2], language="fr")
    songs[3] = replace(songs[3], language=None)
    traits = [Traits(False, False, 0.3 if n != 4 else 0.29) for n in range(30)]
    choice = choose_songs(describe_songs(songs, traits), change(languages=("en", "und"), max_chars=5000), 0)
    outcome = choice.outcome
    assert (outcome.num_wrong_length, outcome.num_low_quality, outcome.num_other_language) == (2, 1, 1)
    taken = np.concatenate([choice.train, choice.evaluation, choice.eval_unseen]).tolist()
    assert sorted(taken) == [3, *range(5, 30)]
    with pytest.raises(
        ConfigError, match=r"sample.languages: no song has the language 'eng'; did you mean 'en'\?"
    ):
        choose(songs, change(languages=("eng",)))


def test_every_song_read_is_taken_or_left_out_for_one_reason() -> None:
    songs = [replace(song, language=("en", "fr")[n % 5 == 0]) for n, song in enumerate(make_songs(400))]
    songs += [replace(song, id=f"c{song.id}") for song in songs[:20]]
    songs += [replace(song, id=f"n{song.id}", lyrics=song.lyrics + " and more") for song in songs[20:50]]
    songs += [
        replace(song, id=f"g{song.id}", genre=None, lyrics="x " * n) for n, song in enumerate(songs[:9])
    ]
    traits = [Traits(False, False, 0.1 + n % 9 / 10) for n in range(len(songs))]
    config = change(languages=("en",), genres=("Rock", "Pop"), songs_per_artist=7)
    outcome = choose_songs(describe_songs(songs, traits), config, 0).outcome.to_json()
    reasons = "wrong_length low_quality other_language duplicates near_duplicates"
    reasons += " other_genre over_artist_limit over_quota"
    counts = [outcome[f"num_{reason}"] for reason in reasons.split()]
    assert min(counts) > 0
    assert sum(counts) + outcome["num_taken"] == outcome["num_read"] == len(songs)


def test_decades_are_taken_in_turn_while_they_last() -> None:
    songs = [replace(song, genre="Rock", year=2015) for song in make_songs(300, artists=300)]
    for n, year in enumerate([1965, 1975, 1975, *[1985] * 50]):
        songs[n] = replace(songs[n], year=year)
    songs[299] = replace(songs[299], year=None)
    taken: dict[bool, Counter[str | None]] = {}
    for balanced in (True, False):
        train, evaluation, outcome = sample_songs(songs, change(balance_decades=balanced), seed=0)
        taken[balanced] = Counter(song.decade for song in train + evaluation)
    decades = taken[True]
    assert (decades["1960s"], decades["1970s"], decades[None]) == (1, 2, 1)
    assert abs(decades["1980s"] - decades["2010s"]) <= 1
    assert taken[False]["2010s"] > 25
    assert [row.name for row in outcome.decades] == ["1960s", "1970s", "1980s", "2010s", None]
    assert [row.had for row in outcome.decades] == [1, 2, 50, 246, 1]
    assert {row.name: row.taken for row in outcome.decades if row.taken} == dict(taken[False])


def test_languages_get_songs_by_the_square_roots_of_what_they_have() -> None:
    songs = make_songs(3 * 404)
    songs = [replace(song, language="fr" if n // 3 % 101 < 1 else "en") for n, song in enumerate(songs)]
    config = change(songs_per_genre=66, songs_per_artist=1000)
    taken = {row.name: row.taken for row in choose(songs, config)[0].outcome.languages}
    # In each genre 4 French and 400 English songs: 2 to 20, and 4 is all there is of 6.
    assert taken == {"en": 3 * 62, "fr": 3 * 4}
    few = {row.name: row.taken for row in choose(songs, change(songs_per_genre=11))[0].outcome.languages}
    assert few == {"en": 30, "fr": 3}
    off = choose(songs, config.model_copy(update={"balance_languages": False}))[0].outcome.languages
    assert off[0] == StratumOutcome("en", 1200, off[0].taken)
    assert off[0].taken > 3 * 62


def test_every_evaluation_artist_is_known_from_training() -> None:
    songs = [replace(song, artist=f"Solo {n}") if n % 2 else song for n, song in enumerate(make_songs(120))]
    train, evaluation, _ = sample_songs(songs, change(eval_fraction=0.4), seed=6)
    assert evaluation
    assert {song.artist for song in evaluation} <= {song.artist for song in train}


def test_unseen_artists_have_no_song_in_training_or_in_the_other_evaluation_split() -> None:
    songs = make_songs(300, artists=31)
    songs += [
        replace(song, id=f"solo{n}", artist=f"Solo {n}", lyrics=song.lyrics[::-1] + " z" * 9)
        for n, song in enumerate(make_songs(40))
    ]
    config = change(songs_per_genre=100, eval_unseen_fraction=0.1)
    choice, (train, evaluation, unseen) = choose(songs, config)
    artists = [{(song.artist or "").casefold() for song in part} for part in (train, evaluation, unseen)]
    assert len(unseen) == choice.outcome.num_unseen_wanted == choice.outcome.num_eval_unseen == 30
    assert not artists[2] & (artists[0] | artists[1])
    assert artists[1] <= artists[0]
    assert Counter(song.genre for song in unseen) == dict.fromkeys(GENRES, 10)
    assert all(artist.startswith("solo") for artist in artists[2])
    # As a control: without the rule the same songs do share artists.
    assert artists[0] & {(song.artist or "").casefold() for song in songs}


def test_whole_artists_are_set_aside_and_never_more_songs_than_wanted() -> None:
    songs = make_songs(240, artists=24)
    choice, (train, _, unseen) = choose(songs, change(songs_per_genre=80, eval_unseen_songs=35))
    sizes = Counter(song.artist for song in unseen)
    assert sizes == dict.fromkeys(sizes, 10)
    assert len(unseen) == 30 <= choice.outcome.num_unseen_wanted == 35
    assert not set(sizes) & {song.artist for song in train}


def test_songs_without_artist_are_of_no_unseen_artist() -> None:
    songs = [replace(song, artist=None) for song in make_songs(60)]
    choice, (train, evaluation, unseen) = choose(songs, change(eval_unseen_fraction=0.3))
    assert (len(train), len(evaluation), len(unseen)) == (54, 6, 0)
    assert choice.outcome.num_unseen_wanted == 18


def test_too_few_possible_evaluation_songs_are_reported() -> None:
    songs = make_songs(60, artists=60)
    _, evaluation, outcome = sample_songs(songs, change(eval_songs=12), seed=0)
    assert evaluation == []
    assert (outcome.num_eval, outcome.num_eval_wanted) == (0, 12)
    loose = change(eval_songs=12, train_songs_per_eval_artist=0)
    assert sample_songs(songs, loose, seed=0)[2].num_eval == 12


def test_songs_without_genre_are_taken_only_where_there_are_no_genres() -> None:
    songs = make_songs(90)
    mixed = [replace(song, genre=None) if n < 30 else song for n, song in enumerate(songs)]
    assert sample_songs(mixed, CONFIG, seed=0)[2].num_taken == 60
    assert sample_songs(mixed, change(songs_without_genre=5), seed=0)[2].num_taken == 65
    none = [replace(song, genre=None) for song in songs]
    assert sample_songs(none, CONFIG, seed=0)[2].num_taken == 40
    rock = sample_songs(songs, change(genres=("Rock",)), seed=0)[0]
    assert {song.genre for song in rock} == {"Rock"}


def test_no_song_left_is_an_error_that_says_why() -> None:
    with pytest.raises(DataError, match="No song is left of 5") as error:
        sample_songs(make_songs(5), change(min_chars=5000), seed=0)
    assert error.value.exit_code == 4
    with pytest.raises(DataError, match="No song is left of 0"):
        sample_songs([], CONFIG, seed=0)


def test_unknown_and_impossible_settings_are_refused() -> None:
    with pytest.raises(ValidationError):
        SampleConfig.model_validate({"song_per_genre": 3})
    for settings in (
        {"eval_fraction": 1.0},
        {"eval_unseen_fraction": 1.0},
        {"near_duplicate_similarity": 0},
        {"min_quality": 2},
    ):
        with pytest.raises(ValidationError):
            SampleConfig.model_validate(settings)


def test_the_outcome_prints_as_tables() -> None:
    songs = [replace(song, language=LETTERS[n % 20] + "[x]") for n, song in enumerate(make_songs(90))]
    outcome = choose(songs)[0].outcome
    console = Console(record=True, width=130, file=io.StringIO())
    print_outcome(outcome, console)
    text = console.export_text()
    assert "Folk" in text
    assert "a[x] " in text
    assert "8 more " in text
    assert "left out: nothing" in text
    assert f"{outcome.num_eval_unseen} of {outcome.num_unseen_wanted} by artists that are not" in " ".join(
        text.split()
    )


def test_a_genre_that_no_song_has_is_refused_with_the_nearest_one() -> None:
    config = change(genres=("Folk", "rok"))
    with pytest.raises(ConfigError, match="'rok'; did you mean 'Rock'\\? Genres found: Folk, Pop, Rock"):
        sample_songs(make_songs(60), config, seed=0)
    known = change(genres=("Folk", "Rock"))
    assert sample_songs(make_songs(60), known, seed=0)[2].num_taken == 40
    with pytest.raises(ConfigError, match="Genres found: none"):
        sample_songs([replace(song, genre=None) for song in make_songs(60)], config, seed=0)


def test_evaluation_songs_must_leave_some_to_train_on() -> None:
    with pytest.raises(ConfigError, match="got 30 evaluation songs of 30 songs"):
        sample_songs(make_songs(30), change(eval_songs=30, train_songs_per_eval_artist=0), seed=0)
    with pytest.raises(ConfigError, match="got 30 evaluation songs of 30 songs"):
        choose(make_songs(30), change(eval_songs=20, eval_unseen_songs=10))
    config = change(eval_songs=29, train_songs_per_eval_artist=0)
    train, evaluation, _ = sample_songs(make_songs(30), config, seed=0)
    assert (len(train), len(evaluation)) == (1, 29)


def test_songs_whose_ids_repeat_are_named_whatever_their_order() -> None:
    songs = [replace(song, id=str(n % 30)) for n, song in enumerate(make_songs(90))]
    choice, parts = choose(songs, seed=1)
    again = [songs[index] for index in choice.same_id.tolist()]
    assert len(again) == 60
    rest = [song for part in parts for song in part if song not in again]
    assert sorted(ids(rest)) == sorted(str(n) for n in range(30))
    turned, turned_parts = choose(songs[::-1], seed=1)
    assert turned_parts == parts
    assert [songs[::-1][index] for index in turned.same_id.tolist()] == again
