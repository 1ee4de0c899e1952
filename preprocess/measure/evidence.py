"""The words of a song that show a theme or a mood, weighed by a lexicon.

A strong word or a phrase shows its theme by itself; a weak word ("heart", "burn") counts half, and only in company: of
a strong one of its theme, or of two more weak ones. Words in certain phrases do not count ("oh my god"), nor do those
that are denied ("I don't love you"), and words that mean something else in a religious song do not count in one. Weak
words alone show a sacred theme in a religious song only: many are of every day ("blood", "price"). A word that several
themes claim counts for each in part; every weight is multiplied by 1 + ln(occurrences), which keeps one word of a
chorus from outweighing five different ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from preprocess.measure.lexicons import Lexicon
from preprocess.measure.sung import SungSong, split_song

MIN_WORDS = 2
"""A theme needs this many different evidence words, or `MIN_HITS` occurrences of strong ones, phrases counted twice."""

MIN_HITS = 3

MIN_WEAK_WORDS = 3
"""So many different weak words of a theme show it without a strong one."""

MIN_SACRED_WORDS = 3
"""A song with so many different strong words or phrases of the sacred themes is read as a religious one."""

NUM_DENIED = 3
"""A negation denies so many words after it in its line, where nothing ends it."""

_NEGATIONS = frozenset(
    [
        "not",
        "never",
        "no",
        "without",
        "nothing",
        "cannot",
        "ain't",
        "aren't",
        "can't",
        "couldn't",
        "didn't",
        "doesn't",
        "don't",
        "hadn't",
        "hasn't",
        "haven't",
        "isn't",
        "shouldn't",
        "wasn't",
        "weren't",
        "won't",
        "wouldn't",
    ]
)
_ENDS = frozenset(
    [
        "but",
        "only",
        "because",
        "'cause",
        "until",
        "till",
        "than",
        "if",
        "i",
        "i'm",
        "i'll",
        "i've",
        "i'd",
        "stop",
        "stops",
        "stopped",
        "stopping",
        "quit",
        "help",
        "wait",
        "lose",
        "losing",
        "forget",
        "matter",
    ]
)
# After these a negation says nothing of what follows, or the contrary: "can't help loving", "never lose hope".

_SUBJECTS = frozenset(
    ["you", "he", "she", "we", "they", "it", "you're", "he's", "she's", "we're", "they're", "it's"]
)
# After them "no" is an answer: "no, you love me".

Evidence = dict[str, dict[str, float]]
"""Theme → evidence word or phrase → its weight."""


@dataclass(slots=True)
class _Found:
    """What was found of one theme: words by weight, and occurrences of the strong ones, phrases counted twice."""

    strong: dict[str, float] = field(default_factory=dict)
    weak: dict[str, float] = field(default_factory=dict)
    num_hits: int = 0


def find_evidence(lyrics: str, lexicon: Lexicon, *, keep_weak: bool = False) -> Evidence:
    """Collect for every theme the words and phrases of the lyrics that show it.

    Linear in the length of the lyrics; empty for lyrics that are not English.

    Args:
        lyrics: The lyrics; headings are not read.
        lexicon: Whose words to look for.
        keep_weak: Also give themes with fewer than `MIN_WORDS` words and `MIN_HITS` occurrences, and those that only
            weak words show.
    """
    return evidence_of(split_song(lyrics), lexicon, keep_weak=keep_weak)


def evidence_of(song: SungSong, lexicon: Lexicon, *, keep_weak: bool = False) -> Evidence:
    """As `find_evidence`, of a song that is split already."""
    if not song.is_english:
        return {}
    phrases, excluded = _find_phrases(song.words_by_line, lexicon)
    found = _collect(song.words, phrases, excluded, lexicon)
    num_sacred = sum(len(found[theme].strong) for theme in lexicon.sacred if theme in found)
    if num_sacred >= MIN_SACRED_WORDS:
        _drop_secular(found, lexicon)
    return {
        theme: {**its.strong, **its.weak}
        for theme, its in found.items()
        if keep_weak
        or (
            _has_company(its, num_sacred if theme in lexicon.sacred else None)
            and _is_shown(its, lexicon.needs.get(theme))
        )
    }


def _has_company(its: _Found, num_sacred: int | None) -> bool:
    """Whether the weak words of a theme count.

    Args:
        its: What was found of it.
        num_sacred: For a sacred theme, the strong words and phrases of all sacred themes; else None.
    """
    if num_sacred is not None:
        return bool(its.strong) or num_sacred >= MIN_SACRED_WORDS
    return bool(its.strong) or len(its.weak) >= MIN_WEAK_WORDS


def _is_shown(its: _Found, needs: int | None) -> bool:
    """Whether what was found of a theme is enough to say so."""
    num_words = len(its.strong) + len(its.weak)
    return num_words >= needs if needs else num_words >= MIN_WORDS or its.num_hits >= MIN_HITS


def _find_phrases(
    words_by_line: Sequence[list[str]], lexicon: Lexicon
) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Occurrences of (theme, phrase), and of (theme, word) where the word is denied or its phrase excepted."""
    shown: Counter[tuple[str, str]] = Counter()
    excluded: Counter[tuple[str, str]] = Counter()
    openings = lexicon.phrases
    for words in words_by_line:
        unread: set[tuple[str, int]] = set()
        denied: Sequence[int] = ()
        if lexicon.deniable and not _NEGATIONS.isdisjoint(words):
            denied = list(_find_denied(words))
            for place in denied:
                themes = lexicon.themes_of(words[place])
                unread.update((theme, place) for theme in themes if theme in lexicon.deniable)
        for index, (first, second) in enumerate(pairwise(words)):
            after = openings.get(first)
            if after is None or second not in after:
                continue
            for rest, theme, inside in after[second]:
                if rest and tuple(words[index + 2 : index + 2 + len(rest)]) != rest:
                    continue
                if inside:
                    places = range(index, index + 2 + len(rest))
                    unread.update((theme, place) for place in places if words[place] in inside)
                elif index not in denied or theme not in lexicon.deniable:
                    shown[theme, " ".join((first, second, *rest))] += 1
        if unread:
            excluded.update((theme, words[place]) for theme, place in unread)
    return shown, excluded


def _find_denied(words: Sequence[str]) -> Iterator[int]:
    """The places of the words of a line that a negation before them denies."""
    left = 0
    for place, word in enumerate(words):
        if word in _NEGATIONS:
            # "I can't live without your love"
            left = 0 if left and word == "without" else NUM_DENIED
        elif word in _ENDS or (word in _SUBJECTS and words[place - 1] == "no"):
            left = 0
        elif left:
            left -= 1
            yield place


def _collect(
    words: Counter[str],
    phrases: Counter[tuple[str, str]],
    excluded: Counter[tuple[str, str]],
    lexicon: Lexicon,
) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for (theme, phrase), count in phrases.items():
        its = found.setdefault(theme, _Found())
        its.strong[phrase] = 1 + math.log(count)
        its.num_hits += 2 * count
    known = lexicon.known
    for word, count in words.items():
        # Most words claim nothing, and are known to.
        claims = known.get(word)
        for theme, weight, is_weak, _ in lexicon.claims_of(word) if claims is None else claims:
            left = count - excluded[theme, word] if excluded else count
            if left > 0:
                its = found.setdefault(theme, _Found())
                (its.weak if is_weak else its.strong)[word] = weight * (1 + math.log(left))
                its.num_hits += 0 if is_weak else left
    return found


def _drop_secular(found: dict[str, _Found], lexicon: Lexicon) -> None:
    for theme, its in found.items():
        for words in (its.strong, its.weak):
            for word in list(words):
                if any(claim.theme == theme and claim.is_secular for claim in lexicon.claims_of(word)):
                    del words[word]
