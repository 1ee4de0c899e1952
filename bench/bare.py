"""What does a whole step of the harness cost beside a bare DeepSpeed engine that is fed the same ready tensors?

The harness's step reads and lays out rows, times its parts, profiles memory, sums counts and losses over ranks, checks
that numbers are finite, and writes metrics. The bare engine does forward, backward and step. Both have the same model,
optimizer, DeepSpeed settings and micro-batches. They take turns over many short steps, in an order that rotates; the
bare step is timed twice a turn, so that the spread of one way against itself shows what the machine's noise is.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import deepspeed
import torch

from bench.material import FIVE_TASKS
from bench.record import Outcome, WrongResultError, compare, summarize
from bench.training import TINY, Scale, Steps, build_data, make_config, open_folder, open_run, write_model
from harness.config import RunConfig
from harness.data import MicroBatch
from harness.deepspeed_config import deepspeed_config
from harness.lora import trainable_parameters
from harness.loss import ForestLanguageModel
from harness.schedule import learning_rate

BARE, AGAIN, WHOLE = "bare_engine", "bare_engine_again", "harness"
FULL = replace(Scale(), seq_len=1024, rows_per_step=4, micro_batch_size=2)
QUICK = replace(TINY, seq_len=512)
FULL_TURNS, QUICK_TURNS = 60, 6
TOLERANCE = 5e-3
"""Largest difference of the mean token loss of a step, in nats: the weights of both are trained on the same steps."""


def measure(*, quick: bool) -> Outcome:
    """Take the same steps both ways.

    Raises:
        WrongResultError: The losses of a step differ by more than `TOLERANCE`.
    """
    scale, num_turns = (QUICK, QUICK_TURNS) if quick else (FULL, FULL_TURNS)
    with open_folder() as folder:
        model = write_model(folder / "model", scale)
        data = build_data(folder / "data", str(model), FIVE_TASKS, scale)
        config = make_config(folder / "run", data, model, scale, num_turns + 1)
        whole = Steps(open_run(config))
        bare = BareEngine(whole, config)
        again = BareEngine(whole, config.model_copy(update={"output_dir": folder / "again"}))
        seconds = take_turns(whole, bare, again, num_turns)
        difference = check_losses(whole.losses(), bare.losses)
        tokens = sum(len(row.input_ids) for step in range(num_turns) for row in whole.rows(step)) / num_turns
    extra = [100 * (ours / theirs - 1) for ours, theirs in zip(seconds[WHOLE], seconds[BARE], strict=True)]
    return Outcome(
        baseline=BARE,
        figures={f"{way}_s_per_step": summarize(values, "s/step") for way, values in seconds.items()}
        | {"harness_percent_slower": summarize(extra, "%")},
        ratios={way: compare(seconds[BARE], seconds[way]) for way in (WHOLE, AGAIN)},
        facts={
            "median_step_percent_slower": 100 * (_median(seconds[WHOLE]) / _median(seconds[BARE]) - 1),
            "fastest_step_percent_slower": 100 * (min(seconds[WHOLE]) / min(seconds[BARE]) - 1),
            "hidden_size": scale.hidden_size,
            "layers": scale.num_layers,
            "tokens_per_step": tokens,
            "micro_steps": scale.rows_per_step // scale.micro_batch_size,
            "largest_loss_difference": difference,
            "torch_threads": torch.get_num_threads(),
        },
    )


class BareEngine:
    """A DeepSpeed engine over the same model, with nothing around it.

    Attributes:
        losses: Mean token loss of each step taken.
    """

    def __init__(self, whole: Steps, config: RunConfig) -> None:
        self.losses: list[float] = []
        self._config = config
        self._num_steps = whole.run.num_steps
        micro_steps = len(whole.run.plan.rows_of_rank(0, 0))
        with patch("harness.building.build_engine", partial(_initialize, config, micro_steps)):
            self._engine = open_run(config.model_copy(update={"output_dir": _beside(config)})).engine

    def take(self, step: int, batches: Sequence[MicroBatch]) -> None:
        """Forward, backward, step."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate(step, self._num_steps, self._config.optimizer)
        supervised = sum(batch.counts.supervised_tokens for batch in batches)
        total = torch.zeros(())
        for index, batch in enumerate(batches):
            # Or an epoch's last step, which has fewer micro-steps, would never be taken.
            self._engine.set_gradient_accumulation_boundary(is_boundary=index == len(batches) - 1)
            loss, _ = self._engine(batch)
            self._engine.backward(loss / supervised, scale_wrt_gas=False)
            self._engine.step()
            total += loss.detach()
        self.losses.append(float(total) / supervised)


def _beside(config: RunConfig) -> Path:
    return config.output_dir.with_name(f"{config.output_dir.name}-bare")


def _initialize(
    config: RunConfig,
    micro_steps: int,
    model: ForestLanguageModel,
    *_: object,
    **__: object,
) -> Any:  # noqa: ANN401 - a DeepSpeedEngine
    """What any script would write."""
    settings = config.optimizer
    optimizer = torch.optim.AdamW(
        [parameter for _, parameter in trainable_parameters(model)],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    values = deepspeed_config(config, 1)
    values["gradient_accumulation_steps"] = values["train_batch_size"] = micro_steps
    values["train_micro_batch_size_per_gpu"] = 1
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=values)
    engine.train()
    return engine


def take_turns(whole: Steps, bare: BareEngine, again: BareEngine, num_turns: int) -> dict[str, list[float]]:
    """Seconds of each step by each way; the first step is a warm-up and not among them."""
    seconds: dict[str, list[float]] = {way: [] for way in (WHOLE, BARE, AGAIN)}
    for step in range(num_turns + 1):
        ready = whole.load(step).batches
        ways: dict[str, Callable[[], object]] = {
            WHOLE: partial(whole.take, step),
            BARE: partial(bare.take, step, ready),
            AGAIN: partial(again.take, step, ready),
        }
        names = list(ways)
        for name in names[step % 3 :] + names[: step % 3]:
            gc.collect()
            started = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
    seconds[WHOLE] = whole.seconds
    return {way: values[1:] for way, values in seconds.items()}


def check_losses(own: Sequence[float], bare: Sequence[float]) -> float:
    """The largest difference between the losses of a step.

    Raises:
        WrongResultError: It is above `TOLERANCE`, or a loss is no number.
    """
    differences = [abs(a - b) for a, b in zip(own, bare, strict=True)]
    if not all(difference <= TOLERANCE for difference in differences):
        raise WrongResultError(f"losses of the harness {list(own)}, of the bare engine {list(bare)}")
    return max(differences)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
