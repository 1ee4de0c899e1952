"""What does sharing the lyrics' prefix save? The same examples as forests and stored whole, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from bench.material import find_tokenizer, make_rows
from bench.prefix_grid import FULL as FULL_GRID
from bench.prefix_grid import QUICK as QUICK_GRID
from bench.prefix_grid import SEPARATE, SHARED, measure_grid
from bench.record import Outcome, WrongResultError, compare, rates, summarize, time_in_turns
from harness.assembly import assemble
from harness.config import LoraSettings, ModelSettings
from harness.data import MicroBatch, collate
from harness.lora import trainable_parameters
from harness.loss import ForestLanguageModel
from preprocess.corpus import Length
from preprocess.forest import PackedRow, unpack_examples

UNPACKED = "unpacked"
"""Beside forests, and examples stored whole and packed into rows: each of those examples in a micro-batch of its own,
which spends no attention on the other examples of a row (the kernel computes a row's whole mask)."""

LOSS_TOLERANCE = 1e-5

VOCAB_SIZE = 2048
"""Ids are folded into so many. With it the head is 12 % of the full-size model's weights, as in Llama-3.2-3B; with a
whole vocabulary, the head of a model this small would take most of the time, and its work is the same both ways."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: songs and their length, slots in a row, the model's width and layers, timed turns."""

    num_songs: int
    length: Length
    seq_len: int
    hidden_size: int
    num_layers: int
    num_turns: int


FULL = Size(num_songs=4, length="full", seq_len=2048, hidden_size=256, num_layers=4, num_turns=3)
QUICK = Size(num_songs=2, length="short", seq_len=1024, hidden_size=64, num_layers=2, num_turns=2)


def measure(*, quick: bool) -> Outcome:
    """Time the ways on a random Llama with LoRA in float32, one row a micro-batch, no padding.

    Raises:
        WrongResultError: The mean token losses differ by more than `LOSS_TOLERANCE`.
    """
    size = QUICK if quick else FULL
    tokenizer = find_tokenizer(quick=quick)
    rows = {
        name: make_rows(
            tokenizer, size.num_songs, size.seq_len, share_prefix=name == SHARED, length=size.length
        )
        for name in (SEPARATE, SHARED)
    }
    rows[UNPACKED] = [example for row in rows[SEPARATE] for example in unpack_examples(row)]
    model = make_model(size)
    ways: dict[str, Callable[[], object]] = {name: prepare(model, part) for name, part in rows.items()}
    turns = time_in_turns(ways, size.num_turns)
    for name in (SEPARATE, UNPACKED):
        check_losses(turns.results[SHARED], turns.results[name])
    num_examples = count_examples(rows[SHARED], rows[SEPARATE])
    grid_figures, grid_facts = measure_grid(
        QUICK_GRID if quick else FULL_GRID, tokenizer, partial(prepare, model), check_losses
    )
    return Outcome(
        baseline=SEPARATE,
        figures={
            **{
                f"{name}_examples_per_s": summarize(rates(seconds, num_examples), "examples/s")
                for name, seconds in turns.seconds.items()
            },
            "shared / unpacked": compare(turns.seconds[UNPACKED], turns.seconds[SHARED]),
            **grid_figures,
        },
        ratios={name: compare(turns.seconds[SEPARATE], turns.seconds[name]) for name in (SHARED, UNPACKED)},
        facts={
            "songs": size.num_songs,
            "examples": num_examples,
            "seq_len": size.seq_len,
            "model": f"a toy: random Llama, hidden {size.hidden_size}, {size.num_layers} layers, {VOCAB_SIZE} ids, "
            "float32, LoRA r=16",
            "tokenizer": tokenizer.source,
            "torch_threads": torch.get_num_threads(),
            **{
                f"{name}_tokens_per_example": count_tokens(part) / num_examples for name, part in rows.items()
            },
            "mean_token_loss": turns.results[SHARED],
            "loss_difference": max(turns.results.values()) - min(turns.results.values()),
            **grid_facts,
        },
    )


def prepare(model: nn.Module, rows: Sequence[PackedRow]) -> Callable[[], float]:
    """What computes some rows, one a micro-batch: forward, backward, mean token loss."""
    return partial(mean_loss_and_gradient, model, [collate([fold_ids(row)]) for row in rows])


def make_model(size: Size, seed: int = 0) -> ForestLanguageModel:
    """A random Llama with adapters that are not zero, so that they take part in the loss."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=size.hidden_size,
        intermediate_size=size.hidden_size * 4,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.hidden_size // 32,
        num_key_value_heads=size.hidden_size // 64,
        max_position_embeddings=size.seq_len,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    base = LlamaForCausalLM(config).requires_grad_(requires_grad=False)
    settings = ModelSettings(path="random", precision="fp32")
    model = assemble(base, settings, LoraSettings(), seed=seed, device=torch.device("cpu")).model
    for name, parameter in trainable_parameters(model):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return model


def fold_ids(row: PackedRow) -> PackedRow:
    """The same row with ids below `VOCAB_SIZE`: as much work, other words."""
    return replace(row, input_ids=(row.input_ids % VOCAB_SIZE).astype(np.int32))


def mean_loss_and_gradient(model: nn.Module, batches: Sequence[MicroBatch]) -> float:
    """One step without its optimizer: the mean token loss over all batches; gradients are left in the model."""
    num_supervised = sum(batch.counts.supervised_tokens for batch in batches)
    model.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        loss = cast("torch.Tensor", model(batch)[0]) / num_supervised
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def check_losses(shared: float, separate: float) -> None:
    """Refuse times of two ways that did not compute the same.

    Raises:
        WrongResultError: The losses differ by more than `LOSS_TOLERANCE`, or one is no number.
    """
    if not abs(shared - separate) <= LOSS_TOLERANCE:
        raise WrongResultError(
            f"mean token loss {shared:.8f} with a shared prefix, {separate:.8f} with separate examples; "
            f"expected a difference of at most {LOSS_TOLERANCE:g}"
        )


def count_examples(shared: Sequence[PackedRow], separate: Sequence[PackedRow]) -> int:
    """Examples of both ways.

    Raises:
        WrongResultError: They do not hold the same number.
    """
    counts = [sum(row.num_examples for row in rows) for rows in (shared, separate)]
    if counts[0] != counts[1]:
        raise WrongResultError(f"{counts[0]} examples with a shared prefix, {counts[1]} without")
    return counts[0]


def count_tokens(rows: Sequence[PackedRow]) -> int:
    """Tokens of some rows."""
    return sum(len(row.input_ids) for row in rows)
