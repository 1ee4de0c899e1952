"""The planted statements in free text, and how many of their claims the truth check reads as a person does."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.truth.songs import SONGS, make_knowledge
from harness.evaluation.truth import check_statements

_FILE = Path(__file__).with_name("statements.txt")
_CLAIM = re.compile(r"(?P<kind>[a-z]+)(?P<sign>[+-])")
_VERDICTS = {"+": "supported", "-": "contradicted"}


@dataclass(frozen=True, slots=True)
class Statement:
    """A text about a song.

    Attributes:
        song: Key of `SONGS`.
        text: What is said.
        claims: (kind, verdict) → how many such claims a reader finds; none where nothing can be checked.
    """

    song: str
    text: str
    claims: tuple[tuple[str, str], ...]

    @property
    def is_held_out(self) -> bool:
        """Whether it was left alone while rules were written: of one half, by a hash of the text."""
        return hashlib.sha256(self.text.encode()).digest()[0] % 2 == 1


@cache
def read_statements() -> tuple[Statement, ...]:
    """The statements of statements.txt.

    Raises:
        ValueError: A line is of another form.
    """
    lines = [line for line in _FILE.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return tuple(map(_read, lines))


def _read(line: str) -> Statement:
    song, told, text = line.split(" | ", 2)
    claims = [] if told == "none" else [_CLAIM.fullmatch(claim) for claim in told.split()]
    if song not in SONGS or None in claims:
        raise ValueError(f"{line!r}: expected 'song | claims | text'")
    return Statement(
        song, text, tuple((claim["kind"], _VERDICTS[claim["sign"]]) for claim in claims if claim)
    )


@dataclass(slots=True)
class Tally:
    """Claims of one verdict.

    Attributes:
        num_right: Found, and planted.
        num_found: Found.
        num_planted: Planted.
    """

    num_right: int = 0
    num_found: int = 0
    num_planted: int = 0

    @property
    def precision(self) -> float:
        """Right ones among those found, 0 to 1."""
        return self.num_right / max(1, self.num_found)

    @property
    def recall(self) -> float:
        """Right ones among those planted, 0 to 1."""
        return self.num_right / max(1, self.num_planted)


Claimed = Counter[tuple[str, str]]
"""(kind, verdict) → claims."""


@cache
def by_check(statement: Statement) -> Claimed:
    """What the truth check finds in a statement."""
    claims = check_statements(statement.text, SONGS[statement.song], make_knowledge())
    return Counter((claim.kind, claim.verdict) for claim in claims)


def tally(
    statements: Iterable[Statement], verdict: str, read: Callable[[Statement], Claimed] = by_check
) -> Tally:
    """Compare the claims found with those planted, by kind; a claim of another kind is not the one planted.

    Args:
        statements: The statements.
        verdict: "supported" or "contradicted".
        read: Gives the claims found in a statement.
    """
    total = Tally()
    for statement in statements:
        planted = Counter(claim for claim in statement.claims if claim[1] == verdict)
        found = Counter({claim: count for claim, count in read(statement).items() if claim[1] == verdict})
        total.num_right += (planted & found).total()
        total.num_found += found.total()
        total.num_planted += planted.total()
    return total
