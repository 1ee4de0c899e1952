"""Does the truth check tell true statements from false ones?

Free text: `statements.txt` holds statements about two made-up songs, each with the claims that a reader finds in it.
Precision is the part of the claims found that a reader finds too, with the same verdict; recall is the part of a
reader's claims that are found. The half that was left alone while rules were written is told apart. The baseline reads
every name of an artist and every word for a genre, a decade or a year that stands in a text as a claim.

Own answers: those that a data set of made-up songs gives, whose claims are all true, and the same with one fact changed
for another. Precision and recall are over whole answers: is one with a lie found to hold one?
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from bench.record import Figure, Outcome, summarize
from bench.truth.planted import make_answers, plant
from bench.truth.songs import SONGS, make_knowledge
from bench.truth.statements import Claimed, Statement, by_check, read_statements, tally
from harness.evaluation.truth import check_statements
from harness.evaluation.truth.names import decade_of, genre_pattern
from harness.evaluation.truth.subject import Subject

CHECK, MENTIONS = "check", "mentions"
VERDICTS = ("contradicted", "supported")

_NUM_SONGS, _NUM_QUICK = 300, 100
_TIME = re.compile(r"\b(?P<decade>(?:\d\d)?\d0s)\b|\b(?P<year>(?:19|20)\d\d)\b(?!s)")


def measure(*, quick: bool) -> Outcome:
    """Count what is found of planted statements, lies and truths."""
    statements = read_statements()
    parts = {
        "held_out": [statement for statement in statements if statement.is_held_out],
        "seen": [statement for statement in statements if not statement.is_held_out],
    }
    ways: dict[str, Callable[[Statement], Claimed]] = {CHECK: by_check, MENTIONS: by_mention}
    figures: dict[str, Figure] = {}
    for name, part in parts.items():
        for way, read in ways.items():
            figures |= _free_figures(f"{way}_{name}", part, read)
    answers, facts = _check_answers(_NUM_QUICK if quick else _NUM_SONGS)
    counts: dict[str, float | int | str] = {
        f"{name}_{verdict}": sum(told == verdict for statement in part for _, told in statement.claims)
        for name, part in parts.items()
        for verdict in VERDICTS
    }
    sizes = {f"{name}_statements": len(part) for name, part in parts.items()}
    return Outcome(
        baseline=MENTIONS, figures={**figures, **answers}, ratios={}, facts={**sizes, **counts, **facts}
    )


def _free_figures(
    name: str, statements: Sequence[Statement], read: Callable[[Statement], Claimed]
) -> dict[str, Figure]:
    figures = {}
    for verdict in VERDICTS:
        found = tally(statements, verdict, read)
        figures[f"{name}_{verdict}_precision"] = summarize([found.precision], "")
        figures[f"{name}_{verdict}_recall"] = summarize([found.recall], "")
    return figures


def by_mention(statement: Statement) -> Claimed:
    """Every name that stands in a text, as a claim: what a check without grammar would find."""
    subject = Subject(SONGS[statement.song], make_knowledge())
    text = statement.text
    claims: Counter[tuple[str, str]] = Counter()
    for name in {*subject.knowledge.artists.values(), subject.song.artist or ""}:
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            claims["artist", subject.artist(name)[0]] += 1
    for match in re.finditer(rf"(?<!\w)(?:{genre_pattern()})(?!\w)", text, re.IGNORECASE):
        claims["genre", subject.genre(match[0])[0]] += 1
    for match in _TIME.finditer(text):
        if match["decade"] and decade_of(match["decade"]):
            claims["decade", subject.decade(match["decade"])[0]] += 1
        elif match["year"]:
            claims["year", subject.year(int(match["year"]))[0]] += 1
    return claims


def _check_answers(num_songs: int) -> tuple[dict[str, Figure], dict[str, float | int | str]]:
    """True answers and lies in the data set's own form."""
    answers, knowledge = make_answers(num_songs, seed=3)
    num_claims = num_true = num_alarms = 0
    planted: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    for answered in answers:
        claims = check_statements(answered.example.answer, answered.song, knowledge)
        num_claims += len(claims)
        num_true += sum(claim.verdict == "supported" for claim in claims)
        num_alarms += any(claim.verdict == "contradicted" for claim in claims)
        for lie in plant(answered, knowledge):
            found = check_statements(lie.text, lie.song, knowledge)
            planted[lie.kind] += 1
            caught[lie.kind] += any(claim.verdict == "contradicted" for claim in found)
    precision = caught.total() / max(1, caught.total() + num_alarms)
    figures = {
        "answers_lies_precision": summarize([precision], ""),
        "answers_lies_recall": summarize([caught.total() / planted.total()], ""),
        "answers_truths_supported": summarize([num_true / num_claims], ""),
    }
    figures |= {
        f"answers_{kind}_recall": summarize([caught[kind] / count], "")
        for kind, count in sorted(planted.items())
    }
    facts = {"answers": len(answers), "answers_claims": num_claims, "answers_lies": planted.total()}
    return figures, dict(facts)
