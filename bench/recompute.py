"""What does recomputing k of L layers cost in time, and what does it free, against transformers' all-or-nothing?

transformers' gradient checkpointing recomputes every layer. The harness recomputes as many as memory asks for, so that
memory which is left over buys speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch

from bench.agreement import Computed, check_same, take_gradients, trained_of
from bench.live_memory import kept_storages
from bench.material import find_tokenizer, make_rows
from bench.prefix import FULL as PREFIX_FULL
from bench.prefix import QUICK as PREFIX_QUICK
from bench.prefix import VOCAB_SIZE, Size, fold_ids, make_model
from bench.record import Outcome, WrongResultError, compare, costs, summarize, time_in_turns
from harness.data import MicroBatch, collate
from harness.loss import ForestLanguageModel
from harness.recompute import decoder_layers, enable_recompute

TRANSFORMERS = "transformers_checkpointing"
TOLERANCE = 1e-5
FULL = replace(PREFIX_FULL, num_layers=8, num_turns=5)
QUICK = replace(PREFIX_QUICK, num_layers=4, num_turns=3)
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Passes:
    """A model, one micro-batch, and what is trained."""

    model: ForestLanguageModel
    batch: MicroBatch

    @property
    def causal(self) -> Any:  # noqa: ANN401 - a model of transformers
        """The model inside."""
        return cast("Any", self.model.causal)

    def loss(self) -> torch.Tensor:
        """Mean token loss."""
        return cast("torch.Tensor", self.model(self.batch)[0]) / self.batch.counts.supervised_tokens

    def recompute(self, layers: int) -> Computed:
        """Forward and backward with so many layers recomputed."""
        enable_recompute(self.model.causal, layers)
        return take_gradients(self.loss(), trained_of(self.model))

    def recompute_as_transformers(self) -> Computed:
        """The same by the model's own switch."""
        self.causal.gradient_checkpointing_enable({"use_reentrant": False})
        return take_gradients(self.loss(), trained_of(self.model))

    def kept_mib(self, switch: Callable[[], object]) -> float:
        """MiB that autograd keeps between the passes, weights left out."""
        switch()
        losses: list[torch.Tensor] = []
        kept = kept_storages(lambda: losses.append(self.loss()))
        own = {one.untyped_storage()._cdata for one in (*self.model.parameters(), *self.model.buffers())}
        return sum(storage.nbytes() for key, storage in kept.items() if key not in own) / MIB


def open_passes(size: Size, *, quick: bool) -> Passes:
    """A random Llama with adapters, and one packed row of made-up songs."""
    rows = make_rows(find_tokenizer(quick=quick), size.num_songs, size.seq_len, length=size.length)
    model = make_model(size)
    model.train()
    return Passes(model, collate([fold_ids(rows[0])]))


def choose_counts(num_layers: int) -> list[int]:
    """No layer, a quarter, a half, three quarters, all."""
    return sorted({num_layers * share // 4 for share in range(5)})


def measure(*, quick: bool) -> Outcome:
    """Time forward and backward for each number of layers.

    Raises:
        WrongResultError: A loss or a gradient differs from the baseline's by more than `TOLERANCE`, or more recomputed
            layers keep more.
    """
    size = QUICK if quick else FULL
    passes = open_passes(size, quick=quick)
    counts = choose_counts(size.num_layers)
    names = {f"{count}_of_{size.num_layers}": count for count in counts}
    ways: dict[str, Callable[[], Computed]] = {TRANSFORMERS: passes.recompute_as_transformers}
    ways |= {name: partial(passes.recompute, count) for name, count in names.items()}
    turns = time_in_turns(ways, size.num_turns)
    difference = check_same(turns.results, TRANSFORMERS, TOLERANCE)
    kept = {
        name: passes.kept_mib(partial(enable_recompute, passes.model.causal, count))
        for name, count in names.items()
    }
    check_falling(list(kept.values()))
    switch = partial(passes.causal.gradient_checkpointing_enable, {"use_reentrant": False})
    tokens = passes.batch.counts.tokens
    facts: dict[str, float | int | str] = {
        f"{name}_kept_kib_per_token": mib * 1024 / tokens for name, mib in kept.items()
    }
    none = turns.seconds[f"0_of_{size.num_layers}"]
    return Outcome(
        baseline=TRANSFORMERS,
        figures={
            f"{way}_us_per_token": summarize(costs(seconds, tokens), "us/token")
            for way, seconds in turns.seconds.items()
        }
        | {
            f"{way} / none": compare(none, seconds)
            for way, seconds in turns.seconds.items()
            if seconds is not none
        },
        ratios={name: compare(turns.seconds[TRANSFORMERS], turns.seconds[name]) for name in names},
        facts=facts
        | {
            f"{TRANSFORMERS}_kept_kib_per_token": passes.kept_mib(switch) * 1024 / tokens,
            "model": f"a toy: random Llama, hidden {size.hidden_size}, {len(decoder_layers(passes.model.causal))} "
            f"layers, {VOCAB_SIZE} ids, float32, LoRA r=16 by lean layers",
            "tokens": tokens,
            "largest_difference": difference,
            "torch_threads": torch.get_num_threads(),
        },
    )


def check_falling(kept: Sequence[float]) -> None:
    """Refuse times of a recomputation that frees nothing.

    Raises:
        WrongResultError: More recomputed layers keep as much or more.
    """
    if any(more >= less for less, more in pairwise(kept)):
        raise WrongResultError(
            f"MiB kept over recomputed layers: {list(kept)}; expected less for more of them"
        )
