"""Sample answers as demo.json has them, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from harness.demo.items import Mark
from harness.evaluation.truth.claims import Verdict
from harness.json_lines import JsonObject

NO_CLAIM = "none"
"""Kind of a sentence in which the truth check found nothing to check; it is not marked."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    """One question of the demo with the answers of both models; None where a model was not asked.

    Attributes:
        confidence_before: Of the base model, 0 to 1; None where it was not measured. See `harness.demo.items.Reply`.
        confidence_after: With the adapter.
        likeliest_before: The name that the base model's confidence is of; None where it is that of the answer's tokens.
        likeliest_after: With the adapter.
        claims_before: Claims of the base model's answer; empty where none was checked.
        claims_after: With the adapter.
        is_stored: Whether the answers were kept from an earlier time, not given by a model there and then.
        date: When they were given, or None.
    """

    title: str | None
    artist: str | None
    lyrics_excerpt: str
    question: str
    expected: str | None
    before: str | None
    after: str | None
    confidence_before: float | None = None
    confidence_after: float | None = None
    likeliest_before: str | None = None
    likeliest_after: str | None = None
    claims_before: tuple[Mark, ...] = ()
    claims_after: tuple[Mark, ...] = ()
    is_stored: bool = False
    date: str | None = None


REQUIRED = ("title", "artist", "lyrics_excerpt", "question", "expected", "before", "after")
"""What every version of the demo writes."""


def parse_sample(item: JsonObject) -> SampleAnswer:
    """One item of demo.json, with or without the marks of the truth check.

    Raises:
        KeyError: A field is missing.
        TypeError: A value is of the wrong kind.
        ValueError: A verdict is none, or a claim's place is not in the answer.
    """
    return SampleAnswer(
        **{key: item[key] for key in REQUIRED},
        confidence_before=_share(item.get("confidence_before")),
        confidence_after=_share(item.get("confidence_after")),
        likeliest_before=_name(item.get("likeliest_before")),
        likeliest_after=_name(item.get("likeliest_after")),
        claims_before=_parse_claims(item.get("claims_before") or (), item["before"]),
        claims_after=_parse_claims(item.get("claims_after") or (), item["after"]),
        is_stored=bool(item.get("is_stored", False)),
        date=item.get("date"),
    )


def _share(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"got {value!r}, expected a number")
    return float(value)


def _name(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"got {value!r}, expected a name")
    return value


def _parse_claims(claims: Sequence[JsonObject], answer: str | None) -> tuple[Mark, ...]:
    found = [_parse_claim(one, len(answer or "")) for one in claims]
    return tuple(claim for claim in found if claim.kind != NO_CLAIM)


def _parse_claim(one: JsonObject, length: int) -> Mark:
    verdict = next((known for known in VERDICTS if known == one["verdict"]), None)
    if verdict is None:
        raise ValueError(f"got the verdict {one['verdict']!r}, expected one of {', '.join(VERDICTS)}")
    claim = Mark(int(one["start"]), int(one["end"]), verdict, str(one["why"]), str(one.get("kind", "")))
    if not 0 <= claim.start <= claim.end <= length:
        raise ValueError(f"got a claim from {claim.start} to {claim.end} of an answer of {length} characters")
    return claim
