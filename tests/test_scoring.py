"""What an answer is worth, by its task."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation.baselines import LabelledLyrics, majority_predictions
from harness.evaluation.scoring import Score, Truth, score_answer
from harness.evaluation.scoring.eras import read_decades
from harness.evaluation.scoring.similar import Suggestion, find_suggestions, near_by_chance
from harness.evaluation.scoring.words import normalise
from harness.evaluation.truth.claims import Claim, Verdict
from preprocess.knowledge import CorpusFigures, Knowledge, KnownSong
from preprocess.schema import GENRES, Song
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.statistics import CorpusStatistics

TASKS = ("artist", "genre", "context", "themes", "similar", "analysis", "style", "structure", "own_task")
SONG = Song(
    id="own",
    lyrics="[Verse]\nI kissed the road at midnight\nMy heart is burning slow\n雨の夜に歩く\n",
    title="Slow Burn",
    artist="Ada Vale",
    genre="Rock",
    year=1987,
    themes=("love", "travel"),
)
KNOWN = (
    KnownSong("1", "Night Road", "Jo Winter", "Rock", 1982, themes=("travel",)),
    KnownSong("2", "Far Away", "Nine, Roads and Sons", "Folk", 1951, themes=("war",)),
    KnownSong("3", "Kiss Me", "Dr. Ray", "Rock", 1955, themes=("love",)),
    KnownSong("own", "Slow Burn", "Ada Vale", "Rock", 1987, themes=("love", "travel")),
)


def know(*, is_cut: bool = False) -> Knowledge:
    return Knowledge(KNOWN, CorpusFigures.of(CorpusStatistics(CorpusCounts())), is_cut=is_cut)


def claim(verdict: Verdict) -> Claim:
    return Claim("words", 0, 1, "x", verdict, "")


def score(
    task: str, text: str, *claims: Claim, expected: str = "", knowledge: Knowledge | None = None
) -> Score:
    names = {"artist": ("Ada Vale", "Jo Winter"), "genre": GENRES, "context": ("1980s", "1990s")}.get(
        task, ()
    )
    return score_answer(task, text, Truth(SONG, SONG.themes, expected, names), knowledge, claims)


def test_a_right_artist_is_worth_one_and_a_wrong_one_nothing() -> None:
    assert score("artist", "The artist is Ada Vale.") == Score(
        {"acc": 1.0, "refused": 0.0, "empty": 0.0}, "Ada Vale"
    )
    assert score("artist", "The artist is Jo Winter.").values["acc"] == 0
    assert score("artist", "Ada Vale and Jo Winter").values["acc"] == 0


def test_an_artist_outside_the_closed_set_is_recognised() -> None:
    truth = Truth(SONG, (), "", ("Jo Winter",))
    assert score_answer("artist", "This is by Ada Vale.", truth, None, ()).values["acc"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot identify the artist from the lyrics.",
        "As an AI language model, I do not have access to this information.",
        "I don't know who performs this song.",
        "It is impossible to tell from the lyrics alone.",
        "The artist is unknown.",
        "Unknown",
        "I\u2019m not able to determine the artist.",
        "There is not enough information to say.",
        "\"I'm sorry, but I don't know.\"",
    ],
)
def test_a_refusal_is_wrong_and_counted(text: str) -> None:
    assert score("artist", text).values == {"acc": 0.0, "refused": 1.0, "empty": 0.0}


def test_a_quoted_lyric_declines_nothing() -> None:
    assert score("structure", 'The line "I\'m sorry" comes 4 times.').values["refused"] == 0
    assert score("artist", 'The line "I don\'t know" fits Ada Vale.').values["acc"] == 1
    assert score("style", "I'm sorry, I can't tell what \"road\" says.").values["refused"] == 1


def test_an_answer_that_tells_something_is_no_refusal_where_no_name_is_asked() -> None:
    text = "I'm not sure about the bridge. The chorus comes twice."
    assert score("structure", text, claim("contradicted")).values["refused"] == 0
    assert score("structure", text, claim("not checkable")).values["refused"] == 1
    assert score("similar", text, claim("supported")).values["refused"] == 1
    expected = "**Artist Style**: x.\n**Lyrical Themes**: y."
    whole = "**Artist Style**: I am not sure.\n**Lyrical Themes**: love."
    assert score("analysis", whole, expected=expected).values["refused"] == 0


@pytest.mark.parametrize("text", ["", " \n", "...", "**", "\u3000"])
def test_an_empty_answer_is_wrong_and_counted_apart(text: str) -> None:
    assert score("artist", text).values == {"acc": 0.0, "refused": 0.0, "empty": 1.0}


def test_a_wrong_answer_is_no_refusal() -> None:
    found = score("artist", "I know this one: Jo Winter sings that she can't say goodbye.")
    assert (found.answer, found.values["refused"]) == ("Jo Winter", 0)


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("The genre is Rock. Of the Pop songs counted, 9% sing it.", True),
        ("This is a rock song.", True),
        ("ROCK", True),
        ("The genre of this song is alternative rock.", True),
        ("This is country rock.", True),
        ("It is a classic Rock & Roll tune.", True),
        ('This is a Rock song. The line "pop goes the weasel" is sung.', True),
        ("It's not pop, it's rock music.", True),
        ("It is more rock than pop.", True),
        ("Rock. Its folk sing of their country.", True),
        ("The genre is Pop.", False),
        ("This is Pop or Rock.", False),
        ("Pop/Rock", False),
        ("This is not a rock song.", False),
        ("This is a non-rock song.", False),
        ("The rocket lands.", False),
        ("They rock the boat.", False),
        ("Hip hop", False),
        ("Is this rock?", False),
    ],
)
def test_a_genre_is_read_in_its_usual_words(text: str, *, is_right: bool) -> None:
    assert score("genre", text).values["acc"] == is_right


@pytest.mark.parametrize(
    "text", ["Hip hop.", "This is a rap song.", "It's hip-hop!", "The genre is Hip-Hop.", "HIPHOP"]
)
def test_other_words_for_a_genre_name_it(text: str) -> None:
    assert score("genre", text).answer == "Hip-Hop"


@pytest.mark.parametrize(
    ("text", "decades"),
    [
        (
            'The song is from the 1980s. Of the 12 songs counted from then, 5 sing "1999"; of 1990s songs 3.',
            (1980,),
        ),
        ("The song is from the 1980s.", (1980,)),
        ("1980s", (1980,)),
        ("This is from the '80s.", (1980,)),
        ("This is a song of the eighties.", (1980,)),
        ("It was released in 1987.", (1980,)),
        ("The mid-1980s, I think.", (1980,)),
        ("Late 80's.", (1980,)),
        ("It is from the 2000s.", (2000,)),
        ("The noughties", (2000,)),
        ("The 10s", (2010,)),
        ("The 20s", (1920, 2020)),
        ("The 1980s or the 1990s.", (1980, 1990)),
        ("Between 1978 and 1983", (1970, 1980)),
        ("Not the 1970s but the 1980s.", (1980,)),
        ('He sings "party like it\'s 1999": the 1980s.', (1980,)),
        ("She was in her twenties in the 1980s.", (1980,)),
        ("It costs $1980 and has 1980 lines, 1.980 words.", (1980,)),
        ("It isn't from the 1980s.", ()),
        ("Is it from the 1980s?", ()),
        ("The 21st century", ()),
        ("19800s and x1980s", ()),
        ("I cannot determine the decade. Songs of the 1980s are loud.", ()),
    ],
)
def test_the_decades_that_a_text_states(text: str, decades: tuple[int, ...]) -> None:
    assert read_decades(normalise(text)) == decades


@pytest.mark.parametrize(
    ("text", "is_right", "is_near"),
    [
        ("The song is from the 1980s.", True, True),
        ("The song is from the 1990s.", False, True),
        ("The song is from the 1970s.", False, True),
        ("The song is from the 1960s.", False, False),
        ("The 1980s or 1990s.", False, True),
        ("The 1970s, 1980s or 1990s.", False, False),
        ("The 1990s or the 2000s.", False, False),
        ("I don't know.", False, False),
        ("", False, False),
    ],
)
def test_an_era_within_a_decade(text: str, *, is_right: bool, is_near: bool) -> None:
    values = score("context", text).values
    assert (values["acc"], values["within_decade"]) == (is_right, is_near)


def test_supported_is_the_share_of_checkable_claims_that_are_so() -> None:
    claims = [claim("supported"), claim("supported"), claim("contradicted"), claim("not checkable")]
    for task in ("context", "style", "structure", "analysis", "similar", "own_task"):
        assert score(task, "The 1980s.", *claims).values["supported"] == pytest.approx(2 / 3)
    assert "supported" not in score("style", "Fine.", claim("not checkable")).values


@pytest.mark.parametrize(
    ("text", "precision", "recall"),
    [
        ("The main themes are love and travel.", 1, 1),
        ("The main theme is love.", 1, 1 / 2),
        ("The main themes are love, war and death.", 1 / 3, 1 / 2),
        ("The main themes are love, xyzzy and travel.", 2 / 3, 1),
        ("The main themes are love, war, and travel.", 2 / 3, 1),
        ("The main themes are love and travel\nIt is sung at night.", 1, 1),
        ("This song is about Love, and about travel.", 1, 1),
        ("It is about love, not about war.", 1, 1 / 2),
        ('It is about love; "war" is sung.', 1 / 2, 1 / 2),
        ('It is about love; the line "no more war for me" is sung.', 1, 1 / 2),
        ("Lovely gloves.", 0, 0),
        ("Is it about love?", 0, 0),
        ("", 0, 0),
    ],
)
def test_themes_are_compared_as_sets(text: str, precision: float, recall: float) -> None:
    values = score("themes", text).values
    assert (values["precision"], values["recall"]) == pytest.approx((precision, recall))
    both = precision + recall
    assert values["f1"] == pytest.approx(2 * precision * recall / both if both else 0)


def test_evidence_is_the_share_of_quotations_that_are_sung() -> None:
    text = 'The main theme is love. It shows in "heart", "kissed the road", "雨の夜" and "moonlight".'
    assert score("themes", text).values["evidence"] == 3 / 4
    assert score("themes", 'It shows in "art" and "kissed road".').values["evidence"] == 0
    assert "evidence" not in score("themes", "The main theme is love.").values


NIGHT_ROAD, KISS_ME = Suggestion("Night Road", "Jo Winter"), Suggestion("Kiss Me", "Dr. Ray")
FAR_AWAY = Suggestion("Far Away", "Nine, Roads and Sons")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('It is nearest to "Night Road" by Jo Winter: both sing "road".', [NIGHT_ROAD]),
        ('It is nearest to "Kiss Me" by Dr. Ray: both sing "x".', [KISS_ME]),
        (
            'It is nearest to "Far Away" by Nine, Roads and Sons: x. "Kiss Me" by Dr. Ray sings "heart" too.',
            [FAR_AWAY, KISS_ME],
        ),
        ("1. Night Road by Jo Winter\n2. Lost Song - Band", [NIGHT_ROAD, Suggestion("Lost Song", "Band")]),
        (
            "\u201cNight Road\u201d by Jo Winter and \u201cOther\u201d by A. Body.",
            [NIGHT_ROAD, Suggestion("Other", "A. Body")],
        ),
        ('It is nearest to a song by Jo Winter: both sing "x".', [Suggestion(None, "Jo Winter")]),
        ('It is nearest to "Night Road": both sing "road".', [Suggestion("Night Road", None)]),
        ('Both sing "road" and "heart".', []),
        ("", []),
    ],
)
def test_the_songs_that_a_text_recommends(text: str, found: list[Suggestion]) -> None:
    assert find_suggestions(text, know()) == found


def test_recommendations_are_real_near_and_other_songs() -> None:
    expected = '"Night Road" by Jo Winter. "Kiss Me" by Dr. Ray.'
    text = '"Night Road" by Jo Winter. "Far Away" by Nine, Roads and Sons. "No Such" by Jo Winter. '
    text += '"Slow Burn" by Ada Vale.'
    values = score("similar", text, expected=expected, knowledge=know()).values
    assert values == {
        "real": 3 / 4,
        "near": 1 / 4,
        "not_same": 3 / 4,
        "precision_at_k": 1 / 2,
        "refused": 0,
        "empty": 0,
    }
    assert score("similar", expected, expected=expected, knowledge=know()).values["precision_at_k"] == 1
    assert set(score("similar", "Nothing is like it.", knowledge=know()).values.values()) == {0.0}
    assert score("similar", text).values["not_same"] == 3 / 4


def test_a_song_by_an_artist_whom_a_cut_catalogue_lacks_is_not_called_unreal() -> None:
    text = '"Night Road" by Jo Winter. "Elsewhere" by Someone Else.'
    assert score("similar", text, knowledge=know(is_cut=True)).values["real"] == 1
    assert score("similar", text, knowledge=know()).values["real"] == 1 / 2
    last = '"Elsewhere" by Someone Else. "Night Road" by Jo Winter.'
    assert score("similar", last, knowledge=know(is_cut=True)).values["precision_at_k"] == 1
    assert score("similar", last, knowledge=know()).values["precision_at_k"] == 0


def test_what_a_random_suggestion_reaches() -> None:
    assert near_by_chance(SONG, SONG.themes, know()) == pytest.approx(2 / 3)
    assert near_by_chance(replace(SONG, id="new"), SONG.themes, know()) == 3 / 4
    assert near_by_chance(replace(SONG, year=None), ("war",), know()) == 0


def test_an_analysis_is_complete_with_every_heading_and_a_word_under_each() -> None:
    expected = "**Artist Style**: x.\n**Lyrical Themes**: y.\n**Cultural Context**: z."
    for text in (
        expected,
        "1. Artist Style: a\n2. **Lyrical Themes** - b\n### Cultural Context\nIt is old.\n",
        f"{expected}\n**Similar Works**: none.",
    ):
        assert score("analysis", text, expected=expected).values["complete"] == 1, text
    for text in (
        "**Artist Style**: x.\n**Lyrical Themes**: y.",
        "**Artist Style**:\n**Lyrical Themes**: y.\n**Cultural Context**: z.",
        "The artist style, the lyrical themes and the cultural context are fine.",
        "",
    ):
        assert score("analysis", text, expected=expected).values["complete"] == 0, text
    assert score("analysis", expected).values["complete"] == 0


@pytest.mark.parametrize("form", ["The artist is {}.", "{}", "This sounds like {}.", "**Artist:** {}\n"])
def test_a_model_that_answers_everything_with_one_artist_scores_exactly_as_the_majority(form: str) -> None:
    names = ["The Copper Mills", "Ada Vale", "Jo Winter"]
    train = [LabelledLyrics(str(i), "la", {"artist": names[i % 5 % 3]}) for i in range(40)]
    held_out = [LabelledLyrics(str(i), "la", {"artist": names[i % 7 % 3]}) for i in range(40, 99)]
    predictions = majority_predictions(train, held_out)["artist"]
    right = [
        found.answers == (song.labels["artist"],) for found, song in zip(predictions, held_out, strict=True)
    ]
    scores = []
    for song in held_out:
        truth = Truth(Song(song.song_id, song.lyrics, artist=song.labels["artist"]), (), "", names)
        scores.append(score_answer("artist", form.format(predictions[0].answers[0]), truth, None, ()))
    assert [found.values["acc"] for found in scores] == right
    assert 0 < sum(right) < len(right)


@given(text=st.text(max_size=200), task=st.sampled_from(TASKS))
@settings(max_examples=60, deadline=None)
def test_any_text_is_scored_between_none_and_all(text: str, task: str) -> None:
    found = score(task, text, expected='"Night Road" by Jo Winter.', knowledge=know())
    assert all(0 <= value <= 1 for value in found.values.values())
    assert {"refused", "empty"} <= found.values.keys()
    assert found.values["refused"] + found.values["empty"] <= 1
    if found.values["empty"]:
        assert max(value for metric, value in found.values.items() if metric != "empty") == 0


@given(around=st.text(alphabet=" \n*_\"'.", max_size=6), task=st.sampled_from(["artist", "genre"]))
@settings(max_examples=30, deadline=None)
def test_marks_around_a_name_and_its_case_do_not_matter(around: str, task: str) -> None:
    name = {"artist": "Ada Vale", "genre": "Rock"}[task]
    for text in (name, name.upper(), name.lower()):
        assert score(task, f"{around}{text}{around}").values["acc"] == 1


def test_a_long_looping_answer_is_read_in_time_that_grows_with_its_length() -> None:
    text = "This sounds like Ada Vale. " * 300
    assert score("artist", text).answer == "Ada Vale"
    assert score("themes", "It is about love and travel. " * 300).values["f1"] == 1
    assert score("genre", "- R&B\n" * 300).answer == "R&B"
