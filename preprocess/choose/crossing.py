"""The proof that no song, cover or near-duplicate crosses a split: exact, by comparing sets of shingles, not sketches.

    evaluation songs ── shingles ── sorted, each with the songs that have it
    training songs, streamed past ── their shingles looked up ── pairs that share enough of the rarer ones ── compared

Two songs cross when they share half of all their shingles (Jaccard similarity), or when the shorter one has nearly all
of its own in the longer one: the first half of a song crosses, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from preprocess.choose.duplicates import SIMILARITY
from preprocess.choose.order import rank_within
from preprocess.choose.shingles import ShingleSets, Uint64Array, shingle_songs
from preprocess.schema import BoolArray, Int32Array, Int64Array

CONTAINMENT = 0.8
"""Share of the shorter song's shingles that the longer one has, from which the shorter is a part of it."""

MIN_PART_SHINGLES = 12
"""A song of fewer different shingles ("la la la la") is part of no other: it is only compared as a whole."""

_PREFIX_SHARE = 0.08
# The more shingles a pair must share to be looked at, the more of the common ones are looked up.

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

    Counting all shared shingles of all pairs would be slow: the common ones ("i want to") are in every tenth song. A
    pair is counted only when it shares enough of the rarer ones. Of two sets that share at least m of the n shingles of
    one of them, at least m - (n - r) are among any r of these n (the prefix filter of Chaudhuri, Ganti, Kaushik 2006,
    with the count of Wang, Li, Feng 2012): nothing is missed.

    Memory: some 30 bytes for each different shingle of each evaluation song, 5 KiB a song, and a table of at most
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
        hashes: list[Uint64Array] = [np.zeros(0, np.uint64)]
        sizes: list[Int64Array] = [np.zeros(0, np.int64)]
        for ids, sets in shingle_songs(evaluation):
            self._ids += ids
            hashes.append(sets.hashes)
            sizes.append(np.diff(sets.starts))
        self._sizes = np.concatenate(sizes)
        self._sets = ShingleSets(np.concatenate(hashes), np.r_[0, np.cumsum(self._sizes)].astype(np.int64))
        self._build(self._sets.hashes)

    def __len__(self) -> int:
        return len(self._ids)

    def _build(self, hashes: Uint64Array) -> None:
        owner = np.repeat(np.arange(len(self._ids), dtype=np.int32), self._sizes)
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        ordered = hashes[order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(hashes)])
        self._keys = ordered[first]
        self._all = _Postings(owner[order], np.r_[first, len(hashes)].astype(np.int32))
        num_owners = np.repeat(self._all.num_owners, self._all.num_owners)
        num_rare, _ = _prefix(self._sizes, min(self._threshold, self._containment))
        self._num_common = self._sizes - num_rare
        is_rare = _rarest(owner[order], num_owners, num_rare)
        before = np.r_[0, np.cumsum(is_rare)].astype(np.int32)
        self._rare = _Postings(owner[order][is_rare], before[self._all.starts])
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
            for pair in self._find_candidates(sets).tolist():
                crossing = self._compare(ids, sets, *divmod(pair, len(self)))
                if crossing:
                    yield crossing

    def _compare(self, ids: list[str], sets: ShingleSets, train: int, evaluation: int) -> Crossing | None:
        own, other = sets.of(train), self._sets.of(evaluation)
        num_shared = len(np.intersect1d(own, other, assume_unique=True))
        shorter = min(len(own), len(other))
        similarity = num_shared / (len(own) + len(other) - num_shared)
        contained = num_shared / shorter
        kind: Kind
        if similarity >= self._threshold:
            kind = "copy" if similarity == 1 else "near-duplicate"
        elif contained >= self._containment and shorter >= MIN_PART_SHINGLES:
            kind = "part"
        else:
            return None
        return Crossing(self._ids[evaluation], ids[train], similarity, contained, kind)

    def _find_candidates(self, sets: ShingleSets) -> Int64Array:
        """Pairs that may cross, as training song times the number of evaluation songs + evaluation song, ascending."""
        found = np.flatnonzero(self._may_have[sets.hashes >> self._shift])
        place = np.searchsorted(self._keys, sets.hashes[found])
        known = place < len(self._keys)
        known[known] = self._keys[place[known]] == sets.hashes[found[known]]
        found, place = found[known], place[known]
        train = (np.searchsorted(sets.starts, found, side="right") - 1).astype(np.int32)
        sizes = np.diff(sets.starts)
        # Either a good part of the evaluation song is shared …
        values, counts = self._rare.count_pairs(train, place, len(self))
        similar = values[counts >= self._least_shared(values, sizes)]
        # … or most of a training song that is shorter; its shingles that are not found are its rarest.
        num_rare, min_shared = _prefix(sizes, self._containment)
        num_found = np.bincount(train, minlength=len(sizes))
        is_rare = _rarest(train, self._all.num_owners[place], num_rare - sizes + num_found)
        values, counts = self._all.count_pairs(train[is_rare], place[is_rare], len(self))
        contained = values[counts >= min_shared[values // max(1, len(self))]]
        return np.union1d(similar, contained)

    def _least_shared(self, pairs: Int64Array, sizes: Int64Array) -> npt.NDArray[np.float64]:
        """How many of an evaluation song's rare shingles a pair shares at least if it crosses.

        Left out is the case of a training song that is contained in a longer evaluation song.
        """
        train, evaluation = np.divmod(pairs, max(1, len(self)))
        own, other = sizes[train], self._sizes[evaluation]
        similar = self._threshold / (1 + self._threshold) * (own + other)
        contained = np.where(own >= other, self._containment * other, np.inf)
        least: npt.NDArray[np.float64] = np.minimum(similar, contained) - self._num_common[evaluation]
        return least - 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class _Postings:
    """Which songs have each of K shingles.

    Attributes:
        owners: int32[P], songs, those of one shingle behind those of the other.
        starts: int32[K + 1].
    """

    owners: Int32Array
    starts: Int32Array

    @property
    def num_owners(self) -> Int32Array:
        return np.diff(self.starts)

    def count_pairs(
        self, train: Int32Array, place: Int64Array, num_owners: int
    ) -> tuple[Int64Array, Int64Array]:
        """How many shingles each pair shares, of training songs that have the shingles at these places."""
        starts = self.starts[place].astype(np.int64)
        sizes = self.starts[place + 1] - starts
        at = np.arange(int(sizes.sum())) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
        pairs = np.repeat(train * np.int64(num_owners), sizes) + self.owners[at]
        values, counts = np.unique(pairs, return_counts=True)
        return values, counts


def _prefix(sizes: Int64Array, share: float) -> tuple[Int64Array, Int64Array]:
    """Of sets of n: r of their shingles, and how many of these r are shared by a set that shares `share` of all n."""
    min_shared = np.ceil(sizes * share - 1e-9).astype(np.int64)
    in_prefix = np.minimum(np.ceil(sizes * _PREFIX_SHARE).astype(np.int64), min_shared)
    num_rare: Int64Array = sizes - min_shared + in_prefix
    return num_rare, in_prefix


def _rarest(owner: Int32Array, num_owners: Int32Array, num_rare: Int64Array) -> BoolArray:
    """Which of the shingles of some sets are among the rarest of theirs.

    Args:
        owner: int32[P], whose each shingle is.
        num_owners: int32[P], how many evaluation songs have it.
        num_rare: int64[N], how many of each set's are wanted.
    """
    order = np.lexsort((num_owners, owner))
    ordered = owner[order]
    chosen = np.zeros(len(owner), np.bool_)
    chosen[order] = rank_within(ordered) < num_rare[ordered]
    return chosen


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
