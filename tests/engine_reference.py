"""The steps of a case by torch alone, which the engine is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from harness.data import collate
from harness.lora import trainable_parameters
from harness.step import StepResult
from harness.throughput import StepCounts
from tests.engine_ranks import LEARNING_RATE, Case, Outcome, make_model, make_rows, rows_of


def run_reference(root: Path, case: Case, world_size: int, *, means_of_means: bool = False) -> Outcome:
    """The steps of a case by torch alone, all ranks' rows in one process: the token mean, its gradient, AdamW.

    Args:
        root: Where the model is.
        case: Its stage does not matter.
        world_size: Ranks whose rows to take.
        means_of_means: Do what is wrong instead: average each micro-batch, then the averages.
    """
    model, rows, outcome = make_model(root, case.precision).train(), make_rows(), Outcome()
    parameters = [parameter for _, parameter in trainable_parameters(model)]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    nothing = StepCounts(), np.zeros((1, 2)), np.zeros(1, dtype=np.int64)
    for step in range(len(case.micro_steps)):
        dealt = [of_rank for of_ranks in rows_of(rows, case, step, world_size) for of_rank in of_ranks]
        tokens = [sum(int(row.label_mask.sum()) for row in of_rank) for of_rank in dealt]
        total = 0.0
        for of_rank, count in zip(dealt, tokens, strict=True):
            loss_sum, _ = model(collate(of_rank))
            share = 1 / (len(dealt) * max(count, 1)) if means_of_means else 1 / sum(tokens)
            (loss_sum * share).backward()
            total += float(loss_sum.detach()) * share
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, 1.0))
        optimizer.step()
        optimizer.zero_grad()
        outcome.results.append(StepResult(total, norm, *nothing, applied=True))
    outcome.weights = torch.cat([parameter.detach().double().flatten() for parameter in parameters]).numpy()
    return outcome
