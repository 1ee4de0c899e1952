"""The slow and obvious way: every example alone, one after another, in one process, with all of its logits.

Nothing of the harness's loss, attention, adapters' kernels or engine is used, and nothing of DeepSpeed. An example is
a path of its row's forest from a root down, laid out as one sequence, as if nothing were shared. The one thing in
common is where dropout comes from: the tokens' keys and the drawing of masks have tests of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from bench.exactness.cases import NUM_TASKS, SEED, Case, Precision, Step
from bench.exactness.toys import (
    exact_transformers,
    fill_adapter,
    make_base,
    make_lora,
    make_rows,
    tied_adapter_allowed,
)
from harness.data import collate
from harness.dropout import install_dropout
from harness.lora import add_lora, trainable_parameters
from harness.step import step_seed
from preprocess.forest import PackedRow, labels, unpack_examples
from preprocess.schema import IGNORE_INDEX


def run_alone(case: Case, precision: Precision = "float64") -> list[Step]:
    """The steps of a case by gradient descent, every example alone.

    Args:
        case: Which rows make a step is taken from its plan; how they spread over ranks and micro-steps is not.
        precision: Of the model; sums of losses and gradients are float64.
    """
    with exact_transformers() if precision == "float64" else nullcontext():
        model = SlowModel(case, precision)
        rows = make_rows(case.data, case.num_rows)
        plan = case.plan(rows)
        return [
            model.take_step([rows[row] for row in plan.rows_of_step(step)], step_seed(SEED, step))
            for step in case.steps
        ]


class SlowModel:
    """The model of a case as peft and transformers compute it.

    Where it has dropout, that is drawn as in training, from the tokens' identities: those that an example has alone.
    """

    def __init__(self, case: Case, precision: Precision) -> None:
        with tied_adapter_allowed():
            adapter = add_lora(make_base(precision), make_lora(case.dropout), seed=0)
        fill_adapter(adapter)
        self.draw = install_dropout(adapter)
        self.causal = cast("Any", adapter.get_base_model().train())
        self.weights = trainable_parameters(self.causal)
        self.case = case
        self.optimizer = make_optimizer(case, [weight for _, weight in self.weights])

    def take_step(self, rows: Sequence[PackedRow], seed: int) -> Step:
        """The mean token loss of some rows, and how its gradient moves the adapter's weights."""
        examples = [example for row in rows for example in unpack_examples(row)]
        count = sum(int(example.label_mask.sum()) for example in examples)
        loss, eval_losses = 0.0, self.evaluate(examples)
        gradients = {name: torch.zeros(weight.shape, dtype=torch.float64) for name, weight in self.weights}
        for example in examples:
            self.causal.zero_grad()
            self.draw.start(collate([example]).token_keys, seed)
            part = self.sum_losses(example) / count
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
            for name, weight in self.weights:
                gradients[name] += cast("torch.Tensor", weight.grad)
        norm = float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())
        moved = self.move(gradients, norm)
        # In bf16 a weight cannot tell by what it moved; descent moves it by the gradient.
        result = gradients if self.case.optimizer == "descent" else moved
        return Step(loss, norm, eval_losses, {name: change.numpy() for name, change in result.items()})

    def move(self, gradients: dict[str, torch.Tensor], norm: float) -> dict[str, torch.Tensor]:
        """Let the optimizer step with the clipped gradients; how far each weight went, over the learning rate."""
        settings = self.case.settings
        before = {name: weight.detach().clone() for name, weight in self.weights}
        for name, weight in self.weights:
            weight.grad = (gradients[name] * min(1.0, settings.max_grad_norm / (norm + 1e-6))).to(
                weight.dtype
            )
        self.optimizer.step()
        return {
            name: (before[name] - weight.detach()) / settings.learning_rate for name, weight in self.weights
        }

    @torch.no_grad()
    def evaluate(self, examples: Sequence[PackedRow]) -> list[float]:
        """Mean loss of the supervised tokens, without dropout: of all examples, and of those of each task."""
        self.causal.eval()
        sums = np.zeros((1 + NUM_TASKS, 2))
        for example in examples:
            both = [float(self.sum_losses(example)), int(example.label_mask.sum())]
            sums[[0, 1 + int(example.tasks[0])]] += both
        self.causal.train()
        return [loss / count if count else float("nan") for loss, count in sums.tolist()]

    def sum_losses(self, example: PackedRow) -> torch.Tensor:
        """Cross entropy summed over an example's supervised tokens, each predicted from the token before it."""
        ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
        logits = self.causal(input_ids=ids, use_cache=False).logits[0]
        precise = logits if logits.dtype == torch.float64 else logits.float()
        targets = torch.from_numpy(labels(example).astype(np.int64))
        return nn.functional.cross_entropy(
            precise[:-1], targets[1:], ignore_index=IGNORE_INDEX, reduction="sum"
        )


def make_optimizer(case: Case, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Torch's own, as the case's settings say."""
    settings = case.settings
    if case.optimizer == "descent":
        return torch.optim.SGD(weights, lr=settings.learning_rate)
    return torch.optim.AdamW(
        weights,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
