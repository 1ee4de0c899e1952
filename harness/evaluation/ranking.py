"""How likely a model finds each of a closed set of answers, a song's questions together in a forward pass.

In a pass a song's lyrics are computed once, each question once, and only what tells the candidates apart once a
candidate; what does not fit into one pass takes more of them, each with the lyrics again::

    lyrics ─┬─ question "artist" + "The artist is" ─┬─ " Ada Vale."
            │                                       └─ " Nine Roads."
            └─ question "genre"  + "The genre is"  ─┬─ " Folk."
                                                    └─ " Rock."

A candidate's score is the sum of the log-probabilities of its tokens, the shared ones included. Unlike in training,
the first token of a segment is scored too: it is predicted from the last slot of its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from harness.data import collate
from harness.evaluation.questions import Question
from harness.head import token_losses
from harness.loss import ForestLanguageModel
from preprocess.forest import PackedRow, segment_starts
from preprocess.prompt import PromptFormat, encode_pieces
from preprocess.schema import ROOT, BoolArray, Int64Array
from preprocess.tokenizer import TextTokenizer

Ids = tuple[int, ...]
Scores = dict[Question, list[float]]
"""For each question the score of each of its task's candidates, in nats."""


def encode_candidates(
    tokenizer: TextTokenizer, prompt: PromptFormat, stem: str, names: Iterable[str]
) -> list[Ids]:
    """Ids of "<stem><name>." for each name, as an answer's beginning is encoded, without the stop token."""
    return [tuple(encode_pieces(tokenizer, prompt.answer(f"{stem}{name}."))[:-1]) for name in names]


def common_prefix(candidates: Sequence[Ids]) -> Ids:
    """The ids that all candidates begin with, short enough that each keeps at least one id of its own."""
    columns = zip(*(candidate[:-1] for candidate in candidates), strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


@dataclass(frozen=True, slots=True)
class Ballot:
    """A question with some of its candidates (all of them, unless they are too many for one row).

    Attributes:
        question: The question.
        first: Index of the first of these candidates among all of the task's.
        candidates: Their ids.
    """

    question: Question
    first: int
    candidates: tuple[Ids, ...]

    @property
    def num_slots(self) -> int:
        """Slots that it takes beside the prefix."""
        shared = len(common_prefix(self.candidates))
        own = sum(len(candidate) - shared for candidate in self.candidates)
        return len(self.question.ids) + shared + own


@dataclass(slots=True)
class CandidateForest:
    """A row under construction, and which of its segments score what.

    Attributes:
        ids: Ids of each segment.
        parents: Index of the segment that each one continues.
        num_scored: How many of a segment's last tokens belong to candidates.
        leaves: For each ballot, the segment of its first candidate; the others follow it.
        prefixes: Segment of each prefix that is in the row.
        num_slots: Tokens so far.
    """

    ids: list[Ids] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    num_scored: list[int] = field(default_factory=list)
    leaves: list[tuple[Ballot, int]] = field(default_factory=list)
    prefixes: dict[Ids, int] = field(default_factory=dict)
    num_slots: int = 0

    def add(self, ballot: Ballot) -> None:
        """Hang a question under its prefix, and its candidates under the question."""
        question, shared = ballot.question, common_prefix(ballot.candidates)
        above = ROOT
        if question.prefix:
            if question.prefix not in self.prefixes:
                self.prefixes[question.prefix] = self._append(question.prefix, ROOT, 0)
            above = self.prefixes[question.prefix]
        trunk = self._append(question.ids + shared, above, len(shared))
        self.leaves.append((ballot, trunk + 1))
        for candidate in ballot.candidates:
            own = candidate[len(shared) :]
            self._append(own, trunk, len(own))

    def _append(self, ids: Ids, parent: int, num_scored: int) -> int:
        self.ids.append(ids)
        self.parents.append(parent)
        self.num_scored.append(num_scored)
        self.num_slots += len(ids)
        return len(self.ids) - 1

    def to_row(self) -> PackedRow:
        """The row, with nothing supervised: its scored tokens are not training's."""
        return PackedRow(
            input_ids=np.array([id_ for ids in self.ids for id_ in ids], dtype=np.int32),
            label_mask=np.zeros(self.num_slots, dtype=np.bool_),
            seq_lens=np.array([len(ids) for ids in self.ids], dtype=np.int32),
            parents=np.array(self.parents, dtype=np.int32),
            tasks=np.full(len(self.ids), -1, dtype=np.int32),
            song_ids=("",) * len(self.ids),
        )

    def scored_slots(self) -> BoolArray:
        """bool[T]: true where a slot's token belongs to a candidate."""
        flags = [
            i >= len(ids) - n
            for ids, n in zip(self.ids, self.num_scored, strict=True)
            for i in range(len(ids))
        ]
        return np.array(flags, dtype=np.bool_)

    def read_scores(self, by_segment: Sequence[float]) -> Iterator[tuple[Ballot, list[float]]]:
        """Each ballot with its candidates' scores, from the summed log-probabilities of each segment."""
        for ballot, first in self.leaves:
            trunk = by_segment[self.parents[first]]
            yield ballot, [trunk + by_segment[first + i] for i in range(len(ballot.candidates))]


def previous_slots(row: PackedRow) -> Int64Array:
    """int64[T]: the slot that predicts each slot, across segments: before a child's first its parent's last.

    A root's first slot has none: -1.
    """
    starts = segment_starts(row).astype(np.int64)
    ends = starts + row.seq_lens - 1
    previous = np.arange(len(row.input_ids), dtype=np.int64) - 1
    previous[starts] = np.where(row.parents == ROOT, -1, ends[row.parents])
    return previous


def find_room(questions: Iterable[Question], max_slots: int) -> int:
    """Slots of a row with so many beside the longest prompt: however long the lyrics, names have the same room."""
    return max_slots + max((len(question.prompt) for question in questions), default=0)


def plan_forests(
    questions: Iterable[Question], candidates: Mapping[str, Sequence[Ids]], max_slots: int
) -> Iterator[CandidateForest]:
    """Lay questions with their candidates out in rows, keeping a song in one row where it fits.

    Args:
        questions: Questions, those of a song next to each other.
        candidates: For each task the ids of all candidates.
        max_slots: Slots of a row. A row exceeds it only where a single candidate does.
    """
    forest = CandidateForest()
    for _, group in groupby(questions, key=lambda question: question.song_id):
        ballots = [b for q in group for b in split_ballots(q, candidates[q.task], max_slots)]
        for is_first, ballot in ((i == 0, ballot) for i, ballot in enumerate(ballots)):
            needed = slots_of(ballots if is_first else [ballot], forest)
            if forest.leaves and forest.num_slots + needed > max_slots:
                yield forest
                forest = CandidateForest()
            forest.add(ballot)
    if forest.leaves:
        yield forest


def slots_of(ballots: Sequence[Ballot], forest: CandidateForest) -> int:
    """Slots that ballots would add to a row, each new prefix once."""
    new = {ballot.question.prefix for ballot in ballots} - forest.prefixes.keys()
    return sum(map(len, new)) + sum(ballot.num_slots for ballot in ballots)


def split_ballots(question: Question, candidates: Sequence[Ids], max_slots: int) -> Iterator[Ballot]:
    """A question's candidates in as few runs as a row of `max_slots` needs, in their order."""
    room = max_slots - len(question.prefix) - len(question.ids) - len(common_prefix(candidates))
    shared, first, used = len(common_prefix(candidates)), 0, 0
    for i, candidate in enumerate(candidates):
        length = len(candidate) - shared
        if i > first and used + length > room:
            yield Ballot(question, first, tuple(candidates[first:i]))
            first, used = i, 0
        used += length
    yield Ballot(question, first, tuple(candidates[first:]))


class PreciseHead(nn.Module):
    """A head whose logits are float32 whatever the model's precision (float64 stays).

    bfloat16 logits of about 20 lie 0.125 apart, which is more than often parts two candidates.

    Args:
        head: From hidden states to logits, with its adapter if it has one; its switches stay in force.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        dtypes = {name: torch.promote_types(p.dtype, torch.float32) for name, p in head.named_parameters()}
        self._weights = {name: p.detach().to(dtypes[name]) for name, p in head.named_parameters()}
        self._dtype = max(dtypes.values(), key=lambda dtype: dtype.itemsize)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, V]: logits of hidden states [N, H]."""
        logits = functional_call(self.head, self._weights, (hidden.to(self._dtype),))
        return cast("torch.Tensor", logits)


class CandidateScorer:
    """Scores the candidates of planned rows with one model.

    Args:
        causal: A causal model with `.model` and `.lm_head`.
        chunk: Tokens whose logits exist at a time.
    """

    def __init__(self, causal: nn.Module, chunk: int = 256) -> None:
        self.model = ForestLanguageModel(causal, chunk)
        self.head = PreciseHead(cast("nn.Module", causal.lm_head))
        self.device = next(causal.parameters()).device

    @torch.inference_mode()
    def score(self, forest: CandidateForest, scores: Scores) -> None:
        """Put the scores of a row's candidates where they belong.

        Args:
            forest: A planned row.
            scores: Gets, for each question of the row, the scores of these candidates at their places.
        """
        row = forest.to_row()
        slots = np.flatnonzero(forest.scored_slots())
        sources = torch.from_numpy(previous_slots(row)[slots]).to(self.device)
        targets = torch.from_numpy(row.input_ids[slots].astype(np.int64)).to(self.device)
        hidden = self.model.hidden_states(collate([row]).to(self.device))[0]
        losses = token_losses(
            lambda part, _: self.head(part), hidden[sources], targets, self.model.loss_chunk
        )
        segment = np.repeat(np.arange(len(row.seq_lens)), row.seq_lens)[slots]
        by_segment = np.bincount(segment, weights=-losses.double().cpu().numpy(), minlength=len(row.seq_lens))
        for ballot, found in forest.read_scores(by_segment.tolist()):
            known = scores.setdefault(ballot.question, [])
            assert len(known) == ballot.first, "a question's candidates come in order"
            known += found
