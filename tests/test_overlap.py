"""The longest verbatim overlap, against a search that compares every place with every place."""

from __future__ import annotations

import numpy as np
import pytest

from harness.evaluation.overlap import Overlap, TrainingLyrics, sort_suffixes, split_words
from harness.evaluation.scoring.words import normalise


def search_every_place(text: str, songs: list[tuple[str, str]]) -> tuple[int, str | None]:
    """The length of the longest common run, and the first song that has the first such run of the text."""
    own = [word.text for word in split_words(normalise(text))]
    sung = [(song_id, [word.text for word in split_words(normalise(lyrics))]) for song_id, lyrics in songs]
    for length in range(len(own), 0, -1):
        for start in range(len(own) - length + 1):
            run = own[start : start + length]
            for song_id, words in sung:
                if any(words[at : at + length] == run for at in range(len(words) - length + 1)):
                    return length, song_id
    return 0, None


@pytest.mark.parametrize("seed", range(40))
def test_the_overlap_is_that_of_a_search_of_every_place(seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    vocabulary = ["la", "oh", "moon", "river", "don't", "été", "雨の夜", "road"][: int(rng.integers(1, 9))]

    def write(num_words: int) -> str:
        return " ".join(rng.choice(vocabulary, num_words).tolist())

    songs = [(f"s{i}", write(int(rng.integers(0, 40)))) for i in range(int(rng.integers(1, 12)))]
    text = f"{write(int(rng.integers(0, 12)))} unheard {write(int(rng.integers(0, 30)))}"
    found = TrainingLyrics(songs).longest(text)
    assert (found.num_words, found.song_id) == search_every_place(text, songs)
    assert len(split_words(found.text)) == found.num_words


@pytest.mark.parametrize("seed", range(10))
def test_suffixes_are_sorted_to_the_depth_that_is_asked_for(seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    words = rng.integers(0, 3, 200)
    depth = int(rng.integers(1, 70))
    sorted_places = sort_suffixes(words, depth).tolist()
    prefixes = [words[place : place + depth].tolist() for place in sorted_places]
    assert prefixes == sorted(prefixes)
    assert sorted(sorted_places) == list(range(200))


def test_case_accents_punctuation_and_headings_do_not_part_a_run() -> None:
    lyrics = "[Verse 1]\nThe river, it ran\n\n[Chorus]\nby the OLD mill; don\u2019t go"
    found = TrainingLyrics([("one", lyrics)]).longest(
        "He said: “The r\u00edver it ran\n[Bridge]\nby the old mill. Don't stay”"
    )
    assert found == Overlap(9, "The r\u00edver it ran\nby the old mill. Don't", "one")


def test_a_run_does_not_go_from_one_song_into_the_next() -> None:
    lyrics = TrainingLyrics([("one", "we sail away"), ("two", "tonight we drown")])
    assert lyrics.longest("we sail away tonight we drown") == Overlap(3, "we sail away", "one")


def test_a_script_without_spaces_is_compared_by_characters() -> None:
    lyrics = TrainingLyrics([("one", "月落烏啼霜滿天")])
    assert lyrics.longest("他說烏啼霜滿了") == Overlap(4, "烏啼霜滿", "one")


def test_vowel_signs_are_parts_of_their_words() -> None:
    assert [word.text for word in split_words("मेरा दिल ये पुकारे आजा।")] == ["मेरा", "दिल", "ये", "पुकारे", "आजा"]
    assert TrainingLyrics([("one", "मेरा दिल")]).longest("मोरे दुल").num_words == 0
    assert TrainingLyrics([("one", "รักเธอ")]).longest("ที่รัก") == Overlap(2, "รัก", "one")


@pytest.mark.parametrize("text", ["", "...", "unheard words"])
def test_a_text_that_shares_no_word_has_no_overlap(text: str) -> None:
    assert TrainingLyrics([("one", "la la la"), ("two", "")]).longest(text) == Overlap(0, "", None)
    assert TrainingLyrics([]).longest(text) == Overlap(0, "", None)


def test_copied_lyrics_overlap_whole() -> None:
    lyrics = "\n".join(f"line {number} is sung here" for number in range(50))
    found = TrainingLyrics([("other", "la " * 400), ("one", lyrics)]).longest(f"Sure! {lyrics} The end.")
    assert (found.text, found.song_id) == (lyrics, "one")
