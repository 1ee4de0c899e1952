"""A claim before it has its text: what rules find."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from harness.evaluation.truth.subject import Judgement, Subject


@dataclass(frozen=True, slots=True)
class Found:
    """A claim at its place in the whole text.

    Attributes:
        kind: See `Claim`.
        start: Where it begins, in characters.
        end: Where it ends.
        judgement: The verdict and what it rests on.
        value: What is claimed, normalised: a claim of the same kind and value says the same.
    """

    kind: str
    start: int
    end: int
    judgement: Judgement
    value: str

    def moved(self, by: int) -> Found:
        """The claim so many characters further on."""
        return replace(self, start=self.start + by, end=self.end + by)


Rule = Callable[[Subject, re.Match[str]], Iterator[Found]]
"""Reads the claims out of a match in the whole text."""


def found(
    kind: str, match: re.Match[str], group: int | str, judgement: Judgement, value: str | None = None
) -> Found:
    """A claim that a group of a match makes."""
    start, end = match.span(group)
    told = match[group] if value is None else value
    return Found(kind, start, end, judgement, " ".join(told.casefold().split()))
