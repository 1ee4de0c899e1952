# ruff: noqa: RUF001 - lyrics of several scripts
from __future__ import annotations

import unicodedata

import pytest

from preprocess.clean.lyrics import clean_lyrics, clean_song, lyrics_hash
from preprocess.schema import Song

BODY = "I walk along the river every day\nIt sings a song to wash my fear away\n\n" * 3


def cleaned(text: str) -> str:
    return clean_lyrics(text, min_chars=0).lyrics


def test_lines_stanzas_and_every_script_stay() -> None:
    text = "Ça va, l'été\n東京の夜\n\nпривет мир\nمرحبا بالعالم\n\nहिन्दी गाना\nשלום"
    assert cleaned(text) == unicodedata.normalize("NFC", text)
    assert clean_lyrics(BODY).reason is None
    assert cleaned(BODY) == BODY.strip()


def test_line_ends_spaces_and_invisible_characters_are_made_uniform() -> None:
    text = "\ufeffone\u200b two\u00a0 three \r\nfour\x00\tfive\r\n\r\n\r\n\r\n\u2028six\u00ad"
    assert cleaned(text) == "one two three\nfour five\n\nsix"
    assert cleaned("cafe\u0301") == "café"
    assert cleaned("rock &amp; roll &#39;n&#39; <br/>soul & more") == "rock & roll 'n'\nsoul & more"


def test_joiners_stay_where_a_script_spells_with_them() -> None:
    assert cleaned("می\u200cخواهم") == "می\u200cخواهم"
    assert cleaned("क्\u200dष") == "क्\u200dष"
    assert cleaned("lo\u200dve\u200c") == "love"


def test_escaped_line_breaks_become_line_breaks_only_when_there_are_no_others() -> None:
    assert cleaned(r"one\ntwo\nthree") == "one\ntwo\nthree"
    assert cleaned("a\\nb\\nc\nd") == "a\\nb\\nc\nd"


@pytest.mark.parametrize(
    ("line", "heading"),
    [
        ("[Verse 1: Prince]", "[Verse 1]"),
        ("[Intro: X & Y]", "[Intro]"),
        ("[Pre-Chorus – Some One]", "[Pre-Chorus]"),
        ("[prechorus]", "[Pre-Chorus]"),
        ("[Verse Two]", "[Verse 2]"),
        ("[Verse II: Prince]", "[Verse 2]"),
        ("[Guitar Solo: Slash]", "[Guitar Solo]"),
        ("[Chorus x2]", "[Chorus]"),
        ("[Couplet 1 : Stromae]", "[Couplet 1]"),
        ("[Припев: Земфира]", "[Припев]"),
        ("VERSE 1", "[Verse 1]"),
        ("Chorus:", "[Chorus]"),
        ("(Bridge)", "[Bridge]"),
        ("CHORUS", "[Chorus]"),
        ("Chorus (x2)", "[Chorus]"),
    ],
)
def test_headings_keep_their_word_and_number_and_lose_the_names(line: str, heading: str) -> None:
    assert cleaned(f"la la\n{line}\nna na") == f"la la\n{heading}\nna na"


def test_brackets_of_another_kind_go_and_what_follows_them_stays() -> None:
    assert cleaned("[Prince]\nla\n[?]\n[Prince:] I sing\nla") == "la\nI sing\nla"
    assert cleaned("[Verse 1: A] I sing\nla[Chorus: B]\nna") == "[Verse 1]\nI sing\nla\n[Chorus]\nna"
    assert cleaned("[Verse 1: A\n& B]\nla") == "[Verse 1]\nla"
    assert cleaned("[Verse 1]\nla\n\n[Chorus]\nna") == "[Verse 1]\nla\n\n[Chorus]\nna"
    assert cleaned("Verse 2: he spoke\nla [x2]") == "[Verse 2]\nhe spoke\nla [x2]"


@pytest.mark.parametrize(
    "line", ["break", "Drop", "bridge", "a bridge too far", "Chorus of angels", "verse", "part two", "Solo"]
)
def test_section_words_that_are_sung_are_no_headings(line: str) -> None:
    assert cleaned(f"la la\n{line}\nna na") == f"la la\n{line}\nna na"


def test_a_bare_section_word_at_the_head_of_a_stanza_is_a_heading() -> None:
    assert cleaned("la\n\nChorus\nna") == "la\n\n[Chorus]\nna"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FreeBird Lyrics[Verse 1]\nla", "[Verse 1]\nla"),
        ("FreeBird Lyrics\nla", "la"),
        ("27 ContributorsFreeBird Lyrics\nla", "la"),
        ("1 ContributorTranslationsEspañolFreeBird Lyrics[Verse 1]\nla", "[Verse 1]\nla"),
        ("27 Contributors\nla", "la"),
        ("la la12EmbedShare URLCopyEmbedCopy", "la la"),
        ("la la12EmbedShare URLCopyEmbed", "la la"),
        ("la la\n1.2KEmbed", "la la"),
        ("la laEmbed", "la la"),
        ("la\nSee Queen LiveGet tickets as low as $17You might also like[Chorus]\nna", "la\n[Chorus]\nna"),
        ("la See Queen Live Get tickets as low as $17 You might also like na", "la\nna"),
        ("my heartYou might also likeI want", "my heart\nI want"),
        ("la\nYou might also like[Chorus]\nna", "la\n[Chorus]\nna"),
        ("la\nYou might also like\nna3Embed", "la\nna"),
    ],
)
def test_residue_of_the_genius_page_is_removed(text: str, expected: str) -> None:
    assert cleaned(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "I embed my soul\nyou might also like the way I dance\nembed",
        "You might also like\nthe way I move",
        "la\nI forgot the lyrics\nna",
        "these are my lyrics\nna na",
        "See the stars tonight\nlive it up",
        "27 reasons\nto go",
        "we were born in 1999",
    ],
)
def test_the_same_words_sung_survive(text: str) -> None:
    assert cleaned(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t\n", "empty"),
        ("[Verse 1]\n\n[Chorus]", "empty"),
        ("[Instrumental]", "placeholder"),
        ("Instrumental", "placeholder"),
        ("(This is an instrumental)", "placeholder"),
        (
            "Lyrics for this song have yet to be released. Please check back once the song is out.",
            "placeholder",
        ),
        ("la la la", "too short"),
        ("la " * 2000, "too long"),
        (BODY, None),
        ("an instrumental plays while I walk along\n" + BODY, None),
    ],
)
def test_drops_have_a_reason(text: str, reason: str | None) -> None:
    assert clean_lyrics(text).reason == reason


def test_the_limits_are_inclusive_parameters() -> None:
    assert clean_lyrics("x" * 10, min_chars=10, max_chars=10).reason is None
    assert clean_lyrics("x" * 10, min_chars=11).reason == "too short"
    assert clean_lyrics("x" * 10, min_chars=0, max_chars=9).reason == "too long"


def test_cleaning_twice_changes_nothing_more() -> None:
    text = "27 ContributorsA Lyrics[Verse 1: A]\nla [x2]\n\n\n\nCHORUS\nna &amp; na\n[B] da\u200b12Embed"
    assert cleaned(cleaned(text)) == cleaned(text)


def test_a_song_that_names_its_artist_is_kept_redacted_or_dropped() -> None:
    song = Song("1", BODY + "so says Mara Vale", artist="Mara Vale", year=1990)
    kept, reason = clean_song(song)
    assert reason is None
    assert "Mara Vale" in kept.lyrics
    redacted, reason = clean_song(song, named_artist="redact")
    assert reason is None
    assert redacted.lyrics.endswith("so says …")
    assert redacted.year == 1990
    assert clean_song(song, named_artist="drop")[1] == "artist named in lyrics"
    other = Song("1", BODY, artist="Mara Vale")
    assert clean_song(other, named_artist="drop")[1] is None


def test_the_hash_is_blind_to_headings_case_marks_and_breaks_only() -> None:
    same = lyrics_hash("[Verse 1]\nHello, world!\nBye")
    assert same == lyrics_hash("hello world\n\nbye")
    assert same != lyrics_hash("hello word bye")
    assert lyrics_hash("1 2 3") != lyrics_hash("4 5 6")
