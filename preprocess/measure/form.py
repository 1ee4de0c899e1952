"""The form of a song: which of its stanzas are the same, which one is the chorus, which line is a refrain.

Two stanzas are the same where they share `SAME_SHARE` of the different lines of the one that has more of them; two
that are headed as a chorus need no more than half. A line is the same whatever its case, its marks, and what it has
in parentheses. Stanzas are compared with the first of each letter, in order, so the outcome does not depend on
anything but the lyrics.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from preprocess.measure.sections import CHORUS_KINDS

SAME_SHARE = (2, 3)
"""Of a stanza's different lines, so many (as a fraction) in common make two stanzas the same."""

SAME_CHORUS_SHARE = (1, 2)

MIN_REFRAIN_WORDS = 2


@dataclass(frozen=True, slots=True)
class Stanza:
    """A section as far as its form goes.

    Attributes:
        kind: What its heading calls it, or "".
        lines: Its lines as written.
        keys: The words of each line, in parentheses left out, one space between them.
    """

    kind: str
    lines: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """How a song is built.

    Attributes:
        letters: A letter for every stanza, as in "ABABCB": the same letter for the same stanza, in order of coming
            up. "" for fewer than two stanzas, and for more than 26 different ones.
        num_distinct_stanzas: Stanzas that differ.
        chorus: The lines of the chorus where it first comes up; () without one.
        num_choruses: How often it comes; 0 without one.
        is_headed: Whether headings call it so. Otherwise it is the stanza that returns most often.
        refrain: The line that ends (or begins) at least two of the different stanzas, and half of those that are not
            the chorus, as first written; None without one.
        num_refrains: How many different stanzas it ends or begins.
        refrain_place: "last" or "first" in its stanzas, or "".
    """

    letters: str
    num_distinct_stanzas: int
    chorus: tuple[str, ...]
    num_choruses: int
    is_headed: bool
    refrain: str | None
    num_refrains: int
    refrain_place: str


def find_form(stanzas: Sequence[Stanza]) -> Form:
    """Compare the stanzas of a song, each with the first of every kind."""
    groups = group_stanzas(stanzas)
    num_groups = max((group for group in groups if group is not None), default=-1) + 1
    sung = [group for group in groups if group is not None]
    is_headed, chorus, num_choruses = _find_chorus(stanzas, groups)
    firsts = dict(zip(reversed(groups), reversed(stanzas), strict=True))
    others = [firsts[group] for group in range(num_groups) if group != chorus]
    refrain, num_refrains, place = _find_refrain(others)
    return Form(
        letters="".join(string.ascii_uppercase[group] for group in sung)
        if len(sung) > 1 and num_groups <= 26
        else "",
        num_distinct_stanzas=num_groups,
        chorus=() if chorus is None else firsts[chorus].lines,
        num_choruses=num_choruses,
        is_headed=is_headed,
        refrain=refrain,
        num_refrains=num_refrains,
        refrain_place=place,
    )


def group_stanzas(stanzas: Sequence[Stanza]) -> list[int | None]:
    """For each stanza the number of its group: 0 for the first, the same for the same.

    A heading without lines stands for the stanza last headed so, and has no group where none was.
    """
    groups: list[int | None] = []
    firsts: list[tuple[frozenset[str], str]] = []
    by_kind: dict[str, int] = {}
    for stanza in stanzas:
        if not stanza.keys:
            groups.append(by_kind.get(stanza.kind))
            continue
        keys = frozenset(stanza.keys)
        group = next(
            (n for n, (other, kind) in enumerate(firsts) if _is_same(keys, other, stanza.kind, kind)), None
        )
        if group is None:
            group = len(firsts)
            firsts.append((keys, stanza.kind))
        by_kind[stanza.kind] = group
        groups.append(group)
    return groups


def _is_same(keys: frozenset[str], other: frozenset[str], kind: str, other_kind: str) -> bool:
    numerator, denominator = SAME_CHORUS_SHARE if kind == other_kind and kind in CHORUS_KINDS else SAME_SHARE
    return len(keys & other) * denominator >= numerator * max(len(keys), len(other))


def _find_chorus(stanzas: Sequence[Stanza], groups: Sequence[int | None]) -> tuple[bool, int | None, int]:
    """Whether headings name it, its group, and how often it comes."""
    kinds = [stanza.kind for stanza in stanzas]
    for kind in CHORUS_KINDS:
        if kind in kinds:
            headed = [
                group for group, its in zip(groups, kinds, strict=True) if its == kind and group is not None
            ]
            return True, headed[0] if headed else None, kinds.count(kind)
    counts = Counter(
        group
        for group, stanza in zip(groups, stanzas, strict=True)
        if group is not None and len(stanza.keys) > 1
    )
    if len(counts) < 2:
        return False, None, 0
    group, count = counts.most_common(1)[0]
    return (False, group, count) if count > 1 else (False, None, 0)


def _find_refrain(stanzas: Sequence[Stanza]) -> tuple[str | None, int, str]:
    longer = [stanza for stanza in stanzas if len(stanza.keys) > 1]
    for index, place in ((-1, "last"), (0, "first")):
        counts = Counter(stanza.keys[index] for stanza in longer)
        for key, count in counts.most_common(1):
            if count > 1 and 2 * count >= len(longer) and key.count(" ") + 1 >= MIN_REFRAIN_WORDS:
                line = next(stanza.lines[index] for stanza in longer if stanza.keys[index] == key)
                return line, count, place
    return None, 0, ""
