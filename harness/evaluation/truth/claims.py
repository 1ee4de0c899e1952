"""What the truth check finds in a text: claims, each with a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "contradicted", "not checkable"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a text says, and whether it is so.

    Attributes:
        kind: What it is about: "artist", "genre", "decade", "year", "album", "title", "language", "theme", "mood",
            "words" (what is sung, and how often), "form" (lines, sections, rhymes), "figures" (shares of the songs
            counted), "similar" (another song that is named); "none" for a sentence in which nothing can be checked.
        start: Where it begins in the text, in characters.
        end: Where it ends.
        text: The text from `start` to `end`.
        verdict: "not checkable" where neither the lyrics nor the data set tell.
        why: What the verdict rests on, in words for a reader.
    """

    kind: str
    start: int
    end: int
    text: str
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class ClaimCounts:
    """How many claims are so, are not so, and cannot be told."""

    supported: int
    contradicted: int
    not_checkable: int

    @property
    def hallucination_rate(self) -> float | None:
        """Contradicted claims per claim that can be checked, 0 to 1; None where there is none."""
        checkable = self.supported + self.contradicted
        return self.contradicted / checkable if checkable else None


def count_claims(claims: Iterable[Claim]) -> ClaimCounts:
    """Count the verdicts of some claims, of one text or of many."""
    counts = Counter(claim.verdict for claim in claims)
    return ClaimCounts(counts["supported"], counts["contradicted"], counts["not checkable"])
