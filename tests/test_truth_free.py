"""What the truth check makes of sentences that are easily misread: of other songs, of parts, denied, oddly spelt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.truth.songs import SONGS, make_knowledge
from harness.evaluation.truth import Knowledge, check_statements
from preprocess.knowledge import CorpusFigures, KnownSong
from preprocess.schema import Song
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.statistics import CorpusStatistics, Group

COUNTRY, HIP_HOP = SONGS["A"], SONGS["B"]
NO_GROUP = Group(0, 0, 0, 0, 0, 0, {}, {}, {}, {})


def check(text: str, song: Song = COUNTRY, knowledge: Knowledge | None = None) -> list[tuple[str, str]]:
    claims = check_statements(text, song, knowledge or make_knowledge())
    return [(claim.kind, claim.verdict) for claim in claims]


def verdicts(text: str, song: Song = COUNTRY, knowledge: Knowledge | None = None) -> set[str]:
    return {verdict for _, verdict in check(text, song, knowledge)}


def know(*songs: KnownSong, genres: tuple[str, ...] = (), **figures: dict[str, int]) -> Knowledge:
    corpus = CorpusFigures.of(CorpusStatistics(CorpusCounts()))
    counted = {name: replace(NO_GROUP, num_songs=20) for name in genres}
    return Knowledge(songs, replace(corpus, genres=counted, songs_with=figures))


@pytest.mark.parametrize(
    "text",
    [
        'The lyrics are a nod to the iconic song "The Gambit" by the band The Beatles.',
        'It is a tribute to the song "Fly Away" by the American rock band "The Beatles".',
        'The lyrics are a reference to "Fly Away" by the British group The Gambits, released in 1973.',
        'The chorus is a nod to the band "The Razzie".',
        'The song "Carry Me Home Before the River Runs Dry" is a classic of its kind.',
        '"Blue Bird" by Nobody Known is a folk song from 1979.',
        'Similar works include "Jolene" by Dolly Parton, which was released in 1973.',
    ],
)
def test_what_is_said_of_another_song_contradicts_nothing_of_this_one(text: str) -> None:
    assert verdicts(text) == {"not checkable"}


def test_what_stands_before_another_songs_name_is_said_of_this_one() -> None:
    text = 'This rock song is similar to "Blue Window" by Jo Winter.'
    assert check(text) == [("genre", "contradicted"), ("similar", "supported")]


@pytest.mark.parametrize(
    "text",
    [
        'The word "love" does not appear.',
        'The word "home" does not appear.',
        'The line "copper sun" is never sung.',
        'The word "home" is absent.',
    ],
)
def test_a_denial_behind_quoted_words_is_no_claim(text: str) -> None:
    assert verdicts(text) == {"not checkable"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The main themes are home, and family.", ["supported", "supported"]),
        ('The main themes are "home" and "family".', ["supported", "supported"]),
        ("The main themes are the home and war.", ["supported", "contradicted"]),
        ("The main theme is home, which runs through every verse.", ["supported", "not checkable"]),
        ("**Lyrical Themes**: The song explores homesickness.", ["not checkable"]),
    ],
)
def test_running_text_in_the_place_of_themes_is_no_theme(text: str, expected: list[str]) -> None:
    assert check(text) == [("theme", verdict) for verdict in expected]


NAMES = (
    "Earth, Wind & Fire",
    "Tyler, The Creator",
    "Crosby, Stills & Nash",
    "AC/DC",
    "Florence + The Machine",
    "Queens of the Stone Age",
    "System of a Down",
    "Men at Work",
    "Death Cab for Cutie",
    "The B-52's",
    "Panic! At The Disco",
    "Portugal. The Man",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    ["This song is by {}.", "It was performed by {} in 1987.", '"Copper Rain" by {} is fine.', "{}'s song."],
)
def test_a_true_artist_is_never_contradicted_for_the_spelling_of_the_name(name: str, text: str) -> None:
    claims = check_statements(text.format(name), replace(COUNTRY, artist=name), make_knowledge())
    assert ("artist", "supported") in {(claim.kind, claim.verdict) for claim in claims}, claims
    assert "contradicted" not in {claim.verdict for claim in claims}


def test_another_known_artist_is_read_as_a_whole() -> None:
    knowledge = know(KnownSong("1", "T", "Tyler, The Creator"), KnownSong("2", "U", "Tyler"))
    (claim,) = check_statements("The song is by Tyler, The Creator, I think.", COUNTRY, knowledge)
    assert (claim.text, claim.verdict) == ("Tyler, The Creator", "contradicted")


def test_other_words_for_a_genre_are_read_alike_in_our_form_and_in_free_text() -> None:
    assert verdicts("The genre is Rap.", HIP_HOP) == verdicts("It is a rap song.", HIP_HOP) == {"supported"}
    assert verdicts("The genre is Rock.", HIP_HOP) == {"contradicted"}


def test_a_genre_of_the_data_sets_own_stands_above_the_table() -> None:
    song = replace(COUNTRY, genre="Bluegrass")
    knowledge = know(genres=("Bluegrass", "Country"))
    for text in ("This is a bluegrass song.", "The genre is Bluegrass."):
        assert verdicts(text, song, knowledge) == {"supported"}
    assert verdicts("The genre is Country.", song, knowledge) == {"contradicted"}


def test_genres_side_by_side_are_not_one_false_one() -> None:
    assert "contradicted" not in verdicts("The genre is country and folk.")


def test_figures_of_a_genre_with_commas_are_read() -> None:
    genre = "Folk, World, & Country"
    figures = {"": {"home": 8}, f"genre:{genre}": {"home": 5}}
    knowledge = know(genres=(genre,), **figures)
    text = f'Of the {genre} songs counted, 99 sing "home"; of all, 99.'
    assert check(text, replace(COUNTRY, genre=genre), knowledge) == [("figures", "contradicted")]


def test_what_sets_an_artist_apart_is_read_whatever_marks_the_names_have() -> None:
    song = replace(COUNTRY, artist="Kid: Lantern", genre="Folk, World, & Country")
    text = 'Among Folk, World, & Country songs, those of Kid: Lantern stand out: 9% (genre: 4%) sing "home".'
    assert check(text, song) == [
        ("genre", "supported"),
        ("artist", "supported"),
        ("figures", "not checkable"),
    ]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('It sings "truck" once.', "supported"),
        ('The word "home" appears 3 times in the song.', "contradicted"),
        ('It sings "truck" twice.', "contradicted"),
        ('The singer repeats "truck" ten times.', "contradicted"),
        ('"Truck" rhymes with "heart".', "not checkable"),
        ('"Home" rhymes with "roam".', "supported"),
        ('"Home" rhymes with "chrome".', "contradicted"),
        ('The song opens with the line "Copper rain on a tin roof town".', "supported"),
        ('The song opens with the line "I packed my heart in a cardboard case".', "contradicted"),
        ('The song opens with "I packed my heart".', "not checkable"),
        ('The last line is "Carry me home and I\'ll tell you why".', "supported"),
        ('The last line is "Copper rain on a tin roof town".', "contradicted"),
        ('The last line of the chorus is "Carry me home before the river runs dry".', "not checkable"),
    ],
)
def test_how_often_and_where_words_are_sung_is_judged_by_the_lyrics(text: str, verdict: str) -> None:
    assert verdicts(text) == {verdict}


def test_a_word_is_not_sung_where_it_is_a_part_of_another() -> None:
    song = replace(COUNTRY, lyrics="Cette ann\u00e9e encore\n\u6708\u304c\u304d\u308c\u3044", language="fr")
    assert verdicts('She sings "n\u00e9".', song) == {"contradicted"}
    assert verdicts('She sings "\u304d\u308c\u3044".', song) == {"supported"}


@pytest.mark.parametrize(
    "text",
    [
        "Each verse has four lines.",
        "It opens with two lines about the town.",
        '"Carry me home" is repeated four times in the chorus.',
        'The chorus repeats "carry me home" three times.',
        "The song has a melody.",
        "The song has 40 lines in the chorus.",
    ],
)
def test_a_count_of_a_part_is_not_judged_on_the_whole(text: str) -> None:
    assert verdicts(text) == {"not checkable"}


def test_a_verse_and_a_chorus_are_one_at_least() -> None:
    assert verdicts("The song has a verse and a chorus.") == {"supported"}
    assert check("The song has a bridge and a chorus.") == [("form", "contradicted"), ("form", "supported")]


def test_another_songs_words_are_told_only_where_all_were_kept() -> None:
    knowledge = know(
        KnownSong("1", "Short", "Jo Winter", themes=("home",), words="home truck"),
        KnownSong("2", "Long", "Jo Winter", words=" ".join(f"word{number}" for number in range(400))),
    )
    form = 'It is nearest to "{}" by Jo Winter: both sing "{}" and "truck"{}.'
    cases = {
        ("Short", "Home", "; Home is a theme of both"): {"supported"},
        ("Short", "gravel", ""): {"supported", "contradicted"},
        ("Short", "me", ""): {"supported", "not checkable"},
        ("Short", "carry me", ""): {"supported", "not checkable"},
        ("Long", "home", ""): {"supported", "not checkable"},
    }
    for filled, expected in cases.items():
        assert verdicts(form.format(*filled), COUNTRY, knowledge) == expected, filled


def test_what_is_said_twice_counts_once_in_any_wording() -> None:
    texts = "The artist is Heart. The song is by Heart.", "It is a rock song, a rock song. The genre is Rock."
    for text in texts:
        claims = check(text)
        assert [verdict for _, verdict in claims].count("contradicted") == 1, claims


COUNTED = {
    "": {":theme:love": 9, ":theme:home": 9, "love": 30},
    "genre:Country": {":theme:home": 5, ":theme:love": 2},
    "decade:1980s": {":theme:love": 4},
}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The most common theme of Country songs is home.", "supported"),
        ("The most common theme of country songs is love.", "contradicted"),
        ("Home is the most common theme of Country songs.", "supported"),
        ("The most common theme in the corpus is love.", "supported"),
        ("The most common theme in the corpus is home.", "supported"),
        ("War is the most frequent theme among songs of the 1980s.", "contradicted"),
        ("The most common theme of Polka songs is love.", "not checkable"),
    ],
)
def test_the_most_common_theme_is_held_against_the_counts(text: str, verdict: str) -> None:
    assert check(text, COUNTRY, know(genres=("Country",), **COUNTED)) == [("figures", verdict)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('It is from their 1987 album "Dust and Diamonds".', [("album", "supported")]),
        ("It is on their Country album.", []),
        ("It was released in May 1994.", [("year", "contradicted")]),
        ("It was re-released in 1995.", []),
        ("The artist is Unknown.", []),
        ("The artist is American.", []),
        ("The artist is Canadian.", []),
        ("The song is by either Heart or The Marlow Sisters.", []),
        ("Mama sings of the road.", []),
        ("Daddy's voice is heard.", []),
        ("Calling this a rock song would be wrong.", []),
        ("The instrumentation is rock.", []),
        ('The lyrics tell a "coming of age" story.', []),
        ("It is from the early 1980s.", [("decade", "contradicted")]),
        ("It is from the mid 1980s.", [("decade", "supported")]),
        ("It is from the late 1980s.", [("decade", "supported")]),
        ("**Year**: 1994", [("year", "contradicted")]),
        ('**Album**: "Blue Skies"', [("album", "contradicted")]),
    ],
)
def test_small_words_are_read_as_a_person_reads_them(text: str, expected: list[tuple[str, str]]) -> None:
    assert [claim for claim in check(text) if claim[1] != "not checkable"] == expected
