# ruff: noqa: RUF001 - titles in several languages
from __future__ import annotations

import textwrap

import pytest

from preprocess.clean.judge import Reason, find_rendering, judge_lyrics
from preprocess.clean.lyrics import clean_lyrics
from preprocess.clean.sung import split_sung
from preprocess.schema import Song

BODY = "I walk along the river every day\nIt sings a song to wash my fear away\n\n" * 3

PROSE = (
    "The harbour was quiet when Miriam came down the hill that morning. She had not slept well, and the letter in "
    "her coat felt heavier than it should. Nobody at the post office had asked her anything. They never did. She "
    "crossed the square, counted the boats as her father had taught her, and found that one of them was missing. "
    "It was the green one, the one that belonged to the Aldous family. For a while she stood there and tried to "
    "remember whether she had seen it the evening before. She could not. The wind had turned to the north during "
    "the night, and any boat that had gone out would have a hard time coming back. She decided to wait."
)
MORE_PROSE = (
    "By noon the square had filled with people who pretended to buy fish. Old Bertram brought her a chair without "
    "being asked. He said that the Aldous boy had been talking about the islands for weeks, and that only a fool "
    "would have believed him. Miriam thanked him and kept her eyes on the water. What she wanted to say would have "
    "taken all afternoon. At last a sail appeared behind the lighthouse, small and grey, leaning hard to one side. "
    "Somebody laughed. She put the letter back in her pocket, stood up, and walked down the steps to meet it."
)
RAP = (
    "woke up in the city with the rent due and the heat low kicking down the sidewalk with a pocket full of free "
    "throws mama on the phone telling me to stay clean I been in the lab since I was sixteen writing every line "
    "like it's my last one running through the pages like a track star past them they said I wouldn't make it but "
    "I made a way now the same ones laughing got a lot to say count it up stack it up never let it fold I was "
    "forged in the winter and I came out gold spin it back run it up let the record show from the bottom of the "
    "block to the top of the row and I never looked back never looked down took the long way out of that small town"
)
RUN_TOGETHER = (
    "I left my home in early spring, And walked the road the whole day long. I heard the little thrushes sing. "
    "And every bird was in the song. The river ran beside my feet, The wind was cool, The day was sweet. I never "
    "knew a road so fair. And all the world was waiting there. O carry me, my weary shoes, And bring me where the "
    "lanterns glow. The many roads that I may choose. Are all the roads that I don't know. I left my home. I left "
    "my bed. And all the words that we had said. And when the night came down on me, I laid my head beneath a tree."
)
INTERVIEW = (
    "Host: Thank you for coming in today, it has been a long while since we last talked about the new record.\n"
    "Ann Bell: It really has, and I am glad to be back in the studio with you and with all the listeners.\n"
    "Host: So tell us how you wrote these songs, because they sound nothing like the ones from before.\n"
    "Ann Bell: Mostly at the kitchen table, with a cheap guitar and a lot of coffee, before anyone was awake.\n"
    "Host: And did the band hear them early, or did you wait until you were in the room with everyone?\n"
    "Ann Bell: I waited, which they did not like at all, but in the end it kept the whole thing fresh."
)
DUET = "\n".join(["He: Come out with me tonight, my dear", "She: I'd rather stay at home, I fear"] * 6)
TRACKS = "\n".join(f"{number}. {name}" for number, name in enumerate(["Rain", "Old Road", "Salt", "Home"], 1))
TOUR = "\n".join(
    f"{month} {day} - A Hall, Some Town" for month in ("March", "April") for day in (3, 5, 9, 12)
)
WRAPPED = textwrap.fill(PROSE, 68)
POEM = (
    "O you who walk the long grass of the evening, who lean on the fence and count the returning birds,\n"
    "I have seen you from the far road, I have carried your shape in my eyes over the hills and the towns.\n"
    "Nothing was said between us. The dust spoke, the dry leaves spoke, the gate spoke on its hinges.\n"
    "And I went on, and the evening went on, and the birds came down to the field one after another.\n"
)
HYMN_LINES = (
    "1. Praise to the maker of the morning; praise for the light on hill and sea; praise for the quiet of the "
    "evening; all that I have I owe to thee.\n"
    "2. Praise for the bread upon the table; praise for the hands that made it so; praise for the rain upon the "
    "gable, and for the seeds that wait below.\n"
    "3. Praise for the friend who walks beside me; praise for the voice that calls me home; praise for the star "
    "that still will guide me over the waters where I roam.\n"
    "4. Praise when the strength of day is failing; praise when the lamp is burning low; over the bar my boat is "
    "sailing, into the peace I long to know."
)


def judge(
    text: str, tag: str | None = None, title: str | None = None, artist: str | None = None
) -> Reason | None:
    lyrics = clean_lyrics(text)
    song = Song("1", text, title=title, artist=artist, tag=tag)
    return judge_lyrics(song, lyrics, split_sung(lyrics), min_chars=100, max_chars=5000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t\n", "empty"),
        ("[Verse 1]\n\n[Chorus]", "empty"),
        ("[Instrumental]", "placeholder"),
        ("Instrumental", "placeholder"),
        ("(This is an instrumental)", "placeholder"),
        ("Lyrics for this song have yet to be released. Please check back once the song is out.", "placeholder"),
        ("纯音乐，请欣赏", "placeholder"),
        ("la la la", "too short"),
        ("la " * 2000, "too long"),
        ("? ? ? ... !!! ---\n" * 10, "not text"),
        ("♪♪♪\n" * 40, "not text"),
        ("e|--3--5--7--|--3--5--|\nB|--3--5--7--|--3--5--|\n" * 4, "not text"),
        (BODY, None),
        ("an instrumental plays while I walk along\n" + BODY, None),
        ("na na na na na na na\n" * 10, None),
        ("1, 2, 3, 4, come on, count it off with me\n" * 5, None),
    ],
)  # fmt: skip
def test_drops_have_a_reason(text: str, reason: str | None) -> None:
    assert judge(text) == reason


def test_the_limits_are_inclusive_and_fair_to_dense_scripts() -> None:
    song, sung = Song("1", ""), split_sung("x" * 10)
    assert judge_lyrics(song, "x" * 10, sung, min_chars=10, max_chars=10) is None
    assert judge_lyrics(song, "x" * 10, sung, min_chars=11, max_chars=99) == "too short"
    assert judge_lyrics(song, "x" * 10, sung, min_chars=0, max_chars=9) == "too long"
    assert judge("明月照我心\n" * 8) is None
    assert judge("明月照我心\n" * 6) == "too short"


@pytest.mark.parametrize(
    ("title", "artist", "reason"),
    [
        ("Some Band - A Song (English Translation)", "Genius English Translations", "translation"),
        ("A Song", "Genius Traducciones al Español", "translation"),
        ("A Song", "Genius Traductions Françaises", "translation"),
        ("A Song", "Polskie Tłumaczenia Genius", "translation"),
        ("A Song", "Genius Türkçe Çeviri", "translation"),
        ("A Song", "Genius Brasil Traduções", "translation"),
        ("A Song (Traducción al Español)", "Some Band", "translation"),
        ("A Song (Traduction française)", None, "translation"),
        ("A Song (Deutsche Übersetzung)", None, "translation"),
        ("A Song (Русский перевод)", None, "translation"),
        ("A Song (中文翻译)", None, "translation"),
        ("A Song [Translated to English]", None, "translation"),
        ("A Song English Translation", None, "translation"),
        ("Some Band - A Song (Romanized)", "Genius Romanizations", "romanization"),
        ("A Song", "Genius Romanizations", "romanization"),
        ("A Song (Romaji)", None, "romanization"),
        ("A Song (Japanese Romanization)", None, "romanization"),
        ("Lost in Translation", "Some Band", None),
        ("Lost (In Translation)", "Some Band", None),
        ("Translation", "The Translations", None),
        ("Genius", "Genius of Love", None),
        ("Pinyin", "Some Band", None),
        ("A Song (English Version)", "Some Band", None),
        ("A Roman (Holiday)", "Romania", None),
        (None, None, None),
    ],
)
def test_renderings_of_other_songs_are_told_by_title_and_artist(
    title: str | None, artist: str | None, reason: str | None
) -> None:
    assert find_rendering(title, artist) == reason
    assert judge(BODY, title=title, artist=artist) == reason


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        (PROSE, "misc"),
        (f"{PROSE}\n\n{MORE_PROSE}", None),
        (WRAPPED, "misc"),
        (INTERVIEW, "misc"),
        (INTERVIEW, "rap"),
        (TRACKS + "\n5. The Very Last One Before We Go\n6. And This One is the Encore of the Night", "pop"),
        ("Tracklist\n" + TRACKS + "\nand some more\nthat has no number at all\nand is long enough to be kept", None),
        (TOUR, None),
        ("See https://example.org/one\nand http://example.org/two\nor www.example.org/three and so on\n" * 2, "pop"),
    ],
)  # fmt: skip
def test_what_is_no_song_by_its_form_is_dropped(text: str, tag: str | None) -> None:
    assert judge(text, tag) == "not a song"


@pytest.mark.parametrize("tag", [None, "misc", "rap"])
@pytest.mark.parametrize(
    "text",
    [RAP, RUN_TOGETHER, DUET, POEM, POEM * 4, HYMN_LINES, BODY, RAP.replace(" ", ", ", 20)],
    ids=["rap", "verse run together", "duet", "long lines", "poem", "numbered stanzas", "song", "commas"],
)
def test_verse_stays_however_it_is_laid_out(text: str, tag: str | None) -> None:
    assert judge(text, tag) is None


@pytest.mark.parametrize(
    ("title", "tag", "reason"),
    [
        ("First Album [Tracklist + Album Artwork]", None, "not a song"),
        ("First Album (Credits)", "misc", "not a song"),
        ("First Album Tour Dates 2015", None, "not a song"),
        ("Credits", "misc", None),
        ("Interview (Skit)", "rap", None),
        ("The Art of Letting Go", None, None),
        ("State of the Art (Live)", None, None),
    ],
)
def test_titles_of_lists_count_with_lines_that_do_not_return(
    title: str, tag: str | None, reason: str | None
) -> None:
    lines = "\n".join(
        f"{word} by some person of the {word} band" for word in ("one", "two", "three", "four", "five")
    )
    assert judge(lines, tag, title) == reason


def test_a_song_with_a_chorus_survives_the_title_of_a_list() -> None:
    assert judge(BODY, None, "Love (Credits)") is None
    assert judge(BODY, "misc", "Love (Credits)") == "not a song"
