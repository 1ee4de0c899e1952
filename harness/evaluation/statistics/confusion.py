"""Which name is taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

NO_ANSWER = "(no answer)"
"""Stands for an answer in which no name could be read."""


def count_answers(pairs: Iterable[tuple[str, str | None]]) -> dict[str, dict[str, int]]:
    """True name → given name → songs, both in the order of the alphabet.

    Args:
        pairs: The true name and the one that was given; None for none.
    """
    counts: dict[str, Counter[str]] = {}
    for truth, given in pairs:
        counts.setdefault(truth, Counter())[NO_ANSWER if given is None else given] += 1
    return {truth: dict(sorted(counts[truth].items())) for truth in sorted(counts)}
