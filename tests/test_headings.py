# ruff: noqa: RUF001 - headings in many languages
from __future__ import annotations

import re

import pytest

from preprocess.clean.headings import Headings
from preprocess.clean.lyrics import clean_lyrics
from preprocess.clean.section_words import BRACKETED_WORDS, PLAIN_WORDS, TAGS, squeeze_word
from preprocess.measure.structure import measure_structure, split_sections

HEADINGS = [
    ("[Verse 1: Prince]", "[Verse 1]", "[VERSE]"),
    ("[Verse1]", "[Verse 1]", "[VERSE]"),
    ("[Intro: X & Y]", "[Intro]", "[INTRO]"),
    ("[Pre-Chorus – Some One]", "[Pre-Chorus]", "[PRE-CHORUS]"),
    ("[prechorus]", "[Pre-Chorus]", "[PRE-CHORUS]"),
    ("[Verse Two]", "[Verse 2]", "[VERSE]"),
    ("[Verse II: Prince]", "[Verse 2]", "[VERSE]"),
    ("[Guitar Solo: Slash]", "[Guitar Solo]", "[SOLO]"),
    ("[Chorus x2]", "[Chorus]", "[CHORUS]"),
    ("[Chorus] (x2)", "[Chorus]", "[CHORUS]"),
    ("[Final Chorus]", "[Chorus]", "[CHORUS]"),
    ("[2nd Verse: Prince]", "[Verse 2]", "[VERSE]"),
    ("[Prince - Verse 2]", "[Verse 2]", "[VERSE]"),
    ("[Prince (Hook)]", "[Hook]", "[HOOK]"),
    ("[Couplet 1 : Stromae]", "[Couplet 1]", "[VERSE]"),
    ("[Refrain]", "[Refrain]", "[CHORUS]"),
    ("[Estribillo: Rosa]", "[Estribillo]", "[CHORUS]"),
    ("[Pré-Refrão]", "[Pré-Refrão]", "[PRE-CHORUS]"),
    ("[Strophe 2]", "[Strophe 2]", "[VERSE]"),
    ("[Zwrotka 1: Kasia]", "[Zwrotka 1]", "[VERSE]"),
    ("[Припев: Земфира]", "[Припев]", "[CHORUS]"),
    ("[Куплет 2]", "[Куплет 2]", "[VERSE]"),
    ("[Nakarat]", "[Nakarat]", "[CHORUS]"),
    ("[主歌 1]", "[主歌 1]", "[VERSE]"),
    ("【副歌】", "[副歌]", "[CHORUS]"),
    ("[1절]", "[절 1]", "[VERSE]"),
    ("[サビ]", "[サビ]", "[CHORUS]"),
    ("[اللازمة]", "[اللازمة]", "[CHORUS]"),
    ("[פזמון]", "[פזמון]", "[CHORUS]"),
    ("[Säkeistö 1]", "[Säkeistö 1]", "[VERSE]"),
    ("VERSE 1", "[Verse 1]", "[VERSE]"),
    ("Chorus:", "[Chorus]", "[CHORUS]"),
    ("(Bridge)", "[Bridge]", "[BRIDGE]"),
    ("(Bridge: Prince)", "[Bridge]", "[BRIDGE]"),
    ("*Chorus*", "[Chorus]", "[CHORUS]"),
    ("CHORUS", "[Chorus]", "[CHORUS]"),
    ("Chorus (x2)", "[Chorus]", "[CHORUS]"),
    ("[Verse 1: Prince", "[Verse 1]", "[VERSE]"),
]


@pytest.mark.parametrize(("line", "plain", "tag"), HEADINGS)
def test_headings_lose_the_names_and_are_written_as_chosen(line: str, plain: str, tag: str) -> None:
    text = f"la la\n{line}\nna na"
    assert clean_lyrics(text) == f"la la\n{plain}\nna na"
    assert clean_lyrics(text, headings="tags") == f"la la\n{tag}\nna na"
    assert clean_lyrics(text, headings="drop") == "la la\n\nna na"


@pytest.mark.parametrize("word", PLAIN_WORDS + BRACKETED_WORDS)
def test_every_section_word_is_read_back_and_has_one_tag(word: str) -> None:
    spelled = word.replace("-", " ")
    tag = clean_lyrics(f"la\n[{spelled} 2: Some One]\nna", headings="tags").split("\n")[1]
    expected = "CHORUS" if word == "refrain" else TAGS[squeeze_word(word)]
    assert tag == f"[{expected}]"
    assert re.fullmatch(r"\[[A-Z]+(?:[- ][A-Z]+)*\]", tag)
    plain = clean_lyrics(f"la\n[{spelled} 2: Some One]\nna").split("\n")[1]
    assert "Some" not in plain
    assert plain.endswith(" 2]")


def test_every_tag_is_its_own_tag() -> None:
    for tag in sorted(set(TAGS.values())):
        assert TAGS[squeeze_word(tag)] == tag


def test_a_refrain_is_the_chorus_only_where_there_is_no_other() -> None:
    both = "[Chorus]\nla\n[Refrain]\nna"
    assert clean_lyrics(both, headings="tags") == "[CHORUS]\nla\n[REFRAIN]\nna"
    assert clean_lyrics("[Couplet 1]\nla\n[Refrain]\nna", headings="tags") == "[VERSE]\nla\n[CHORUS]\nna"


@pytest.mark.parametrize(("headings", "num_verses"), [("plain", 2), ("tags", 2), ("drop", 0)])
def test_sections_are_recognised_in_what_comes_out(headings: Headings, num_verses: int) -> None:
    text = "[Verse 1: A]\nla la\n\n[Chorus: B]\nna na\n\n[Verse 2: A]\nda da\n\n[Chorus]\nna na"
    cleaned = clean_lyrics(text, headings=headings)
    structure = measure_structure(cleaned)
    assert structure.num_verses == num_verses
    assert structure.num_choruses == num_verses
    assert structure.num_lines == 4
    assert len(split_sections(cleaned)) == 4


def test_brackets_of_another_kind_go_and_what_follows_them_stays() -> None:
    assert clean_lyrics("[Prince]\nla\n[?]\n[Prince:] I sing\nla") == "la\nI sing\nla"
    assert clean_lyrics("[Verse 1: A] I sing\nla[Chorus: B]\nna") == "[Verse 1]\nI sing\nla\n[Chorus]\nna"
    assert clean_lyrics("[Verse 1] [Prince] I sing") == "[Verse 1]\nI sing"
    assert clean_lyrics("[Verse 1: A\n& B]\nla") == "[Verse 1]\nla"
    assert clean_lyrics("[Verse 1]\nla\n\n[Chorus]\nna") == "[Verse 1]\nla\n\n[Chorus]\nna"
    assert clean_lyrics("Verse 2: he spoke\nla [x2]") == "[Verse 2]\nhe spoke\nla [x2]"
    assert clean_lyrics("[Produced by The Bridge]\nla") == "la"


def test_a_bracket_that_runs_over_lines_without_a_section_word_is_sung() -> None:
    assert clean_lyrics("[all my love\nis here]\nna") == "[all my love\nis here]\nna"


@pytest.mark.parametrize(
    "line",
    ["break", "Drop", "bridge", "a bridge too far", "Chorus of angels", "verse", "part two", "Solo", "coro",
     "Bro", "most", "Intro to my life", "final", "- hook, line and sinker"],
)  # fmt: skip
def test_section_words_that_are_sung_are_no_headings(line: str) -> None:
    assert clean_lyrics(f"la la\n{line}\nna na", headings="tags") == f"la la\n{line}\nna na"


def test_a_bare_section_word_at_the_head_of_a_stanza_is_a_heading() -> None:
    assert clean_lyrics("la\n\nChorus\nna") == "la\n\n[Chorus]\nna"
