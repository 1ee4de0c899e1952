"""How rich the vocabulary of a song is, by a measure that its length does not move, and its most frequent words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from preprocess.measure.words import STOP_WORDS

WINDOW = 50
"""Words in a window of the moving average."""


def moving_average_type_ratio(words: Sequence[str], window: int = WINDOW) -> float | None:
    """Different words per word in a window of `window` words, averaged over every window; None for fewer words.

    The plain ratio of different words falls with the length of a text; this does not. MATTR: Covington and McFall
    (2010), "Cutting the Gordian Knot: The Moving-Average Type-Token Ratio", Journal of Quantitative Linguistics
    17(2). In time linear in the length.
    """
    if len(words) < window:
        return None
    # A word counts in every window in which it comes up first: those that begin after its last occurrence.
    last_start = len(words) - window
    latest: dict[str, int] = {}
    total = 0
    for place, word in enumerate(words):
        first = latest.get(word, -1) + 1
        latest[word] = place
        if first <= place - window:
            first = place - window + 1
        if first <= last_start:
            total += min(place, last_start) - first + 1
    return total / (window * (last_start + 1))


def find_frequent_words(words: Counter[str], num: int = 5) -> tuple[tuple[str, int], ...]:
    """Words outside `STOP_WORDS` that occur at least twice, the most frequent first, with counts."""
    telling = [
        (word, count)
        for word, count in words.items()
        if count > 1 and len(word) > 1 and word not in STOP_WORDS
    ]
    return tuple(sorted(telling, key=lambda item: (-item[1], item[0]))[:num])
