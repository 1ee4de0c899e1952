from __future__ import annotations

import pytest

from preprocess.clean.leaks import REDACTED, names, redact_artist, sings_artist
from preprocess.schema import Song


@pytest.mark.parametrize(
    ("artist", "lyrics"),
    [
        ("Prince", "my name is PRINCE, and"),
        ("The Beatles", "yeah, beatles forever"),
        ("50 Cent", "it's 50-Cent again"),
        ("P!nk", "P!nk is here"),
        ("Lil Wayne & Drake", "lil wayne on the track"),
        ("Café Tacvba", "somos CAFÉ TACVBA"),
        ("Beyoncé", "beyonce in the house"),
        ("Beyonce", "it's BEYONCE\u0301, yes"),
        ("Jay-Z & Kanye West", "they call me Jay Z"),
        ("椎名林檎", "今夜は椎名林檎です"),
    ],
)
def test_an_artist_named_in_the_lyrics_is_found_and_taken_out(artist: str, lyrics: str) -> None:
    song = Song("1", lyrics, artist=artist)
    assert sings_artist(song)
    redacted = redact_artist(song)
    assert REDACTED in redacted
    assert not sings_artist(Song("1", redacted, artist=artist))


@pytest.mark.parametrize(
    ("artist", "lyrics"),
    [
        ("Prince", "the princess and princes"),
        ("The Who", "who are you"),
        ("Earth, Wind & Fire", "the fire and the wind"),
        ("X", "x marks the spot"),
        ("Jay-Z & Heart", "jay had a heart, été"),
        (None, "unknown"),
    ],
)
def test_parts_of_words_and_of_names_do_not_count(artist: str | None, lyrics: str) -> None:
    song = Song("1", lyrics, artist=artist)
    assert not sings_artist(song)
    assert redact_artist(song) == lyrics


def test_taking_a_name_out_leaves_the_other_letters_as_they_are() -> None:
    song = Song("1", "Été: BEYONCE\u0301, straße ﬁn Beyoncé!", artist="Beyoncé")
    assert redact_artist(song) == f"Été: {REDACTED}, straße ﬁn {REDACTED}!"


def test_names_are_compared_by_whole_words() -> None:
    assert names("Which hip-hop song?", "Hip-Hop")
    assert not names("Which rocket?", "Rock")
    assert not names("anything", "")
