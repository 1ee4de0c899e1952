"""The baselines learn what training teaches and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.evaluation.baselines import (
    LabelledLyrics,
    Prediction,
    chance_accuracy,
    majority_predictions,
    mean_f1,
    read_labelled_lyrics,
    read_training_lyrics,
    tfidf_predictions,
)
from harness.evaluation.labelled_lyrics import read_seen_lyrics
from harness.evaluation.questions import read_labels
from preprocess.build.encode import SongEncoder, pack_groups
from preprocess.build.labels import make_labels
from preprocess.build.pack import pack_lengths
from preprocess.prompt import find_format
from preprocess.schema import Song
from preprocess.shards import write_split
from preprocess.tasks.instruct import make_examples
from tests.toys import Family, make_songs, make_tokenizer, write_sealed, write_toy_manifest

TASKS = ("artist", "genre", "context", "themes")
OWN_WORDS = {"Ada": "river boat oar", "Dr. Dre": "wheel motor chrome", "Jo": "snow frost pine"}
THEME_WORDS = {"love": "kiss heart", "war": "drum gun", "home": "door hearth"}


def write_songs(num_songs: int, seed: int = 0) -> list[LabelledLyrics]:
    """Songs whose words tell artist and themes, among words that tell nothing."""
    rng = np.random.Generator(np.random.Philox(seed))
    songs = []
    for number in range(num_songs):
        artist = str(rng.choice(list(OWN_WORDS)))
        themes = tuple(sorted(rng.choice(list(THEME_WORDS), 1 + number % 2, replace=False).tolist()))
        telling = f"{OWN_WORDS[artist]} {' '.join(THEME_WORDS[theme] for theme in themes)}".split()
        words = [*rng.choice(telling, 12), *rng.choice(["la", "oh", "day", "night", "song"], 20)]
        lyrics = " ".join(map(str, rng.permutation(words).tolist()))
        songs.append(LabelledLyrics(f"s{seed}-{number}", lyrics, {"artist": artist}, themes))
    return songs


def accuracy(predictions: Sequence[Prediction], songs: Sequence[LabelledLyrics]) -> float:
    pairs = zip(predictions, songs, strict=True)
    return sum(found.answers == (song.labels["artist"],) for found, song in pairs) / len(songs)


def test_words_that_tell_the_artist_and_the_themes_are_learned() -> None:
    train, held_out = write_songs(120), write_songs(60, seed=1)
    found = tfidf_predictions(train, held_out)
    assert accuracy(found["artist"], held_out) > 0.95
    assert mean_f1([one.answers for one in found["themes"]], [song.themes or () for song in held_out]) > 0.9
    assert [one.song_id for one in found["artist"]] == [song.song_id for song in held_out]
    for one in found["artist"]:
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert max(one.probabilities, key=one.probabilities.__getitem__) == one.answers[0]


def test_shuffled_labels_teach_nothing() -> None:
    train, held_out = write_songs(120), write_songs(150, seed=1)
    order = np.random.Generator(np.random.Philox(3)).permutation(len(train)).tolist()
    shuffled = [replace(song, labels=train[i].labels) for song, i in zip(train, order, strict=True)]
    assert accuracy(tfidf_predictions(shuffled, held_out)["artist"], held_out) < 0.55


def test_the_labels_of_held_out_songs_do_not_matter() -> None:
    train, held_out = write_songs(60), write_songs(20, seed=1)
    lied = [replace(song, labels={"artist": "Jo"}, themes=("war",)) for song in held_out]
    assert tfidf_predictions(train, lied) == tfidf_predictions(train, held_out)


def test_the_order_of_the_training_songs_does_not_matter() -> None:
    train, held_out = write_songs(120), write_songs(5, seed=1)
    assert tfidf_predictions(train[::-1], held_out) == tfidf_predictions(train, held_out)


def test_a_song_that_is_not_asked_a_task_is_neither_learned_nor_predicted() -> None:
    train, held_out = write_songs(60), write_songs(4, seed=1)
    silent = replace(train[0], labels={"artist": "Never Asked"}, themes=None)
    asked = [replace(held_out[0], labels={}), replace(held_out[1], themes=None), *held_out[2:]]
    found = tfidf_predictions([*train, replace(silent, labels={})], asked)
    assert "Never Asked" not in found["artist"][0].probabilities
    assert [one.song_id for one in found["artist"]] == [song.song_id for song in asked[1:]]
    assert [one.song_id for one in found["themes"]] == [asked[i].song_id for i in (0, 2, 3)]


def test_a_single_name_is_predicted_for_sure() -> None:
    train = [LabelledLyrics(str(i), "la la", {"genre": "Pop"}, ("love",)) for i in range(3)]
    found = tfidf_predictions(train, train)
    assert found["genre"][0] == Prediction("0", ("Pop",), {"Pop": 1.0})
    assert found["themes"][0] == Prediction("0", ("love",), {"love": 1.0})


def test_the_majority_is_the_most_frequent_name_and_the_first_among_equals() -> None:
    songs = [LabelledLyrics(str(i), "la", {"artist": name}) for i, name in enumerate("bbac")]
    found = majority_predictions(songs, songs)["artist"]
    assert [one.answers for one in found] == [("b",)] * 4
    assert majority_predictions(songs[1:], songs[:1])["artist"][0].answers == ("a",)
    assert found[0].probabilities == {"a": 1 / 4, "b": 2 / 4, "c": 1 / 4}
    assert chance_accuracy(4) == 1 / 4


def test_the_majority_names_as_many_themes_as_are_best_on_training() -> None:
    both = [LabelledLyrics(str(i), "la", {}, ("love", "war")) for i in range(4)]
    one = LabelledLyrics("x", "la", {}, ("love",))
    assert majority_predictions([*both, one], [one])["themes"][0].answers == ("love", "war")
    assert majority_predictions([*both, *[one] * 9], [one])["themes"][0].answers == ("love",)


def write_data(
    folder: Path, songs: Sequence[Song], family: Family, *, share_prefix: bool, tasks: tuple[str, ...] = TASKS
) -> None:
    """A data set of the project's own answers; the last three songs are held out."""
    tokenizer = make_tokenizer(family)
    encoder = SongEncoder(tokenizer, find_format(tokenizer), tasks, 2048, share_prefix=share_prefix)
    parts, splits = {"train": songs[:-3], "eval": songs[-3:]}, {}
    for split, part in parts.items():
        groups = [group for song in part for group in encoder.encode(song, make_examples(song, tasks=tasks))]
        bins = pack_lengths([len(group.input_ids) for group in groups], 2048, 0)
        splits[split] = write_split(folder / split, list(pack_groups(groups, bins)), tasks, 4)
    facts = {"artist": "artist", "genre": "genre", "context": "decade"}
    counts = {task: Counter(getattr(song, fact) for song in parts["train"]) for task, fact in facts.items()}
    asked = [(song, frozenset(tasks)) for song in parts["eval"]]
    (folder / "labels.json").write_text(json.dumps(make_labels(counts, asked, tasks)))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text(tokenizer.to_json())
    write_toy_manifest(folder, splits, tokenizer, 2048)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_sealed(folder, {**manifest, "tasks": list(tasks)})


@pytest.mark.parametrize(("family", "share_prefix"), [("chatml", True), ("llama3", False), ("plain", True)])
def test_lyrics_and_labels_are_those_that_the_shards_teach(
    family: Family, tmp_path: Path, *, share_prefix: bool
) -> None:
    songs = [replace(song, themes=("love", "war")) for song in make_songs(9)]
    names = {1: "Dr. Dre", 2: "Dr", 8: "R.E.M."}
    songs = [replace(song, artist=names.get(i, song.artist)) for i, song in enumerate(songs)]
    write_data(tmp_path, songs, family, share_prefix=share_prefix)
    found = {song.song_id: song for song in read_training_lyrics(tmp_path)}
    found |= {song.song_id: song for song in read_labelled_lyrics(tmp_path, "eval")}
    assert found.keys() == {song.id for song in songs}
    for song in songs:
        assert found[song.id] == LabelledLyrics(
            song.id,
            song.lyrics,
            {"artist": song.artist or "", "genre": song.genre or "", "context": song.decade or ""},
            ("love", "war"),
        )
    assert dict(read_seen_lyrics(tmp_path)) == {song.id: song.lyrics for song in songs[:-3]}
    majority = majority_predictions([found[song.id] for song in songs[:-3]], [found[songs[-1].id]])
    for task, labels in read_labels(tmp_path, TASKS).items():
        assert majority[task][0].answers == (labels.majority,)


@pytest.mark.parametrize("tasks", [("generation",), ("themes", "generation")])
def test_lyrics_that_training_sees_are_found_without_names_to_rank(
    tmp_path: Path, tasks: tuple[str, ...]
) -> None:
    songs = make_songs(6)
    write_data(tmp_path, songs, "chatml", share_prefix=True, tasks=tasks)
    (tmp_path / "labels.json").unlink()
    assert dict(read_seen_lyrics(tmp_path)) == {song.id: song.lyrics for song in songs[:-3]}
