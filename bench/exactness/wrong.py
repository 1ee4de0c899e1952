"""What negative controls do wrong: each a mistake that training programs have made."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import cast
from unittest.mock import patch

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from bench.exactness.cases import Case, Sabotage
from harness.data import MicroBatch, collate
from harness.dropout import WindowDropout
from harness.loss import ForestLanguageModel
from preprocess.forest import PackedRow


def spoil_batches(case: Case, parts: Sequence[Sequence[PackedRow]], rank: int) -> list[MicroBatch]:
    """A rank's micro-batches of one step, right or wrong as the case says."""
    batches = [spoil(case.sabotage, rows, flat=case.flat) for rows in parts]
    if case.sabotage == "dropped micro-step" and rank == 0:
        batches[-1] = collate([], flat=case.flat)
    return batches


def spoil(sabotage: Sabotage | None, rows: Sequence[PackedRow], *, flat: bool) -> MicroBatch:
    """A micro-batch with the wrong mask or the wrong positions, or as it should be."""
    batch = collate(rows, flat=flat)
    if sabotage == "leaking mask":
        chained = collate([chain(row) for row in rows], flat=flat)
        return replace(batch, entry=chained.entry, exit=chained.exit, layout=chained.layout)
    if sabotage == "run-on positions":
        return replace(
            batch, position_ids=torch.arange(batch.input_ids.shape[1]).expand_as(batch.position_ids)
        )
    return batch


def chain(row: PackedRow) -> PackedRow:
    """Every segment as the continuation of the one before, as under a plain causal mask."""
    return replace(row, parents=np.arange(-1, len(row.parents) - 1, dtype=np.int32))


def spoil_scale(case: Case, parts: Sequence[Sequence[PackedRow]]) -> AbstractContextManager[object]:
    """Scale the losses of one step's micro-batches wrongly, where the case says so."""
    if case.sabotage == "mean of means":
        counts = iter([sum(int(row.label_mask.sum()) for row in rows) for rows in parts])

        def average(loss_sum: torch.Tensor, world_size: int, global_valid_tokens: int) -> torch.Tensor:
            return loss_sum / max(next(counts), 1) / case.micro_steps

        return patch("harness.micro_steps.scale_for_engine", average)
    if case.sabotage == "ranks not counted":

        def forget_ranks(loss_sum: torch.Tensor, world_size: int, global_valid_tokens: int) -> torch.Tensor:
            return loss_sum / global_valid_tokens

        return patch("harness.micro_steps.scale_for_engine", forget_ranks)
    return nullcontext()


def draw_by_place(model: ForestLanguageModel) -> None:
    """Put peft's own dropout back, whose masks depend on where a token lies and on what was drawn before."""
    model.draw = None
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for name, dropout in module.lora_dropout.items():
                module.lora_dropout[name] = nn.Dropout(cast("WindowDropout", dropout).p)
