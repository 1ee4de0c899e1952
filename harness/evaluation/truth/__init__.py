"""Whether what a text says of a song is so, by the song's facts and lyrics and by what a data set knows."""

from __future__ import annotations

from harness.evaluation.truth.check import check_statements
from harness.evaluation.truth.claims import Claim, ClaimCounts, Verdict, count_claims
from preprocess.knowledge import Knowledge, KnownSong, read_knowledge

__all__ = [
    "Claim",
    "ClaimCounts",
    "Knowledge",
    "KnownSong",
    "Verdict",
    "check_statements",
    "count_claims",
    "read_knowledge",
]
