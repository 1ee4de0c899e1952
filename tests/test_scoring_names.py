"""Which name a text gives as its answer: the artist and genre cases, by hand."""

from __future__ import annotations

import pytest

from harness.evaluation.scoring.stated_name import read_name
from harness.evaluation.scoring.words import normalise

ARTISTS = frozenset(
    {
        "Taylor Swift",
        "Drake",
        "Prince",
        "The Beatles",
        "Simon & Garfunkel",
        "Beyoncé",
        "Jay-Z",
        "AC/DC",
        "R.E.M.",
        "Guns N' Roses",
        "Destiny's Child",
        "Heart",
        "The Who",
        "Earth, Wind & Fire",
        "Eminem feat. Rihanna",
        "Adele",
        "Dr. Dre",
        "!!!",
        "Mø",
        "Sigur Rós",
        "周杰伦",
        "宇多田ヒカル",
        "아이유",
        "Кино",
        "فيروز",
        "ขนนก",
        "Florence + The Machine",
        "Swift",
    }
)


def read(text: str) -> str | None:
    return read_name(normalise(text), "The artist is ", ARTISTS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The artist is Taylor Swift.", "Taylor Swift"),
        ('The artist is Drake. Of the artist\'s 12 songs, 5 sing "heart" and "prince".', "Drake"),
        ("The artist is Dr. Dre. Its lines are long.", "Dr. Dre"),
        ('The artist is R.E.M.. The line "x" comes twice.', "R.E.M."),
        ("The artist is The Beatles.", "The Beatles"),
        # The whole answer.
        ("Taylor Swift", "Taylor Swift"),
        ("**Artist:** Taylor Swift", "Taylor Swift"),
        ("Answer: adele.", "Adele"),
        ("the artist is drake", "Drake"),
        ('"Drake"', "Drake"),
        ("Adele?", "Adele"),
        ("!!!", "!!!"),
        # In its own words.
        ("This sounds like Taylor Swift.", "Taylor Swift"),
        ("This song is most likely performed by Beyoncé, given its rhythm.", "Beyoncé"),
        ("I would say it's by Drake because of the way he brags.", "Drake"),
        ("Based on the lyrics, this is a Drake song.", "Drake"),
        ("These lyrics remind me of *Adele*!", "Adele"),
        ("It was written by adele", "Adele"),
        ("Rapper Drake sings this.", "Drake"),
        # Case, accents, punctuation, "The", "&".
        ("it is by TAYLOR SWIFT", "Taylor Swift"),
        ("This is beyonce.", "Beyoncé"),
        ("This is Beyonce\u0301's song.", "Beyoncé"),
        ("This is by Mo.", "Mø"),
        ("This is by SIGUR ROS.", "Sigur Rós"),
        ("This is by the Beatles.", "The Beatles"),
        ("This is a Beatles song.", "The Beatles"),
        ("By Simon and Garfunkel.", "Simon & Garfunkel"),
        ("It is Earth, Wind and Fire.", "Earth, Wind & Fire"),
        ("It is Florence and the Machine.", "Florence + The Machine"),
        ("This is by Jay Z.", "Jay-Z"),
        ("This is by JAY\u2011Z, I think.", "Jay-Z"),
        ("This is by ACDC.", "AC/DC"),
        ("This is by AC/DC!", "AC/DC"),
        ("This is by Guns N\u2019 Roses.", "Guns N' Roses"),
        ("This is by Destinys Child.", "Destiny's Child"),
        ("\uff34\uff41\uff59\uff4c\uff4f\uff52 \uff33\uff57\uff49\uff46\uff54", "Taylor Swift"),
        # Guests.
        ("The artist is Eminem.", "Eminem feat. Rihanna"),
        ("The artist is Eminem featuring Rihanna.", "Eminem feat. Rihanna"),
        ("The artist is Adele feat. Drake.", "Adele"),
        ("It is Adele (feat. Drake).", "Adele"),
        # Other scripts.
        ("周杰伦", "周杰伦"),
        ("这首歌是周杰伦唱的。", "周杰伦"),
        ("宇多田 ヒカルの曲です", "宇多田ヒカル"),
        ("이 노래는 아이유의 노래입니다.", "아이유"),
        ("Это песня группы «Кино».", "Кино"),
        ("هذه أغنية فيروز", "فيروز"),
        ("เพลงนี้ของขนนกครับ", "ขนนก"),
        # Denials of others, and contrasts.
        ("This is not Drake but Adele.", "Adele"),
        ("It is Adele, not Drake.", "Adele"),
        ("It isn't by Drake. It is by Adele.", "Adele"),
        ("Unlike Drake, this is tender: Adele.", "Adele"),
        ("Adele rather than Drake.", "Adele"),
        ("This is none other than Adele.", "Adele"),
        ("No doubt this is Adele.", "Adele"),
        ("This is not only sung but written by Adele.", "Adele"),
        ("Is it Drake? No. It is Adele.", "Adele"),
        ('"Don\'t Ever Leave" is by Adele.', "Adele"),
        ('It doesn\'t sing "the end." It is Adele.', "Adele"),
        # A guess after a doubt is an answer.
        ("I'm not sure, but it sounds like Adele.", "Adele"),
        ("It is hard to say who sings this. My guess is Adele.", "Adele"),
        # A capital beside a name that is no other name.
        ("This is by Adele, and The River is its title.", "Adele"),
        ("It is Adele, who sang in Paris, or so I think.", "Adele"),
        ("It has the warmth of Texas, and Adele sings it.", "Adele"),
        ("Unlike Bob Unknown, and Ada Unknown, this is tender: Adele.", "Adele"),
        ("Title: Slow Burn\nArtist: Adele\nGenre: Pop", "Adele"),
        ("Artist:\n\nAdele\nGenre: Pop", "Adele"),
        ("This is Adele's best song.", "Adele"),
        ("The song is like Adele.", "Adele"),
        # Common words that are names, in lower case.
        ("This is Adele, who sings of her heart and a prince.", "Adele"),
    ],
)
def test_a_text_that_gives_one_name_is_read(text: str, name: str) -> None:
    assert read(text) == name


@pytest.mark.parametrize(
    "text",
    [
        # Inside other words, and parts of longer names.
        "The artist is Drakeford.",
        "This is princely music.",
        "The artist is Prince Royce.",
        "It sounds like Prince Royce.",
        "It is by Kid Drake.",
        "The mandrake grows here.",
        "The artist is Taylor.",
        "这首歌是周杰唱的。",
        "아이유리의 노래",
        # Several.
        "The artist is Drake or Adele.",
        "The artist is Drake, Adele and Taylor Swift.",
        "It could be Drake. It could also be Adele.",
        "Drake/Adele",
        "Drake or Ada Unknown",
        "Bob Unknown or Drake",
        "Bob Unknown/Drake",
        "It could be Drake, Bob Unknown, or Ada Unknown.",
        "It could be Drake, Bob Unknown, Ada Unknown or Adele.",
        "Singers such as Bob Unknown, Drake, and Ada Unknown sing so.",
        "Artist: Adele\nSong: Time\nArtist: Bob Unknown",
        # Somebody else, told by the name.
        "Bob Unknown. He is like Adele.",
        "Bob Unknown. He's very similar to Adele.",
        "The artist is Adele's sister.",
        "It is Adele's younger brother.",
        "The artist is Drake. The artist is Adele.",
        "周杰伦或者宇多田ヒカル",
        # Denied, asked, quoted.
        "This is not Adele.",
        "This isn't a song by Adele.",
        "I don't think that it is Adele.",
        "Adele isn't the artist.",
        'I don\'t hear "the rain" in Adele.',
        "Adele didn't write this.",
        "It could be anyone except Adele.",
        "Anything but a non-Adele song.",
        "Have you heard Adele today?",
        'The line "I met Adele in town" comes twice.',
        # Unknown, none at all.
        "The artist is Bob Unknown. Adele sings of rain, too.",
        "The artist is unknown.",
        "",
        "...",
        "\n",
        # Refusals.
        "I'm sorry, I cannot identify the artist.",
        "As an AI language model, I can't tell. Adele.",
        "I don't know.",
        "She learned it by the heart of the town.",
    ],
)
def test_a_text_that_gives_none_or_several_is_no_answer(text: str) -> None:
    assert read(text) is None
