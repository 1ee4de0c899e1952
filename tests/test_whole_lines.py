from __future__ import annotations

import pytest

from preprocess.clean.judge import Reason, judge_lyrics
from preprocess.clean.lyrics import clean_lyrics
from preprocess.clean.sung import split_sung
from preprocess.clean.truncation import is_truncated
from preprocess.schema import Song

FOOTER = "******* This Lyrics is NOT for Commercial use *******\n(1409617829999)"
SUNG = "I walk along the river every day\nIt sings a song to wash my fear away"


def cut(raw: str) -> bool:
    return is_truncated(split_sung(clean_lyrics(raw)), raw)


def judge(text: str, tag: str | None) -> Reason | None:
    lyrics = clean_lyrics(text)
    song = Song("1", text, tag=tag)
    return judge_lyrics(song, lyrics, split_sung(lyrics), min_chars=10, max_chars=5000)


@pytest.mark.parametrize(
    "tail", ["\n...\n\n" + FOOTER, "\n\n" + FOOTER, "\n...\n12Embed", "\n(...)\n\nLyrics from Genius"]
)
def test_a_cut_is_told_under_a_footer_and_its_mark_leaves_the_lyrics(tail: str) -> None:
    assert cut(SUNG + tail)
    assert clean_lyrics(SUNG + tail) == SUNG


@pytest.mark.parametrize("tail", ["\n12Embed", "\n\nLyrics from Genius", "...\n12Embed", "\n\n[Outro]"])
def test_a_footer_of_another_kind_is_no_cut(tail: str) -> None:
    assert not cut(SUNG + tail)


@pytest.mark.parametrize(
    "head",
    [
        "1.5K ContributorsX Lyrics",
        "1.5K Contributors\n",
        "27+ Contributors\n",
        "27+ ContributorsTranslationsEspañol\n",
        "27+ ContributorsTranslationsEspañolPortuguêsX Lyrics“X” is a song of the sea…Read More\n",
        "1.5K ContributorsX is about the sea and…Read More\n",
    ],
)
def test_heads_with_rounded_numbers_are_removed(head: str) -> None:
    assert clean_lyrics(head + SUNG) == SUNG


@pytest.mark.parametrize(
    "line",
    ["G Em C D7", "C#m  F#/A#  Bsus4", "| Am | G | F | G |", "Capo 3", "Capo: 2nd fret", "Submitted by: A. Person",
     "Transcribed by A. Person", "https://example.org/a?b=c", "www.example.org", "Copyright 1999 Some Publisher",
     "© Some Publisher", "Read more at https://example.org", "(Repeat Chorus 2x)", "Repeat Chorus", "Repeat 1",
     "repeat the first verse twice", "*Solo*", "(Guitar Solo)", "{Instrumental}", "(Instrumental Break)"],
)  # fmt: skip
def test_whole_lines_that_are_not_sung_go_wherever_they_stand(line: str) -> None:
    many = "\n".join([SUNG] * 3)
    assert clean_lyrics(f"{many}\n{line}\n{many}") == f"{many}\n{many}"
    assert clean_lyrics(f"{line}\n{SUNG}\n{line}") == SUNG


@pytest.mark.parametrize(
    "line",
    ["A", "Am I", "A B C", "A B C D E F G", "Add me", "Repeat after me", "repeat it", "(solo)", "Solo", "capo",
     "copyright my love", "read more", "Read more at night in the middle", "- no -", "solo guitar",
     "the instrumental plays", "transcribed in my heart", "submitted to you"],
)  # fmt: skip
def test_lines_that_could_be_sung_stay(line: str) -> None:
    many = "\n".join([SUNG] * 3)
    assert clean_lyrics(f"{many}\n{line}\n{many}") == f"{many}\n{line}\n{many}"


def test_letters_are_chords_beside_chords_only() -> None:
    assert clean_lyrics("G C D\none\nEm C G\ntwo") == "one\ntwo"
    assert clean_lyrics("A B C\none\nD E F\ntwo") == "A B C\none\nD E F\ntwo"


def test_a_rule_parts_stanzas() -> None:
    assert clean_lyrics("one\n-------\ntwo\n=====\n\nthree") == "one\n\ntwo\n\nthree"


def test_a_heading_that_says_how_often_is_a_heading() -> None:
    assert clean_lyrics("one\n(Chorus) x2\ntwo") == "one\n[Chorus]\ntwo"


def test_a_text_of_nothing_else_stays_to_be_judged() -> None:
    assert judge("{Instrumental}", None) == "placeholder"


SCREENPLAY = (
    "INT. KITCHEN - DAY\nAnna stands at the window.\nANNA\nHe is late again.\n"
    "EXT. GARDEN - NIGHT\nRain falls on it."
)
SPEAKERS = (
    "ANNA\nHe is late again tonight.\nBEN\nHe always was, you know.\nANNA\nThen call him up.\nBEN\nNobody picks up.\n"
    "ANNA\nTry it once more."
)
QUOTED = "\n".join(
    f'"What is it with the {word}?" he asked.' for word in ("boat", "rope", "sail", "tide", "oars", "nets")
)
CODE = 'import os\ndef main(path):\nname = os.path.join(path, "a")\nif name:\nreturn name\nprint(main("b"))'
RECIPE = "A cake for the winter\nIngredients:\n2 cups flour\n1 cup sugar\n3 eggs\nMix it all and bake it for an hour"


@pytest.mark.parametrize(
    ("text", "misc", "other"),
    [
        (SCREENPLAY, "not a song", None),
        (SPEAKERS, "not a song", None),
        (QUOTED, "not a song", None),
        (CODE, "not a song", "not a song"),
        (RECIPE, "not a song", "not a song"),
        ("\n".join(["HEY NOW", SUNG, "OH YES"] * 4), None, None),
        ("\n".join(['"Come in," she said', '"I will," said I', "And so the night went by"] * 3), None, None),
        (
            "import me from the sea\nreturn to me\n(return to me)\ndefine me: a heart\nwhile you sing",
            None,
            None,
        ),
        ("Ingredients of love\na cup of you\na spoon of me: us two", None, None),
    ],
)
def test_texts_of_another_format_are_no_songs(text: str, misc: str | None, other: str | None) -> None:
    assert judge(text, "misc") == misc
    assert judge(text, "pop") == other
    assert judge(text, None) == other
