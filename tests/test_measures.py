from __future__ import annotations

import pickle
from collections import Counter

import pytest

from preprocess.corpus import generate_songs
from preprocess.measure.song import measure_song
from preprocess.measure.structure import find_words, measure_structure, sung_lines
from preprocess.measure.themes import find_moods, find_themes

SONGS = [song.lyrics for song in generate_songs(60, 4)]


@pytest.mark.parametrize("lyrics", SONGS[:20])
def test_a_song_measured_at_once_is_as_measured_in_parts(lyrics: str) -> None:
    measures = measure_song(lyrics)
    assert measures.structure == measure_structure(lyrics)
    assert list(measures.themes) == find_themes(lyrics)
    assert list(measures.moods) == find_moods(lyrics, 2)
    assert measures.words == Counter(word for line in sung_lines(lyrics) for word in find_words(line))
    assert measures.num_words == measures.words.total()
    assert measures.num_distinct_words == len(measures.words)
    assert measures.num_lines == len(list(sung_lines(lyrics)))


def test_every_word_named_stands_in_the_song() -> None:
    for lyrics in SONGS:
        text = " ".join(word for line in sung_lines(lyrics) for word in find_words(line))
        measures = measure_song(lyrics)
        named = [word for found in (*measures.themes, *measures.moods) for word in found.words]
        assert measures.rhyme
        named += [word for pair in measures.rhyme.pairs for word in pair]
        assert all(f" {word} " in f" {text} " for word in named)


def test_another_language_has_structure_alone() -> None:
    lyrics = "[Couplet 1]\nJe suis love love\n\n[Refrain]\nkiss kiss heart\n\n[Refrain]\nkiss kiss heart"
    measures = measure_song(lyrics, "fr")
    assert measures.rhyme is None
    assert (measures.themes, measures.moods, measures.person, measures.mood) == ((), (), None, None)
    assert (measures.rhyme_scheme, measures.theme_names, measures.structure.voice) == (None, (), None)
    assert measures.has_chorus
    assert not measures.is_english
    assert measures.structure.section_counts == (("verse", 1), ("refrain", 2))


def test_the_language_given_is_not_believed_where_the_words_are_not_english() -> None:
    german = "Die Nacht war lang und ich war allein\nDie Sterne sind so kalt"
    assert not measure_song(german, "en").is_english
    assert measure_song("and the with you and I", "und").is_english


def test_songs_without_words_can_be_measured() -> None:
    for lyrics in ("", "\n\n", "[Intro]", "...\n!!", "[Chorus]\n\n[Chorus]"):
        measures = measure_song(lyrics)
        assert (measures.num_words, measures.themes, measures.words) == (0, (), Counter())


def test_measures_travel_between_processes() -> None:
    measures = measure_song(SONGS[0])
    assert pickle.loads(pickle.dumps(measures)) == measures
