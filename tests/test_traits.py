from __future__ import annotations

import pytest

from preprocess.clean.explicit import is_explicit, load_explicit_words
from preprocess.clean.lyrics import clean_lyrics
from preprocess.clean.song import CleanSettings, clean_song
from preprocess.clean.sung import is_heading, split_sung
from preprocess.clean.truncation import is_truncated
from preprocess.measure.structure import sung_lines
from preprocess.schema import Song, Traits

VERSE = "I walk along the river every day\nIt sings a song to wash my fear away\n"
OTHER = "The lantern in the window burns for me\nThe tide will bring my wooden boat to sea\n"
CHORUS = "Carry me, carry me home again\nThrough the wind and through the rain\n"
LYRICS = f"[Verse 1]\n{VERSE}{OTHER}\n[Chorus]\n{CHORUS}\n[Verse 2]\n{OTHER[::1]}{VERSE}\n[Chorus]\n{CHORUS}{CHORUS}"


def traits_of(lyrics: str, *, language: str | None = None, known: bool = True) -> Traits:
    facts = {"title": "Home", "artist": "A. Singer", "genre": "Folk", "year": 1999} if known else {}
    song = Song("1", lyrics, language=language, **facts)  # type: ignore[arg-type]
    return clean_song(song, CleanSettings(min_chars=0)).traits


def cut(raw: str) -> bool:
    return is_truncated(split_sung(clean_lyrics(raw)), raw)


@pytest.mark.parametrize(
    "lyrics",
    ["what the fuck is this", "MOTHERFUCKING shame", "sh*t happens, f**k it", "this b!tch", "puta madre",
     "quel connard", "du Arschloch", "porra, caralho", "kurwa mać", "вот сука", "Scheiße, Mann"],
)  # fmt: skip
def test_explicit_words_are_found_spelled_out_and_masked(lyrics: str) -> None:
    assert is_explicit(split_sung(lyrics))


@pytest.mark.parametrize(
    "lyrics",
    ["Scunthorpe and Essex", "the ass and the ox", "the cock crew thrice", "gratia plena, cum Spiritu",
     "hell and damnation", "jag fick ett slut", "merdeka, merdeka", "shiitake", "5 * 4 # 3 @ 2", "class assassin",
     "hora de volver", "hello!"],
)  # fmt: skip
def test_honest_words_are_not_explicit(lyrics: str) -> None:
    assert not is_explicit(split_sung(lyrics))


def test_headings_are_not_searched_for_explicit_words() -> None:
    assert not is_explicit(split_sung("[Verse 1: Fuck Buttons]\nla la"))


def test_the_lexicon_holds_lower_cased_whole_words() -> None:
    lexicon = load_explicit_words()
    entries = [*lexicon.words, *(stem for stems in lexicon.stems.values() for stem in stems)]
    assert len(entries) > 150
    assert all(entry.isalpha() and entry == entry.lower() for entry in entries)


@pytest.mark.parametrize(
    "raw",
    [
        LYRICS + "and then the [...]",
        LYRICS + "\n...",
        LYRICS + "(more)",
        LYRICS + "... read more",
        LYRICS + "and the light (the light",
        VERSE * 4 + "and so,",
        (LYRICS * 5)[:993] + "another",
    ],
)
def test_lyrics_that_were_cut_off_are_told(raw: str) -> None:
    assert cut(raw)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        LYRICS,
        LYRICS + "and on and on...",
        LYRICS + "and on (and on)",
        LYRICS + "on and on,\nthe whole night through",
        LYRICS + "Through the wind and through the rain,",
        (LYRICS * 5)[:994] + "another",
        ("la " * 400)[:999] + ".",
        VERSE * 10 + "[Outro]",
    ],
)
def test_ordinary_endings_are_no_cuts(raw: str) -> None:
    assert not cut(raw)


def test_a_chorus_that_ends_at_a_round_length_is_no_cut() -> None:
    raw = "x" * (1000 - len(LYRICS) - 1) + "\n" + LYRICS.strip()
    raw = "y" * (1000 - len(raw)) + raw
    assert len(raw) == 1000
    assert not cut(raw)


def test_an_ordinary_song_scores_high_and_a_chorus_costs_nothing() -> None:
    whole = traits_of(LYRICS)
    assert whole.quality > 0.9
    assert whole.suspicions == ()
    assert not whole.is_truncated
    # Half of the lines are a chorus that returns: as good as a song without repetition.
    assert traits_of(LYRICS + CHORUS * 4).quality == whole.quality


def test_each_fault_lowers_the_score() -> None:
    whole = traits_of(LYRICS).quality
    faults = {
        "facts": traits_of(LYRICS, known=False),
        "cut": traits_of(LYRICS + "\n..."),
        "damaged": traits_of(LYRICS + "The star\ufffds light"),
        "short": traits_of(VERSE),
        "repetition": traits_of(VERSE.split("\n")[0] + "\n" + "carry me over the water\n" * 30),
        "signs": traits_of("\n".join(f"{line} ++++ 1234 ////" for line in LYRICS.split("\n"))),
        "language": traits_of("na na oh yeah\nla la hey oh\n\nooh na na hey\noh oh la la\n" * 3),
    }
    for name, traits in faults.items():
        assert 0 <= traits.quality < whole - 0.05, name


@pytest.mark.parametrize(
    ("lyrics", "language", "suspicion"),
    [
        (LYRICS + "The star\ufffds light", None, "damaged characters"),
        (LYRICS + "The starâ€™s light, été", None, "damaged characters"),
        (LYRICS, "fr", "language given as fr, reads as en"),
        (LYRICS.replace("\n", " ").replace("[", "").replace("]", ""), None, "one line only"),
        (LYRICS.upper(), None, "all capitals"),
        (VERSE + "carry me over the water\n" * 12, None, "one line repeated"),
    ],
)
def test_what_a_person_should_look_at_is_named(lyrics: str, language: str | None, suspicion: str) -> None:
    assert traits_of(lyrics, language=language).suspicions == (suspicion,)


def test_a_script_without_case_is_not_all_capitals() -> None:
    assert (
        "all capitals" not in traits_of("我们在夜里看着月亮 H\n想起从前的爱情\n你说过永远不离开").suspicions
    )


@pytest.mark.parametrize(
    "lyrics",
    [LYRICS, "", "[Chorus]", "[not closed\nla", "[" + "x" * 70 + "]\nla", "la\n\n[Chorus]\n\nna [x]"],
)
def test_sung_lines_are_split_as_they_are_measured_elsewhere(lyrics: str) -> None:
    assert list(split_sung(lyrics).lines) == list(sung_lines(lyrics))


def test_stanzas_are_counted_between_headings_and_empty_lines() -> None:
    assert split_sung(LYRICS).num_stanzas == 4
    assert split_sung("la\nla\n\nna").num_stanzas == 2
    assert split_sung("[Verse 1]\n[Chorus]").num_stanzas == 0
    assert is_heading("[VERSE]")
    assert not is_heading("la [VERSE]")
