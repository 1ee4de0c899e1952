"""The proof that no song, cover or near-duplicate crosses a split: exact, by comparing sets of shingles, not sketches.

    evaluation songs ── shingles ── sorted, each with the songs that have it
    training songs, streamed past ── their shingles looked up ── shared shingles counted for every pair that has any

Two songs cross when they share half of all their shingles (Jaccard similarity), or when the shorter one has nearly all
of its own in the longer one: the first half of a song crosses, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from preprocess.choose.duplicates import SIMILARITY
from preprocess.choose.shingles import ShingleSets, Uint64Array, shingle_songs
from preprocess.schema import BoolArray, Int64Array

CONTAINMENT = 0.8
"""Share of the shorter song's shingles that the longer one has, from which the shorter is a part of it."""

MIN_PART_SHINGLES = 12
"""A song of fewer different shingles ("la la la la") is part of no other: it is only compared as a whole."""

_MIN_TABLE_BITS, _MAX_TABLE_BITS = 16, 26

Kind = Literal["copy", "near-duplicate", "part"]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A song of one split that another split has, too.

    Attributes:
        eval_id: Its id among the evaluation songs.
        train_id: Its id among the training songs.
        similarity: Jaccard similarity of their sets of shingles, 0 to 1.
        containment: Shared shingles over those of the song that has fewer, 0 to 1.
        kind: "copy": the same shingles; "near-duplicate": similar enough; "part": one is contained in the other.
    """

    eval_id: str
    train_id: str
    similarity: float
    containment: float
    kind: Kind


class CrossingIndex:
    """Evaluation songs, ready to be looked for among any number of others.

    Memory: about 20 bytes for each different shingle of an evaluation song, some 4 KiB a song, and a table of at most
    64 MiB.
    """

    def __init__(
        self,
        evaluation: Iterable[tuple[str, str]],
        threshold: float = SIMILARITY,
        containment: float = CONTAINMENT,
    ) -> None:
        """Index songs.

        Args:
            evaluation: (id, lyrics) of each; lyrics are any text, cleaned or not, with headings or without.
            threshold: Jaccard similarity from which songs cross, above 0.
            containment: Contained share of the shorter song from which songs cross, above 0.
        """
        self._threshold, self._containment = threshold, containment
        self._ids: list[str] = []
        hashes: list[Uint64Array] = []
        sizes: list[Int64Array] = []
        for ids, sets in shingle_songs(evaluation):
            self._ids += ids
            hashes.append(sets.hashes)
            sizes.append(np.diff(sets.starts))
        self._sizes = np.concatenate(sizes) if sizes else np.zeros(0, np.int64)
        self._build(np.concatenate(hashes) if hashes else np.zeros(0, np.uint64))

    def __len__(self) -> int:
        return len(self._ids)

    def _build(self, hashes: Uint64Array) -> None:
        owner = np.repeat(np.arange(len(self._ids), dtype=np.int32), self._sizes)
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        self._owners = owner[order]
        first = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]][: len(hashes)])
        self._keys = hashes[first]
        self._starts = np.r_[first, len(hashes)]
        # Most shingles of other songs are none of these: one look into a table of their first bits tells.
        num_bits = min(max(_MIN_TABLE_BITS, len(first).bit_length() + 4), _MAX_TABLE_BITS)
        self._shift = np.uint64(64 - num_bits)
        self._may_have: BoolArray = np.zeros(1 << num_bits, np.bool_)
        self._may_have[self._keys >> self._shift] = True

    def search(self, training: Iterable[tuple[str, str]]) -> Iterator[Crossing]:
        """The pairs that cross, in the order of the training songs, then of the evaluation songs.

        Args:
            training: (id, lyrics) of each, streamed.
        """
        for ids, sets in shingle_songs(training):
            yield from self._search_batch(ids, sets)

    def _search_batch(self, ids: list[str], sets: ShingleSets) -> Iterator[Crossing]:
        sizes = np.diff(sets.starts)
        pairs, num_shared = self._count_shared(sets)
        train, evaluation = np.divmod(pairs, max(1, len(self)))
        own, other = sizes[train], self._sizes[evaluation]
        similarity = num_shared / (own + other - num_shared)
        shorter = np.minimum(own, other)
        contained = num_shared / shorter
        is_part = (contained >= self._containment) & (shorter >= MIN_PART_SHINGLES)
        for place in np.flatnonzero((similarity >= self._threshold) | is_part).tolist():
            value = float(similarity[place])
            whole: Kind = "copy" if value == 1 else "near-duplicate"
            yield Crossing(
                self._ids[int(evaluation[place])],
                ids[int(train[place])],
                value,
                float(contained[place]),
                whole if value >= self._threshold else "part",
            )

    def _count_shared(self, sets: ShingleSets) -> tuple[Int64Array, Int64Array]:
        """Pairs, as training song · E + evaluation song in ascending order, and how many shingles each shares."""
        found = np.flatnonzero(self._may_have[sets.hashes >> self._shift])
        hashes = sets.hashes[found]
        place = np.searchsorted(self._keys, hashes)
        known = place < len(self._keys)
        known[known] = self._keys[place[known]] == hashes[known]
        found, place = found[known], place[known]
        train = np.searchsorted(sets.starts, found, side="right") - 1
        num_owners = self._starts[place + 1] - self._starts[place]
        before = np.cumsum(num_owners) - num_owners
        at = np.arange(int(num_owners.sum())) + np.repeat(self._starts[place] - before, num_owners)
        pairs = np.repeat(train * len(self), num_owners) + self._owners[at]
        values, counts = np.unique(pairs, return_counts=True)
        return values, counts


def find_crossing(
    evaluation: Iterable[tuple[str, str]],
    training: Iterable[tuple[str, str]],
    threshold: float = SIMILARITY,
    containment: float = CONTAINMENT,
) -> list[Crossing]:
    """All pairs of an evaluation song and a training song that are the same song, or nearly, or in part.

    Args:
        evaluation: (id, lyrics) of each of the few songs; they are held as numbers.
        training: (id, lyrics) of each of the many songs, read once.
        threshold: Jaccard similarity of the sets of shingles from which songs cross.
        containment: Share of the shorter song's shingles in the longer one from which songs cross.
    """
    return list(CrossingIndex(evaluation, threshold, containment).search(training))
