"""The truth check, held against a strict reader of our own answers, planted lies, and statements in free text."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from bench.truth.planted import Answered, make_answers, plant
from bench.truth.songs import SONGS, make_knowledge
from bench.truth.statements import by_check, read_statements, tally
from harness.evaluation.truth import Claim, Knowledge, check_statements, count_claims
from preprocess.schema import Example, Song
from tests.claims import Corpus, check_answer

COUNTRY, HIP_HOP = SONGS["A"], SONGS["B"]


@pytest.fixture(scope="module")
def made() -> tuple[list[Answered], Knowledge]:
    return make_answers(150, seed=3, artists_per_genre=2)


def check(text: str, song: Song = COUNTRY, introduced: str = "") -> list[tuple[str, str]]:
    claims = check_statements(text, song, make_knowledge(), introduced=introduced)
    return [(claim.kind, claim.verdict) for claim in claims]


def test_what_a_strict_reader_accepts_is_supported_claim_by_claim(
    made: tuple[list[Answered], Knowledge],
) -> None:
    answers, knowledge = made
    corpus = Corpus([answered.song for answered in {a.song.id: a for a in answers}.values()])
    tasks: Counter[str] = Counter()
    for song, example in answers[::5]:
        check_answer(example, song, corpus)
        claims = check_statements(example.answer, song, knowledge)
        assert [claim for claim in claims if claim.verdict != "supported"] == [], example.answer
        tasks[example.task] += len(claims)
    assert len(tasks) == 8
    assert all(count > 20 for count in tasks.values()), tasks


def test_an_answer_with_one_fact_changed_has_a_contradicted_claim(
    made: tuple[list[Answered], Knowledge],
) -> None:
    answers, knowledge = made
    planted: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    for answered in answers[::5]:
        for lie in plant(answered, knowledge):
            planted[lie.kind] += 1
            claims = check_statements(lie.text, lie.song, knowledge)
            caught[lie.kind] += count_claims(claims).contradicted > 0
    assert set(planted) == {"artist", "genre", "decade", "number", "words", "theme"}
    assert all(caught[kind] >= 0.97 * count for kind, count in planted.items()), (planted, caught)


def test_a_planted_number_has_the_form_of_the_one_it_stands_for() -> None:
    song = Song("s", "la")
    for true, planted in (("4.0", "11.0"), ("4", "11")):
        answered = Answered(song, Example("form", "?", f"The mean is {true} words."))
        (lie,) = plant(answered, make_knowledge())
        assert lie.text == f"The mean is {planted} words."


@pytest.mark.parametrize(("verdict", "planted"), [("contradicted", 90), ("supported", 70)])
def test_precision_and_recall_on_statements_in_free_text(verdict: str, planted: int) -> None:
    statements = read_statements()
    assert len(statements) > 200
    held_out = tally((statement for statement in statements if statement.is_held_out), verdict)
    whole = tally(statements, verdict)
    assert whole.num_planted >= planted
    assert held_out.precision >= 0.9
    assert held_out.recall >= 0.85
    assert whole.precision >= 0.95
    assert whole.recall >= 0.9


def test_a_check_that_says_nothing_or_the_contrary_scores_nothing() -> None:
    statements = read_statements()
    silent = tally(statements, "contradicted", lambda _: Counter())
    assert (silent.precision, silent.recall) == (0, 0)
    turned = {"supported": "contradicted", "contradicted": "supported"}
    lying = tally(
        statements,
        "contradicted",
        lambda one: Counter({(kind, turned.get(told, told)): n for (kind, told), n in by_check(one).items()}),
    )
    assert lying.recall < 0.1


@pytest.mark.parametrize(
    "text",
    [
        "This sounds like Jo Winter.",
        "It is not a rock song.",
        "Unlike Jo Winter, she keeps her lines short.",
        "It might be a folk song from the 1990s.",
        "Is it by Heart?",
        "My heart says yes.",
        "Many pop songs of the 1990s sing of home.",
        "",
        "...",
        "\u3053\u306e\u6b4c\u306f\u7f8e\u3057\u3044\u3002",
    ],
)
def test_what_is_no_statement_is_never_read_as_one(text: str) -> None:
    assert all(verdict == "not checkable" for _, verdict in check(text))


def test_every_claim_stands_where_it_says_in_order_and_without_overlap() -> None:
    text = 'The artist is Heart. This country song from 1987 sings "copper rain".\n- It is by The Marlow Sisters.'
    claims = check_statements(text, COUNTRY, make_knowledge())
    assert [claim.text for claim in claims] == [text[claim.start : claim.end] for claim in claims]
    assert all(one.end <= other.start for one, other in pairwise(claims))
    assert [claim.kind for claim in claims] == ["artist", "genre", "year", "words", "artist"]


def test_a_song_without_facts_contradicts_nothing() -> None:
    bare = Song("pasted", COUNTRY.lyrics)
    text = 'The artist is Heart. The genre is Pop. The song is from the 1970s. It is from the album "Blue".'
    assert {verdict for _, verdict in check(text, bare)} == {"not checkable"}
    assert ("words", "contradicted") in check('The chorus repeats "rock the night away".', bare)


def test_a_fact_that_the_question_states_is_not_the_models_own() -> None:
    introduced = "These lyrics are by The Marlow Sisters (Country, 1987). "
    text = "This country song from the 1980s is by The Marlow Sisters. Its year is 1987."
    assert {verdict for _, verdict in check(text)} == {"supported"}
    assert {verdict for _, verdict in check(text, introduced=introduced)} == {"not checkable"}
    assert check("The artist is Heart.", introduced=introduced) == [("artist", "contradicted")]


def test_a_sentence_that_returns_counts_once() -> None:
    counts = count_claims(check_statements("It is a rock song. " * 9, COUNTRY, make_knowledge()))
    assert counts.contradicted == 1
    assert counts.hallucination_rate == 1


def test_the_hallucination_rate_leaves_out_what_cannot_be_checked() -> None:
    def claim(verdict: str) -> Claim:
        return Claim("artist", 0, 0, "", verdict, "")  # type: ignore[arg-type] # any text

    told = [claim("supported")] * 3 + [claim("contradicted")] + [claim("not checkable")] * 9
    assert count_claims(told).hallucination_rate == 0.25
    assert count_claims([claim("not checkable")]).hallucination_rate is None
    assert count_claims([]).hallucination_rate is None


def test_a_work_is_contradicted_only_where_its_artist_is_known() -> None:
    assert check('It is similar to "No Such Song" by Jo Winter.') == [("similar", "contradicted")]
    assert check('It is similar to "No Such Song" by Nobody Known.') == [("similar", "not checkable")]
    assert check('It is similar to "Blue Window" by Jo Winter.') == [("similar", "supported")]
    assert check('It is similar to "Copper Rain" by The Marlow Sisters.') == [("similar", "contradicted")]


def test_names_of_one_artist_in_other_spellings_are_the_same() -> None:
    for name in ("the marlow sisters", "Marlow Sisters", "The Marlow Sisters"):
        assert check(f"The song is by {name.title()}.") == [("artist", "supported")]
    assert check("The song is by Kid Lantern and Nova Reyes.", HIP_HOP) == [("artist", "supported")]
    assert check("The song is by Kid.", HIP_HOP) == [("artist", "contradicted")]


def test_markup_and_length_do_no_harm() -> None:
    text = "[bold]" + "The genre is " * 300 + "<b>Rock</b> " + '"' * 301 + "**" * 200 + " by A B C" * 200
    claims = check_statements(text, COUNTRY, make_knowledge())
    assert all(claim.text == text[claim.start : claim.end] for claim in claims)
