from __future__ import annotations

import pytest

from preprocess.measure.lexicons import load_lexicon
from preprocess.measure.themes import CLEAR_SCORE, STRONG_SCORE, ThemeEvidence, find_moods

MEANT = {
    "happy": "I'm so happy, I laugh with joy\nWe rejoice and we sing",
    "sad": "I weep in sorrow and I cry\nMy tears, my grief, goodbye",
    "angry": "I hate you and I'm raging\nFull of anger, I fight with you",
    "tender": "Hold me gently in your arms\nA tender kiss for you",
    "fearful": "I was afraid of the terror in the dark\nA nightmare that haunts me",
    "hopeful": "I hope that someday there will be better days\nI believe in the dawn",
}


@pytest.mark.parametrize("mood", MEANT)
def test_a_mood_is_found_with_words_that_stand_in_the_lyrics(mood: str) -> None:
    (found,) = find_moods(MEANT[mood])
    assert found.theme == mood
    assert len(found.words) > 1
    assert all(word in MEANT[mood].casefold() for word in found.words)


OTHERWISE = {
    "happy": "I was happy, but no joy is left and there's no fun\nand I am not happy now",
    "sad": "I'm not alone, the blue skies are the best\nand don't cry for me, no more tears to cry",
    "angry": "I'm mad about you, it's damn good to be with you\n"
    "Kill the lights, we're killing time, we hate nothing, we don't hate",
    "fearful": "I am not afraid, there is no fear, ain't afraid of the monsters you know",
    "tender": "You never kissed me, I can't be gentle\nno darling, don't you hold me",
    "hopeful": "There is no hope and the new road to New York is free",
}


@pytest.mark.parametrize("mood", OTHERWISE)
def test_words_meant_otherwise_do_not_show_a_mood(mood: str) -> None:
    assert mood not in [found.theme for found in find_moods(OTHERWISE[mood], 9)]


def test_one_word_is_no_mood_however_often_it_comes() -> None:
    assert find_moods("the sorrow, the sorrow, and the sorrow of the sorrow") == []


def test_a_mood_is_stronger_where_more_of_the_song_shows_it() -> None:
    rest = "\nand then they walked through all of the streets and out of the town" * 20
    dense, thin = find_moods(MEANT["sad"])[0], find_moods(MEANT["sad"] + rest)[0]
    assert dense.words == thin.words
    assert dense.score > thin.score
    assert (dense.intensity, thin.intensity) == ("strong", "clear")


def test_the_intensity_changes_at_its_bounds() -> None:
    scores = (0.0, CLEAR_SCORE - 0.01, CLEAR_SCORE, STRONG_SCORE - 0.01, STRONG_SCORE)
    expected = ["faint", "faint", "clear", "clear", "strong"]
    assert [ThemeEvidence("sad", score, ()).intensity for score in scores] == expected


def test_every_mood_can_be_found() -> None:
    assert load_lexicon("moods").about.keys() == MEANT.keys()
