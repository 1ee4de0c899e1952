from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from preprocess.choose.columns import NUM_PERMUTATIONS
from preprocess.choose.duplicates import estimate_similarity, find_near_duplicates, sign_lyrics
from preprocess.choose.shingles import hash_shingles, mix, sung_words
from preprocess.corpus import generate_songs
from preprocess.schema import Int32Array

HYMNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "hymns.jsonl"
CORPUS = [song.lyrics for song in generate_songs(300, seed=11)]


def in_order(num: int) -> Int32Array:
    return np.arange(num, dtype=np.int32)


def change_words(lyrics: str, num: int, seed: int) -> str:
    chance = random.Random(seed)
    words = lyrics.split(" ")
    for place in chance.sample(range(len(words)), num):
        words[place] = "zyx"
    return " ".join(words)


def jaccard(first: str, second: str) -> float:
    sets = hash_shingles([sung_words(first), sung_words(second)]).distinct()
    own, other = set(sets.of(0).tolist()), set(sets.of(1).tolist())
    return len(own & other) / len(own | other)


def test_shingles_are_the_runs_of_three_words_each_once() -> None:
    words = [sung_words(lyrics) for lyrics in CORPUS]
    sets = hash_shingles(words).distinct()
    expected = [len({tuple(song[n : n + 3]) for n in range(len(song) - 2)}) for song in words]
    assert np.diff(sets.starts).tolist() == expected
    one_by_one = [hash_shingles([song]).distinct().hashes for song in words]
    assert np.array_equal(np.concatenate(one_by_one), sets.hashes)


def test_what_is_no_word_run_has_shingles_too() -> None:
    cases = [
        "hey",
        "hey you",
        "hey you there",
        "hey you there now",
        "月落烏",
        "月落烏啼",
        "月落烏啼霜",
        "oh 月落烏",
        "",
    ]
    sets = hash_shingles([sung_words(lyrics) for lyrics in cases])
    assert np.diff(sets.starts).tolist() == [1, 1, 1, 2, 1, 1, 2, 1, 1]
    # "hey you there" and the first four characters are in two songs each; no other shingles are the same.
    assert len(np.unique(sets.hashes)) == len(sets.hashes) - 2
    # The order of words counts, the line they stand in, case and signs do not.
    same = hash_shingles([sung_words(text) for text in ("One, two\nTHREE!", "[Verse]\none two three")])
    assert same.hashes[0] == same.hashes[1]
    turned = hash_shingles([["two", "one", "three"], ["one", "three", "two"], ["three", "two", "one"]])
    assert len({*turned.hashes.tolist(), int(same.hashes[0])}) == 4
    assert sung_words("1 2, 3") == ["1", "2,", "3"]
    assert len(hash_shingles([]).hashes) == 0
    assert len(hash_shingles([["\ud800 lone"]]).hashes) == 1


def test_mixing_is_one_to_one_and_known() -> None:
    # First output of SplitMix64 with seed 0 (Vigna's splitmix64.c).
    assert int(mix(np.zeros(1, np.uint64))[0]) == 0xE220A8397B1DCDAF
    assert len(np.unique(mix(np.arange(100_000, dtype=np.uint64)))) == 100_000


def test_a_signature_depends_on_the_lyrics_alone() -> None:
    signatures = sign_lyrics(CORPUS)
    assert signatures.shape == (300, NUM_PERMUTATIONS)
    assert signatures.dtype == np.uint8
    assert np.array_equal(sign_lyrics(CORPUS[::-1])[::-1], signatures)
    assert np.array_equal(sign_lyrics(CORPUS, [sung_words(lyrics) for lyrics in CORPUS]), signatures)
    assert np.array_equal(sign_lyrics(["[Intro]\n" + CORPUS[0].upper()])[0], signatures[0])
    assert sign_lyrics([]).shape == (0, NUM_PERMUTATIONS)


def test_estimates_are_near_the_true_similarity() -> None:
    errors = []
    for n, lyrics in enumerate(CORPUS[:150]):
        changed = change_words(lyrics, num=1 + n % 12, seed=n)
        estimate = estimate_similarity(*sign_lyrics([lyrics, changed]))
        errors.append(estimate - jaccard(lyrics, changed))
    assert abs(float(np.mean(errors))) < 0.015
    assert float(np.std(errors)) < 0.07
    unlike = [
        estimate_similarity(*sign_lyrics([first, "\n".join(reversed(first.split(" ")))]))
        for first in CORPUS[:50]
    ]
    assert max(unlike) < 0.2


def test_near_copies_are_dropped_and_the_best_one_stays() -> None:
    near = [change_words(lyrics, 2, n) for n, lyrics in enumerate(CORPUS)]
    similar = np.array([jaccard(*pair) >= 0.7 for pair in zip(CORPUS, near, strict=True)])
    signatures = sign_lyrics(CORPUS + near)
    alone = find_near_duplicates(signatures, in_order(300))
    assert alone.mean() < 0.02
    dropped = find_near_duplicates(signatures, in_order(600))
    assert np.array_equal(dropped[:300], alone)
    assert dropped[300:][similar].mean() > 0.98
    assert similar.sum() > 200
    # Turned round, the near copies are the better ones.
    turned = find_near_duplicates(signatures, in_order(600)[::-1].copy())[::-1]
    assert turned[:300][similar].mean() > 0.98


def test_survivors_are_unlike_one_another() -> None:
    chance = np.random.default_rng(0)
    families = chance.integers(0, 256, (60, NUM_PERMUTATIONS), dtype=np.uint8)
    signatures = np.repeat(families, 30, axis=0)
    noise = chance.random(signatures.shape) < 0.1
    signatures[noise] = chance.integers(0, 256, int(noise.sum()), dtype=np.uint8)
    order = chance.permutation(len(signatures)).astype(np.int32)
    dropped = find_near_duplicates(signatures, order)
    kept = order[~dropped]
    assert sorted(kept // 30) == list(range(60))
    # The best of each family is the one that stays.
    assert kept.tolist() == [
        order[np.flatnonzero(order // 30 == family)[0]] for family in order[~dropped] // 30
    ]


def test_the_threshold_decides() -> None:
    signatures = np.zeros((2, NUM_PERMUTATIONS), np.uint8)
    signatures[1, 24:] = np.arange(40) + 1
    assert find_near_duplicates(signatures, in_order(2), threshold=0.37).tolist() == [False, True]
    assert find_near_duplicates(signatures, in_order(2), threshold=0.38).tolist() == [False, False]
    assert not find_near_duplicates(signatures[:1], in_order(1)).any()
    assert len(find_near_duplicates(signatures, in_order(0))) == 0


def test_a_bucket_of_thousands_is_searched_in_linear_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(1)
    signatures = chance.integers(0, 256, (20_000, NUM_PERMUTATIONS), dtype=np.uint8)
    signatures[:, :4] = 7
    signatures[15_000:] = signatures[14_999]
    rounds = []
    from preprocess.choose import duplicates

    original = duplicates._drop_like_best

    def count(*arguments: object) -> object:
        rounds.append(len(arguments[2]))  # type: ignore[arg-type]
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(duplicates, "_drop_like_best", count)
    dropped = find_near_duplicates(signatures, in_order(20_000))
    assert np.flatnonzero(dropped).tolist() == list(range(15_000, 20_000))
    assert max(rounds) == 20_000
    assert sum(rounds) < 34 * 20_000


@pytest.mark.skipif(not HYMNS.is_file(), reason="the hymns are not here")
def test_real_songs_are_unlike_and_their_reprints_are_found() -> None:
    lyrics = [json.loads(line)["lyrics"] for line in HYMNS.read_text(encoding="utf-8").splitlines()]
    dropped = find_near_duplicates(sign_lyrics(lyrics), in_order(len(lyrics)))
    sets = hash_shingles([sung_words(text) for text in lyrics]).distinct()
    owned = [set(sets.of(n).tolist()) for n in range(len(lyrics))]
    truth = [
        any(len(own & other) / len(own | other) >= 0.5 for other in owned[:n]) for n, own in enumerate(owned)
    ]
    assert dropped.tolist() == truth
    assert 3 <= sum(truth) <= 10
