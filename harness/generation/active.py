"""The answers that are being generated: prompts come in as forests, each step gives every one of them a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from harness.attention.choice import choose_attention
from harness.attention.layout import Span
from harness.data import MicroBatch, collate
from harness.generation.attention import Decode, Prefill, Sharing, run_pass
from harness.generation.key_values import OwnKeyValues, PrefixKeyValues, read_shape
from harness.generation.prompts import Generated, Prompt
from harness.generation.sampling import Sampling, choose_tokens, open_draws
from harness.generation.schedule import Need, Tree, slots_of
from harness.loss import forest_mask
from preprocess.forest import PackedRow, segment_starts
from preprocess.schema import ROOT

Done = list[tuple[int, Generated]]
"""Prompts' indices, with their answers."""


@dataclass(slots=True, eq=False)
class Answer:
    """An answer that is being generated.

    Attributes:
        index: Of the prompt.
        prompt: The prompt.
        prefix: Keys and values of its prefix, which others share; None where it has none.
        draws: What its tokens are drawn with.
        ids: Its tokens so far, of which the last one is not yet computed.
        logprobs: Of all its tokens so far.
    """

    index: int
    prompt: Prompt
    prefix: PrefixKeyValues | None
    draws: np.random.Generator
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def num_computed(self) -> int:
        """Slots of its row that hold keys and values."""
        return len(self.prompt.ids) + max(len(self.ids) - 1, 0)

    def take(self, token: int, logprob: float, stop_id: int) -> Generated | None:
        """Go on by a token; the answer where that was the last one."""
        self.logprobs.append(logprob)
        if is_finished := token == stop_id:
            return Generated(tuple(self.ids), is_finished, tuple(self.logprobs))
        self.ids.append(token)
        if len(self.ids) < self.prompt.max_new_tokens:
            return None
        return Generated(tuple(self.ids), is_finished, tuple(self.logprobs))


class ActiveAnswers:
    """All answers that are being generated, one row of keys and values each.

    Between two calls the model holds nothing of this, so that it may be used otherwise.

    Args:
        causal: A causal model of transformers, in evaluation mode.
        prompts: All prompts, which trees name by index.
        stop_id: Id of the token that ends an answer.
        sampling: None takes the likeliest token each time.
        max_slots: No more keys and values than these are kept, unless what is active needs more.
    """

    def __init__(
        self,
        causal: nn.Module,
        prompts: Sequence[Prompt],
        stop_id: int,
        sampling: Sampling | None,
        max_slots: int,
    ) -> None:
        self.causal = causal
        self.prompts = prompts
        self.stop_id = stop_id
        self.sampling = sampling
        self.max_slots = max_slots
        self.shape = read_shape(causal)
        self.answers: list[Answer] = []
        with torch.inference_mode():
            self.own = OwnKeyValues(self.shape)

    @property
    def need(self) -> Need:
        """What the active answers need of the keys and values."""
        prefixes = {id(answer.prefix): len(answer.prompt.prefix) for answer in self.answers}
        rows = [slots_of(answer.prompt) for answer in self.answers]
        return Need(sum(prefixes.values()), len(rows), max(rows, default=0))

    @torch.inference_mode()
    def begin(self, trees: Sequence[Tree]) -> Done:
        """Compute the prompts of some trees in one pass, and the first token of each of their answers.

        Returns:
            The answers that were one token, or none.
        """
        first = len(self.answers)
        prefixes = [PrefixKeyValues(self.shape, len(tree.prefix)) if tree.prefix else None for tree in trees]
        for tree, prefix in zip(trees, prefixes, strict=True):
            self.answers += [self._open(index, prefix) for index in tree.prompts]
        need = self.need
        self.own.reserve(need.num_rows, need.row_slots, first, most=self.max_slots - need.prefix_slots)
        row, questions = lay_out(trees, self.prompts)
        batch = collate([row]).to(self.shape.device)
        spans = spans_of(row)
        through = Prefill(
            layout=batch.layout,
            mask=self._dense_mask(batch),
            prefixes=[
                (spans[min(own) - 1], prefix)
                for own, prefix in zip(questions, prefixes, strict=True)
                if prefix is not None
            ],
            own=self.own,
            rows=[
                (spans[segment], first + place)
                for place, segment in enumerate(segment for own in questions for segment in own)
            ],
        )
        wanted = torch.tensor([stop - 1 for (_, stop), _ in through.rows], device=self.shape.device)
        logits = run_pass(self.causal, through, batch.input_ids[0], batch.position_ids[0], wanted)
        return self._take(logits, first)

    @torch.inference_mode()
    def step(self) -> Done:
        """One more token for each active answer.

        Returns:
            The answers that end with it.
        """
        answers, device = self.answers, self.shape.device
        lengths = [answer.num_computed for answer in answers]
        longest = max(lengths) + 1
        places = [row * self.own.row_slots + length for row, length in enumerate(lengths)]
        positions = [len(a.prompt.prefix) + length for a, length in zip(answers, lengths, strict=True)]
        sharings, order = self._share()
        through = Decode(
            own=self.own,
            places=torch.tensor(places, device=device),
            num_slots=longest,
            mask=self._hide(lengths, longest),
            sharings=sharings,
            order=None if order == list(range(len(answers))) else torch.tensor(order, device=device),
        )
        ids, wanted = [answer.ids[-1] for answer in answers], range(len(answers))
        inputs = (torch.tensor(values, device=device) for values in (ids, positions, list(wanted)))
        return self._take(run_pass(self.causal, through, *inputs), 0)

    def _open(self, index: int, prefix: PrefixKeyValues | None) -> Answer:
        prompt = self.prompts[index]
        seed = 0 if self.sampling is None else self.sampling.seed
        return Answer(index, prompt, prefix, open_draws(seed, (*prompt.prefix, *prompt.ids)))

    def _dense_mask(self, batch: MicroBatch) -> torch.Tensor | None:
        """The mask of a forest, where the device has no kernel that does without."""
        shape = self.shape
        kind = choose_attention("auto", shape.device, shape.dtype, shape.head_dim)
        return None if kind == "flash" else forest_mask(batch.entry, batch.exit)

    def _hide(self, lengths: Sequence[int], longest: int) -> torch.Tensor | None:
        """[N, 1, 1, longest]: -inf behind the slot that comes after each row's; see `Decode.mask`."""
        if min(lengths) + 1 == longest:
            return None
        hidden = torch.arange(longest)[None] > torch.tensor(lengths)[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.shape.dtype).masked_fill_(hidden, float("-inf"))
        return mask[:, None, None].to(self.shape.device)

    def _share(self) -> tuple[list[Sharing], list[int]]:
        """The prefixes with the places of their answers, and the rows in the order of these places."""
        rows: dict[int, list[int]] = {}
        for row, answer in enumerate(self.answers):
            if answer.prefix is not None:
                rows.setdefault(id(answer.prefix), []).append(row)
        sharings, order = [], list[int]()
        for own in rows.values():
            prefix = self.answers[own[0]].prefix
            assert prefix is not None
            sharings.append(Sharing(prefix, len(order), len(order) + len(own)))
            order += own
        return sharings, order

    def _take(self, logits: torch.Tensor, first: int) -> Done:
        """Give a token to each answer from a row on; those that end leave."""
        chosen = choose_tokens(logits, [answer.draws for answer in self.answers[first:]], self.sampling)
        done: Done = []
        ended: list[int] = []
        for row, (token, logprob) in enumerate(zip(*chosen, strict=True), start=first):
            answer = self.answers[row]
            if (generated := answer.take(token, logprob, self.stop_id)) is not None:
                done.append((answer.index, generated))
                ended.append(row)
        for row in reversed(ended):
            self._leave(row)
        return done

    def _leave(self, row: int) -> None:
        """Let the last row's answer take the place of one that has ended."""
        last = self.answers.pop()
        if row < len(self.answers):
            self.own.move(len(self.answers), row, last.num_computed)
            self.answers[row] = last


def spans_of(row: PackedRow) -> list[Span]:
    """The slots of each segment."""
    starts = segment_starts(row).tolist()
    return [(start, start + size) for start, size in zip(starts, row.seq_lens.tolist(), strict=True)]


def lay_out(trees: Sequence[Tree], prompts: Sequence[Prompt]) -> tuple[PackedRow, list[list[int]]]:
    """Trees one after another as one row of segments, each prefix before its questions.

    Returns:
        The row, and for each tree the segments of its questions.
    """
    ids: list[tuple[int, ...]] = []
    parents: list[int] = []
    questions: list[list[int]] = []
    for tree in trees:
        parent = ROOT
        if tree.prefix:
            parent = len(ids)
            ids.append(tree.prefix)
            parents.append(ROOT)
        questions.append(list(range(len(ids), len(ids) + len(tree.prompts))))
        ids += [prompts[index].ids for index in tree.prompts]
        parents += [parent] * len(tree.prompts)
    num_slots = sum(map(len, ids))
    row = PackedRow(
        input_ids=np.array([id_ for segment in ids for id_ in segment], dtype=np.int32),
        label_mask=np.zeros(num_slots, dtype=np.bool_),
        seq_lens=np.array([len(segment) for segment in ids], dtype=np.int32),
        parents=np.array(parents, dtype=np.int32),
        tasks=np.full(len(ids), -1, dtype=np.int32),
        song_ids=("",) * len(ids),
    )
    return row, questions
