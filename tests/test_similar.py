from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from dataclasses import replace

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from preprocess.corpus import generate_songs
from preprocess.measure.song import measure_song
from preprocess.schema import Song
from preprocess.tasks.main_themes import main_themes
from preprocess.tasks.neighbours import (
    MAX_SCORE,
    MAX_TERMS,
    MIN_SCORE,
    PoolSong,
    SimilarIndex,
    SimilarPool,
    is_telling,
    pool_song,
)

SONGS = list(generate_songs(250, 9))
WORDS = {song.id: measure_song(song.lyrics).words for song in SONGS}


def pooled(song: Song) -> PoolSong:
    measures = measure_song(song.lyrics)
    return pool_song(song, [theme.theme for theme in main_themes(song, measures)], measures.words)


INDEX = SimilarIndex(map(pooled, SONGS))
NEAREST = INDEX.nearest_batch(SONGS, [WORDS[song.id] for song in SONGS], 3)


def test_most_songs_have_near_ones_that_others_sing_and_no_copies() -> None:
    assert sum(map(bool, NEAREST)) > 100
    for song, near in zip(SONGS, NEAREST, strict=True):
        artists = [found.song.artist for found in near]
        assert song.artist not in artists
        assert len(set(artists)) == len(artists)
        assert all(found.song.id != song.id for found in near)
        assert all(found.song.title.casefold() != (song.title or "").casefold() for found in near)
        assert all(found.score <= MAX_SCORE for found in near)
        assert [found.score for found in near] == sorted((found.score for found in near), reverse=True)


def test_every_shared_word_stands_in_both_songs() -> None:
    pool = {song.id: song for song in SONGS}
    for song, near in zip(SONGS, NEAREST, strict=True):
        for found in near:
            assert len(found.words) >= 2
            assert all(
                word in WORDS[song.id] and word in WORDS[pool[found.song.id].id] for word in found.words
            )
            assert all(is_telling(word) for word in found.words)


def test_scores_are_those_of_scikit_learn_on_the_heaviest_words() -> None:
    vectorizer = TfidfVectorizer(
        analyzer=lambda song: [w for w in WORDS[song.id].elements() if w in INDEX.terms],
        sublinear_tf=True,
        norm=None,
    )
    matrix = vectorizer.fit_transform(SONGS).toarray()
    names = vectorizer.get_feature_names_out()
    vectors = {}
    for song, row in zip(SONGS, matrix, strict=True):
        best = sorted(zip(row, names, strict=True), key=lambda pair: (-round(pair[0], 6), pair[1]))[
            :MAX_TERMS
        ]
        length = math.sqrt(sum(weight**2 for weight, _ in best))
        vectors[song.id] = {name: weight / length for weight, name in best if weight}
    checked = 0
    for song, near in zip(SONGS, NEAREST, strict=True):
        for found in near:
            one, other = vectors[song.id], vectors[found.song.id]
            assert found.score == pytest.approx(sum(one[w] * other.get(w, 0) for w in one), abs=2e-6)
            assert set(found.words) == one.keys() & other.keys()
            checked += 1
    assert checked > 100


def test_the_nearest_are_the_best_of_all_that_are_allowed() -> None:
    vectors = {song.id: row for song, row in zip(INDEX.songs, INDEX.vectors.toarray(), strict=True)}
    for song, near in zip(SONGS, NEAREST, strict=True):
        others = [other for other in SONGS if other.artist != song.artist and other.title != song.title]
        scores = [round(float(vectors[song.id] @ vectors[other.id]), 6) for other in others]
        best = max((score for score in scores if score <= MAX_SCORE), default=0)
        assert best < MIN_SCORE if not near else near[0].score == pytest.approx(best, abs=2e-6)


def test_the_outcome_depends_on_neither_batch_nor_order() -> None:
    dice = random.Random(3)
    order = dice.sample(range(len(SONGS)), len(SONGS))
    shuffled = SimilarIndex(pooled(SONGS[n]) for n in order)
    for start in range(0, len(order), 7):
        part = [SONGS[n] for n in order[start : start + 7]]
        found = shuffled.nearest_batch(part, [WORDS[song.id] for song in part], 3)
        assert found == [NEAREST[n] for n in order[start : start + 7]]
    song = SONGS[0]
    assert pickle.loads(pickle.dumps(INDEX)).nearest(song, WORDS[song.id], 3) == NEAREST[0]


def test_a_copy_under_another_name_is_not_similar() -> None:
    copy = replace(SONGS[0], id="copy", title="Another", artist="Somebody Else")
    index = SimilarIndex(map(pooled, [*SONGS, copy]))
    assert all(found.song.id != "copy" for found in index.nearest(SONGS[0], WORDS[SONGS[0].id], 9))
    part = "\n".join(SONGS[0].lyrics.split("\n")[:9]) + "\nand a zebra and a walrus and a penguin walk on"
    other = replace(copy, lyrics=part)
    index = SimilarIndex(map(pooled, [*SONGS, other]))
    assert any(found.song.id == "copy" for found in index.nearest(SONGS[0], WORDS[SONGS[0].id], 9))


def test_the_pool_keeps_the_same_songs_in_any_order() -> None:
    whole = SimilarPool(40)
    for song in SONGS:
        whole.add(pooled(song))
    merged = SimilarPool(40)
    for start in (200, 0, 100):
        piece = SimilarPool(40)
        for song in reversed(SONGS[start : start + 100]):
            piece.add(pooled(song))
        merged.merge(pickle.loads(pickle.dumps(piece)))
    assert merged.songs() == whole.songs()
    assert len(whole.songs()) == 40
    least = sorted(pooled(song).priority for song in SONGS)[:40]
    assert [song.priority for song in whole.songs()] == least


def test_a_pool_of_nothing_and_songs_without_a_name_give_nothing() -> None:
    pool = SimilarPool(0)
    pool.add(pooled(SONGS[0]))
    assert pool.songs() == []
    unnamed = SimilarPool(9)
    unnamed.add(pooled(replace(SONGS[0], title=None, artist=None)))
    assert unnamed.songs() == []
    assert SimilarIndex([]).nearest_batch(SONGS[:2], [Counter(), Counter()]) == [(), ()]


def test_songs_of_other_scripts_are_compared_too() -> None:
    lyrics = "うさぎ おいし かの山\n小鮒 釣りし かの川\n夢は 今も めぐりて"
    further = "忘れがたき 故郷 如何に います 父母 恙なしや 友がき 雨に 風に つけても"
    one, other, third = (
        Song(name, text, artist=name)
        for name, text in (("a", lyrics), ("b", f"{lyrics}\n{further}"), ("c", further))
    )
    index = SimilarIndex(map(pooled, [one, other, third, *SONGS[:50]]))
    (found,) = index.nearest(one, measure_song(one.lyrics).words)
    assert found.song.id == "b"
    assert "うさぎ" in found.words
