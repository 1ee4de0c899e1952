"""Finds the claims of a text and checks each.

A sentence in a form of our own answers is read by that form's rule; any other by what free text says in so many words
(`free`). What no rule is sure of is no claim: it is "not checkable", and never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from harness.evaluation.truth.claims import Claim
from harness.evaluation.truth.forms import read_form
from harness.evaluation.truth.found import Found
from harness.evaluation.truth.free import FreeText
from harness.evaluation.truth.names import decade_of
from harness.evaluation.truth.sentences import end_of_sentence
from harness.evaluation.truth.subject import Subject, untold
from preprocess.knowledge import Knowledge, normal_name
from preprocess.schema import Song

_BEFORE_SENTENCE = re.compile(r"[\s\u2022]*(?:[-*+] |\d{1,2}[.)] )?")
_NOTHING = "nothing is said that can be checked"


def check_statements(text: str, song: Song, knowledge: Knowledge, *, introduced: str = "") -> list[Claim]:
    """What a text says of a song, sentence by sentence, each claim with a verdict.

    What the text has said before counts once: it is "not checkable" from the second time on.

    Args:
        text: An answer of ours or of any model.
        song: The song that was asked about, with the lyrics that the model saw; a fact that is None is not known.
        knowledge: Of the data set.
        introduced: What the question stated of the song. A claim that only repeats it is not the model's own, and is
            "not checkable"; one that differs from the song's facts is contradicted all the same.

    Returns:
        Claims in the order of the text, without overlap; a sentence without any is one claim of kind "none".
    """
    subject = Subject(song, knowledge)
    claims = []
    said: set[tuple[str, str]] = set()
    for start, end, found in _read(subject, text):
        if not found:
            claims.append(Claim("none", start, end, text[start:end], "not checkable", _NOTHING))
        for one in found:
            if (one.kind, one.value) in said:
                one = replace(one, judgement=untold("the text has said so before"))
            elif _is_introduced(one, introduced):
                one = replace(one, judgement=untold("the question states it"))
            said.add((one.kind, one.value))
            verdict, why = one.judgement
            claims.append(Claim(one.kind, one.start, one.end, text[one.start : one.end], verdict, why))
    return claims


def _read(subject: Subject, text: str) -> Iterator[tuple[int, int, list[Found]]]:
    """Each sentence: where it begins, where it ends, its claims in order without overlap."""
    free = FreeText(subject)
    place = 0
    while True:
        before = _BEFORE_SENTENCE.match(text, place)
        place = before.end() if before else place
        if place >= len(text):
            return
        form = read_form(subject, text, place)
        if form is not None:
            found, end = form
            if found:
                yield place, end, _without_overlap(found)
        else:
            end = end_of_sentence(text, place, subject.song.artist or "")
            stripped = place + len(text[place:end].rstrip())
            found = [one.moved(place) for one in free.read(text[place:stripped])]
            yield place, stripped, _without_overlap(found)
        place = max(end, place + 1)


def _without_overlap(found: list[Found]) -> list[Found]:
    """Of claims that overlap the one that was found first."""
    kept: list[Found] = []
    for one in found:
        if all(one.end <= other.start or one.start >= other.end for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: (one.start, one.end))


def _is_introduced(one: Found, introduced: str) -> bool:
    """Whether a claim that is so repeats a fact that the question states."""
    if not introduced or one.judgement[0] != "supported":
        return False
    if one.kind in ("artist", "genre"):
        return f" {normal_name(one.value)} " in f" {normal_name(introduced)} "
    years = re.findall(r"\b\d{4}\b", introduced)
    if one.kind == "year":
        return one.value in years
    return one.kind == "decade" and decade_of(one.value) in {f"{year[:3]}0s" for year in years}
