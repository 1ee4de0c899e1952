# ruff: noqa: RUF001 - lyrics of several scripts
from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.clean.headings import Headings
from preprocess.clean.lyrics import clean_lyrics, lyrics_hash

BODY = "I walk along the river every day\nIt sings a song to wash my fear away\n\n" * 3

SCRIPTS = [
    "Ça va, l'été\nÜber Größe, señor, ação",
    "我们在夜里看着月亮\n\n想起從前的愛情，你說過",
    "今夜は君と、カラオケへ",
    "사랑해 너를",
    "привет мир, ёлка",
    "مرحبا بالعالم، يا حبيبي\nمی\u200cخواهم",
    "क्\u200dष हिन्दी गाना\nമലയാളം അവന്\u200d പാടി",
    "ฉันรักเธอ น้ำตา",
    "שלום, אֲהוּבָתִי",
    "σ' αγαπώ πολύ",
    "love \u2764\ufe0f\u200d\U0001f525 and \U0001f469\u200d\U0001f467 \U0001f3f4\U000e0067\U000e0062\U000e007f",
    "Tiếng Việt, một người",
]


@pytest.mark.parametrize("text", SCRIPTS)
def test_every_script_stays_letter_by_letter(text: str) -> None:
    assert clean_lyrics(text) == unicodedata.normalize("NFC", text)


def test_lines_and_stanzas_stay() -> None:
    assert clean_lyrics(BODY) == BODY.strip()


def test_line_ends_spaces_and_invisible_characters_are_made_uniform() -> None:
    text = (
        "\ufeffone\u200b two\u00a0 three \r\nfour\x00\tfive\r\n\r\n\r\n\r\n\u2028six\u00ad \u202eseven\u2060"
    )
    assert clean_lyrics(text) == "one two three\nfour five\n\nsix seven"
    assert clean_lyrics("cafe\u0301") == "café"
    assert clean_lyrics("one\ttwo\nthree  four") == "one two\nthree four"


def test_joiners_go_where_no_script_spells_with_them() -> None:
    assert clean_lyrics("lo\u200dve\u200c") == "love"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rock &amp; roll &#39;n&#39; <br/>soul & more", "rock & roll 'n'\nsoul & more"),
        ("don&rsquo;t&nbsp;go &eacute;t&#xe9;", "don’t go été"),
        ("R&amp;amp;B", "R&B"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("<i>one</i> <a href='x'>two</a>\n<div class=\"z\">three</div>", "one two\n\nthree"),
        ("&lt;b&gt;one&lt;/b&gt;", "one"),
        ("I <3 you & you > me", "I <3 you & you > me"),
        ("AT&T; and a<b", "AT&T; and a<b"),
    ],
)
def test_html_goes_and_signs_that_only_look_like_it_stay(text: str, expected: str) -> None:
    assert clean_lyrics(text) == expected


def test_text_that_was_decoded_wrongly_as_a_whole_is_put_right() -> None:
    right = "Don’t say “été” — señor, mañana"
    wrong = "".join(
        bytes([byte]).decode("cp1252", errors="ignore") or chr(byte) for byte in right.encode("utf-8")
    )
    assert "â€™" in wrong
    assert clean_lyrics(wrong) == right
    # A text that is right only in part is left to the report.
    assert clean_lyrics(f"donâ€™t {SCRIPTS[1]}").startswith("donâ€™t")
    assert clean_lyrics("NÃO, São Paulo, â, Ã") == "NÃO, São Paulo, â, Ã"


def test_escaped_line_breaks_become_line_breaks_only_when_there_are_no_others() -> None:
    assert clean_lyrics(r"one\ntwo\nthree") == "one\ntwo\nthree"
    assert clean_lyrics("a\\nb\\nc\nd") == "a\\nb\\nc\nd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FreeBird Lyrics[Verse 1]\nla", "[Verse 1]\nla"),
        ("FreeBird Lyrics\nla", "la"),
        ("27 ContributorsFreeBird Lyrics\nla", "la"),
        ("27 ContributorsFreeBird LyricsIf I sing\nla", "If I sing\nla"),
        ("1 ContributorTranslationsEspañolFreeBird Lyrics[Verse 1]\nla", "[Verse 1]\nla"),
        ("TranslationsEspañolPortuguêsDeutsch日本語FreeBird Lyrics[Verse 1]\nla", "[Verse 1]\nla"),
        ("TranslationsEspañolPortuguês\nla", "la"),
        ("Translations\nEspañol\nPortuguês\nla", "la"),
        ("27 Contributors\nla", "la"),
        (
            "9 ContributorsX Lyrics“X” is a song about the sea, and it… Read More\xa0\n[Verse 1]\nla",
            "[Verse 1]\nla",
        ),
        ("la la12EmbedShare URLCopyEmbedCopy", "la la"),
        ("la la12EmbedShare URLCopyEmbed", "la la"),
        ("la la\n1.2KEmbed", "la la"),
        ("la laEmbed", "la la"),
        ("la la\nYou might also likeEmbed", "la la"),
        ("la\nSee Queen LiveGet tickets as low as $17You might also like[Chorus]\nna", "la\n[Chorus]\nna"),
        ("la\nSee Queen LiveGet tickets as low as €1,017You might also like\nna", "la\nna"),
        ("la See Queen Live Get tickets as low as $17 You might also like na", "la\nna"),
        ("loveSee Queen LiveGet tickets as low as $17You might also likeAnd na", "love\nAnd na"),
        ("la\nSee upcoming pop showsGet tickets for your favorite artistsYou might also like\nna", "la\nna"),
        ("my heartYou might also likeI want", "my heart\nI want"),
        ("la\nYou might also like[Chorus]\nna", "la\n[Chorus]\nna"),
        ("la\nYou might also like\nna3Embed", "la\nna"),
        ("my heart You might also like And na3Embed", "my heart\nAnd na"),
        ("la\n\nLyrics from Genius", "la"),
        ("la\nLyrics powered by LyricFind", "la"),
        ("la\nWriter(s): A. Person, B. Person", "la"),
        ("la\n© 1999 Some Publisher", "la"),
        ("作词 : 某人\n作曲：某人\n月亮", "月亮"),
        ("la\n******* This Lyrics is NOT for Commercial use *******\n(1409617829201)", "la"),
        ("I said [?] to you [??]\nand (inaudible) na (?)", "I said to you\nand na"),
    ],
)
def test_residue_of_a_source_is_removed(text: str, expected: str) -> None:
    assert clean_lyrics(text) == expected


def test_a_title_tells_a_head_that_is_glued_to_the_first_line() -> None:
    assert clean_lyrics("FreeBird LyricsIf I sing\nla", title="FreeBird") == "If I sing\nla"
    assert clean_lyrics("FreeBird LyricsIf I sing\nla") == "FreeBird LyricsIf I sing\nla"


@pytest.mark.parametrize(
    "text",
    [
        "I embed my soul\nyou might also like the way I dance\nembed",
        "You might also like\nthe way I move",
        "la\nI forgot the lyrics\nna",
        "these are my lyrics\nna na",
        "Lyrics from my heart\nna na",
        "See the stars tonight\nlive it up",
        "See me live, get tickets\nas low as you go",
        "27 reasons\nto go",
        "Translations of my heart\nna na",
        "we were born in 1999",
        "written by the hand of fate\nna",
        "la la (x2)\nna (2x)",
        "what?! (why?) [x2]",
        "1, 2, 3, 4",
        "It's 12:30 and I wait <3",
    ],
)
def test_the_same_words_sung_survive(text: str) -> None:
    assert clean_lyrics(text) == text


def test_a_credit_in_the_middle_of_a_song_is_sung() -> None:
    lines = [f"line number {number}" for number in "abcdefghij"]
    lines[5] = "Writer: that is what I am"
    assert clean_lyrics("\n".join(lines)) == "\n".join(lines)


def test_time_stamps_go_and_a_line_with_several_is_sung_at_each() -> None:
    plain = "[ar:Some One]\n[ti:A Song]\n[00:01.50]one <00:02.00>two\n[00:03.00]\n[00:04]three"
    assert clean_lyrics(plain) == "one two\n\nthree"
    folded = "[00:01.00]verse\n[00:02.00][00:04.00]chorus\n[00:03.00]second"
    assert clean_lyrics(folded) == "verse\nchorus\nsecond\nchorus"


PIECES = st.sampled_from(
    [
        *"ab \n\\n&;<>[]()?:.,'1Kx",
        "\n\n",
        "[Verse 1: A]",
        "[Chorus]",
        "Chorus",
        "Lyrics",
        " Lyrics",
        "27 Contributors",
        "Translations",
        "Español",
        "You might also like",
        "12Embed",
        "Embed",
        "Share URLCopyEmbed",
        "&amp;",
        "&lt;",
        "See A Live",
        "Get tickets as low as $17",
        "[00:01.00]",
        "<i>",
        "</i>",
        "<br>",
        "[?]",
        "\u200d",
        "é",
        "e\u0301",
        "\ufeff",
        "\u00a0",
        "\r\n",
        "â€™",
        "Writer: A",
        "\nG Em\n",
        "\n...",
        "\n---\n",
        "\nRepeat Chorus",
        "(Guitar Solo)",
        "1.5K Contributors",
        "Lyrics from Genius",
        "作词：",
        "… Read More",
        "[",
        "\\n\\n",
        "爱",
    ]
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from(["plain", "tags", "drop"]))
def test_cleaning_twice_is_cleaning_once(text: str, headings: Headings) -> None:
    once = clean_lyrics(text, headings=headings)
    assert clean_lyrics(once, headings=headings) == once


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet=st.characters(categories=["L", "M", "N"]), min_size=1, max_size=60))
def test_letters_are_never_lost(text: str) -> None:
    line = f"mm {text} mm"
    assert clean_lyrics(f"{line}\nthe next line of it") == (
        f"{unicodedata.normalize('NFC', line)}\nthe next line of it"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a]" * 5000 + "la", "la"),
        ("la" + "12Embed" * 25, "la"),
        ("क" + "\u200d" * 5000 + "ष", "क\u200dष"),
        ("la la" + "e" + "\u0316\u0301" * 5000, "la la" + "e" + "\u0316" * 15 + "\u0301" * 15),
        ("R&" + "amp;" * 5000 + "B", "R&B"),
    ],
    ids=["brackets", "tails", "joiners", "marks", "entities"],
)
def test_what_is_repeated_endlessly_is_cleaned_all_the_same(text: str, expected: str) -> None:
    assert clean_lyrics(text) == unicodedata.normalize("NFC", expected)


def test_the_hash_is_blind_to_headings_case_marks_and_breaks_only() -> None:
    same = lyrics_hash("[Verse 1]\nHello, world!\nBye")
    assert same == lyrics_hash("hello world\n\nbye") == lyrics_hash("[VERSE]\nhello world\nbye")
    assert same != lyrics_hash("hello word bye")
    assert lyrics_hash("1 2 3") != lyrics_hash("4 5 6")
