"""What a data set knows of its training songs: written once, the same for any number of workers, read back, bounded."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from preprocess.build.config import BuildConfig
from preprocess.build.dataset import build_dataset
from preprocess.build.known import KnownSongs
from preprocess.check.verify import find_damage
from preprocess.corpus import generate_songs, write_corpus
from preprocess.errors import DataError
from preprocess.knowledge import (
    KNOWLEDGE_FILE,
    MIN_SONGS_WITH,
    Knowledge,
    normal_name,
    read_knowledge,
    write_knowledge,
)
from preprocess.manifest import read_manifest
from preprocess.measure.song import Measures, measure_song
from preprocess.schema import Song
from preprocess.shards import open_split
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.main_themes import main_themes
from preprocess.tasks.statistics import CorpusStatistics
from tests.toys import make_songs, make_tokenizer

SETTINGS = BuildConfig.model_validate({"encode": {"seq_len": 1024}, "tasks": ["artist", "genre", "similar"]})


def measured(songs: list[Song]) -> list[tuple[Song, Measures]]:
    return [(song, measure_song(song.lyrics, song.language)) for song in songs]


def know(songs: list[Song], max_songs: int = 1000) -> Knowledge:
    counts, known = CorpusCounts(), KnownSongs(max_songs)
    for song, measures in measured(songs):
        counts.add(song, measures)
        known.add(song, measures)
    return known.knowledge(CorpusStatistics(counts), counts)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    write_corpus(folder / "songs.csv", generate_songs(280, seed=1, length="short"), "genius", 280)
    (folder / "tokenizer.json").write_text(make_tokenizer().to_json(), encoding="utf-8")
    return folder


def build(place: Path, output: Path, num_workers: int) -> Path:
    tokenizer = str(place / "tokenizer.json")
    quiet = Console(quiet=True)
    build_dataset(
        [place / "songs.csv"], output, tokenizer, SETTINGS, quiet, overwrite=True, num_workers=num_workers
    )
    return output


@pytest.fixture(scope="module")
def built(place: Path) -> Path:
    return build(place, place / "one", 1)


def test_a_data_set_knows_the_facts_of_its_training_songs_and_of_no_other(built: Path) -> None:
    knowledge = read_knowledge(built)
    trained = {song for row in open_split(built, "train") for song in row.song_ids}
    held_out = {song for row in open_split(built, "eval") for song in row.song_ids}
    assert trained
    assert held_out
    assert trained == set(knowledge.songs)
    assert not held_out & set(knowledge.songs)
    labels = json.loads((built / "labels.json").read_text("utf-8"))
    genres = Counter(song.genre for song in knowledge.songs.values())
    assert labels["genre"]["train_counts"] == dict(genres)
    assert not knowledge.is_cut


def test_it_holds_no_line_of_any_song(built: Path, place: Path) -> None:
    content = (built / KNOWLEDGE_FILE).read_text("utf-8")
    lines = {line for song in generate_songs(280, seed=1, length="short") for line in song.lyrics.split("\n")}
    assert not [line for line in lines if len(line.split()) > 5 and line in content]


def test_its_bytes_are_the_same_for_any_number_of_workers_and_named_in_the_manifest(
    built: Path, place: Path
) -> None:
    again = build(place, place / "three", 3)
    assert (again / KNOWLEDGE_FILE).read_bytes() == (built / KNOWLEDGE_FILE).read_bytes()
    assert KNOWLEDGE_FILE in read_manifest(built).extra["files"]


def test_a_changed_fact_is_found_by_verification(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "data")
    path = tmp_path / "data" / KNOWLEDGE_FILE
    text = path.read_text("utf-8")
    path.write_text(text.replace('"year": 19', '"year": 18', 1), encoding="utf-8")
    report = find_damage(tmp_path / "data")
    assert [finding.place for finding in report.findings] == [KNOWLEDGE_FILE]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    songs = [replace(song, album="Tin Roof", language="en") for song in make_songs(40, num_lines=8)]
    knowledge = know(songs)
    write_knowledge(tmp_path / KNOWLEDGE_FILE, knowledge)
    read = read_knowledge(tmp_path)
    assert read.songs == knowledge.songs
    assert read.corpus == knowledge.corpus
    assert read.corpus.artists
    assert read.corpus.songs_with[""]


def test_themes_are_those_that_answers_name() -> None:
    songs = list(generate_songs(30, seed=4))
    knowledge = know(songs)
    for song, measures in measured(songs):
        named = {theme.theme for theme in main_themes(song, measures)}
        assert set(knowledge.songs[song.id].themes) == named


def test_words_are_counted_song_by_song() -> None:
    songs = list(generate_songs(240, seed=4))
    knowledge = know(songs)
    found = measured(songs)
    for genre in ("Rock", "Folk"):
        told = knowledge.corpus.songs_with[f"genre:{genre}"]
        assert any(not word.startswith(":") for word in told)
        for word in list(told)[:50]:
            if not word.startswith(":"):
                true = sum(song.genre == genre and word in measures.words for song, measures in found)
                assert told[word] == true >= MIN_SONGS_WITH


def test_past_the_bound_whole_artists_are_left_out_in_any_order() -> None:
    songs = list(generate_songs(200, seed=2, length="short"))
    pairs = measured(songs)
    whole = Counter(song.artist for song in songs)
    kept = []
    for seed in range(3):
        random.Random(seed).shuffle(pairs)
        parts = [KnownSongs(60) for _ in range(3)]
        for place, (song, measures) in enumerate(pairs):
            parts[place % 3].add(song, measures)
        total = KnownSongs(60)
        for part in parts:
            total.merge(part)
        knowledge = total.knowledge(CorpusStatistics(CorpusCounts()), CorpusCounts())
        assert knowledge.is_cut
        kept.append(frozenset(knowledge.songs))
    assert kept[0] == kept[1] == kept[2]
    assert 0 < len(kept[0]) <= 60
    for artist, count in Counter(song.artist for song in knowledge.songs.values()).items():
        assert count == whole[artist]


@pytest.mark.parametrize(
    "damage",
    ["", "{}\n", "[]\n", "nonsense", '{"num_songs": 0}\n'],
)
def test_a_damaged_file_is_a_data_error(tmp_path: Path, damage: str) -> None:
    (tmp_path / KNOWLEDGE_FILE).write_text(damage, encoding="utf-8")
    with pytest.raises(DataError, match=r"knowledge\.jsonl: damaged"):
        read_knowledge(tmp_path)


@pytest.mark.parametrize("fact", ['"artist": 3', '"year": "1990"', '"id": null', '"surplus": 1'])
def test_a_song_with_a_fact_of_another_kind_is_a_data_error(tmp_path: Path, fact: str) -> None:
    write_knowledge(tmp_path / KNOWLEDGE_FILE, know([]))
    path = tmp_path / KNOWLEDGE_FILE
    head = path.read_text("utf-8").replace('"num_songs": 0', '"num_songs": 1', 1)
    id_ = "" if '"id"' in fact else '"id": "a", '
    path.write_text(head + "{" + id_ + fact + "}\n", encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        read_knowledge(tmp_path)


def test_a_data_set_without_it_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Build the data set again"):
        read_knowledge(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Beatles", "beatles"),
        ("Simon & Garfunkel", "Simon and Garfunkel"),
        ("Beyonc\u00e9", "BEYONCE"),
        ("Jay-Z feat. Rihanna", "Jay Z"),
        ("Guns N' Roses", "Guns N\u2019 Roses"),
        ("\u96e8\u306e\u591c", "\u96e8\u306e\u591c"),
        ("\uff21\uff22\uff23", "abc"),
        ("Bj\u00f6rk (ft. Someone)", "bjork"),
    ],
)
def test_names_are_compared_whole_without_case_accents_and_punctuation(one: str, other: str) -> None:
    assert normal_name(one) == normal_name(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [("Heart", "Heartless"), ("The The", "The Who"), ("!!!", "???"), ("Ada", "Ada Vale"), ("Yes", "")],
)
def test_other_names_stay_apart(one: str, other: str) -> None:
    assert normal_name(one) != normal_name(other)


def test_songs_are_found_by_artist_and_title() -> None:
    songs = [replace(song, artist="The Marlow Sisters") for song in make_songs(2)]
    knowledge = know(songs)
    assert len(knowledge.by_artist("marlow sisters")) == 2
    assert [song.id for song in knowledge.by_title("SONG 1")] == ["song-0001"]
    assert knowledge.by_artist("Marlow") == ()
