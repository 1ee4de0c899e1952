"""A training loop as anyone would write it in PyTorch: transformers, peft, AdamW, separate examples in padded batches.

It trains the very model, adapters, schedule and examples of a run of the harness, so that its losses must be the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from harness.config import RunConfig
from harness.lora import add_lora, trainable_parameters
from harness.model import load_base_model
from harness.schedule import learning_rate
from preprocess.forest import PackedRow
from preprocess.schema import IGNORE_INDEX

PAD_ID = 0


class PlainLoop:
    """What it trains, and what came of each step.

    Args:
        config: The harness's run.
        num_steps: Of the schedule.
        batch_size: Examples in one forward pass.

    Attributes:
        losses: Mean token loss of each step taken.
        seconds: Of each step taken.
    """

    def __init__(self, config: RunConfig, num_steps: int, batch_size: int) -> None:
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self._config, self._num_steps, self._batch_size = config, num_steps, batch_size
        base = load_base_model(config.model.model_copy(update={"attention": "sdpa"}))
        self.model = cast("nn.Module", add_lora(base, config.lora, config.seed))
        self.model.train()
        settings = config.optimizer
        self._trained = [parameter for _, parameter in trainable_parameters(self.model)]
        # Float32 masters and moments, as the harness has them.
        self._masters = [parameter.detach().float().clone().requires_grad_() for parameter in self._trained]
        self._optimizer = torch.optim.AdamW(
            self._masters,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )

    def take(self, examples: Sequence[PackedRow]) -> None:
        """One optimizer step on some examples, each with its lyrics: laying out, forward, backward, update."""
        started = time.perf_counter()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(len(self.losses), self._num_steps, self._config.optimizer)
        by_length = sorted(examples, key=lambda example: len(example.input_ids))
        supervised = sum(int(example.label_mask.sum()) for example in examples)
        loss = 0.0
        for first in range(0, len(by_length), self._batch_size):
            batch = pad(by_length[first : first + self._batch_size])
            # transformers divides the sum over tokens by this number, shifting the labels itself.
            part = self.model(**batch, use_cache=False, num_items_in_batch=supervised).loss
            part.backward()
            loss += float(part.detach())
        self._update()
        self.losses.append(loss)
        self.seconds.append(time.perf_counter() - started)

    def _update(self) -> None:
        for parameter, master in zip(self._trained, self._masters, strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.float()
            parameter.grad = None
        nn.utils.clip_grad_norm_(self._masters, self._config.optimizer.max_grad_norm)
        self._optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(self._trained, self._masters, strict=True):
                parameter.copy_(master)


def pad(examples: Sequence[PackedRow]) -> dict[str, Any]:
    """Examples beside each other, padded on the right to the longest: ids, attention mask, labels, all int64[B, T]."""
    width = max(len(example.input_ids) for example in examples)
    shape = (len(examples), width)
    ids = torch.full(shape, PAD_ID)
    mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORE_INDEX)
    for number, example in enumerate(examples):
        length = len(example.input_ids)
        own = torch.from_numpy(example.input_ids.astype("int64"))
        ids[number, :length] = own
        mask[number, :length] = 1
        labels[number, :length] = own.masked_fill(~torch.from_numpy(example.label_mask), IGNORE_INDEX)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
