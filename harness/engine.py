"""The DeepSpeed engine, driven so that its arithmetic is the global token mean: build, step, evaluate, gather."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import deepspeed
import numpy as np
import torch
from deepspeed.accelerator import get_accelerator
from peft import PeftModel

from harness.config import RunConfig, deepspeed_config
from harness.data import MicroBatch
from harness.dist import Engine, World, max_over_ranks, sum_over_ranks
from harness.head import count_chunks
from harness.lora import adapter_state, trainable_parameters
from harness.loss import ForestLanguageModel, loss_by_task, scale_for_engine
from harness.throughput import StepCounts
from preprocess.errors import ConfigError, TrainingError

Part = Callable[[str], AbstractContextManager[None]]
"""Opens a named part of a step ("forward_loss", "backward", "optimizer") for timing and memory."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        loss: Mean over the global batch's supervised tokens, in nats.
        grad_norm: Global norm before clipping.
        counts: Work over all ranks.
        applied: Whether weights changed; False when fp16 overflowed and the loss scale was lowered.
    """

    loss: float
    grad_norm: float
    counts: StepCounts
    applied: bool


def build_engine(
    model: ForestLanguageModel, config: RunConfig, world: World, *, shared_storage: bool
) -> Engine:
    """Wrap a model in a DeepSpeed engine with AdamW over its trainable parameters.

    Args:
        model: The model with its adapter; the base is frozen.
        config: The run's configuration.
        world: This rank's place.
        shared_storage: Whether all hosts write into the same run folder.

    Raises:
        ConfigError: The device does not compute in the precision asked for.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    settings = config.optimizer
    optimizer = torch.optim.AdamW(
        [parameter for _, parameter in trainable_parameters(model)],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    values = deepspeed_config(config, world.size)
    values["checkpoint"] = {"use_node_local_storage": not shared_storage}
    if config.model.precision == "fp16" and not get_accelerator().is_fp16_supported():
        raise ConfigError("model.precision fp16: this device does not compute in fp16; use bf16 or fp32")
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=values)
    engine.train()  # models are loaded for inference, and layers recompute in training mode alone
    return engine


def seed_draws(seed: int, step: int, micro_step: int, rank: int) -> None:
    """Seed torch for one forward pass, so that dropout depends on where it happens and not on what came before."""
    state = np.random.SeedSequence([seed, step, micro_step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))


def step_seed(seed: int, step: int) -> int:
    """Seed of a step's dropout masks: the same on every rank and in every micro-step."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def train_step(
    engine: Engine,
    batches: Sequence[MicroBatch],
    world: World,
    *,
    step: int,
    global_valid_tokens: int,
    learning_rate: float,
    seed: int,
    part: Part,
) -> StepResult:
    """Run every micro-step of one optimizer step and update the weights.

    Args:
        engine: From `build_engine`.
        batches: This rank's micro-batches, as many as accumulation steps.
        world: This rank's place.
        step: Number of the step, from 0.
        global_valid_tokens: Supervised tokens of the step over all ranks and micro-steps.
        learning_rate: The step's rate.
        seed: The run's seed, for dropout.
        part: Opens a part of the step for timing.

    Raises:
        TrainingError: Loss or gradient is not finite; raised before the weights change in the first case.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
    for micro_step, batch in enumerate(batches):
        seed_draws(seed, step, micro_step, world.rank)
        with part("forward_loss"):
            micro_sum, _ = engine(batch, seed=step_seed(seed, step), num_chunks=_common_chunks(engine, batch))
        with part("backward"):
            engine.backward(scale_for_engine(micro_sum, world.size, global_valid_tokens), scale_wrt_gas=False)
            loss_sum += micro_sum.detach()
        if micro_step < len(batches) - 1:
            engine.step()
    counts, total = _sum_step(batches, loss_sum)
    loss = total / max(global_valid_tokens, 1)
    if not np.isfinite(loss):
        raise TrainingError(f"step {step + 1}: the loss is {loss}; no weight was changed. {ADVICE}")
    with part("optimizer"):
        own_norm = _plain_grad_norm(engine)
        _update(engine, step)
    return _finish_step(engine, step, loss, counts, own_norm)


def _common_chunks(engine: Engine, batch: MicroBatch) -> int | None:
    """Under ZeRO-3, where each pass through the head gathers it: the passes of the rank that needs the most."""
    if engine.zero_optimization_stage() < 3:
        return None
    needed = count_chunks(len(batch.targets), engine.module.loss_chunk)
    return int(max_over_ranks(torch.tensor(needed, device=batch.targets.device)).item())


def _plain_grad_norm(engine: Engine) -> float | None:
    """The norm of the reduced gradients where DeepSpeed computes none: float32 without ZeRO."""
    if not isinstance(engine.optimizer, torch.optim.Optimizer):
        return None
    gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def _update(engine: Engine, step: int) -> None:
    try:
        engine.step()
    except Exception as error:
        if "loss scale already at minimum" not in str(error):  # DeepSpeed raises a bare Exception for it
            raise
        message = f"step {step + 1}: gradients overflow fp16 at the lowest loss scale. {ADVICE}"
        raise TrainingError(message) from error


ADVICE = (
    "Lower the learning rate, or look at the rows of that step; go on from the last checkpoint with --resume"
)


def _finish_step(
    engine: Engine,
    step: int,
    loss: float,
    counts: StepCounts,
    own_norm: float | None,
) -> StepResult:
    applied = bool(engine.was_step_applied())
    norm = engine.get_global_grad_norm() if own_norm is None else own_norm
    grad_norm = float("nan") if norm is None else float(norm)
    if not np.isfinite(grad_norm) and (applied or not engine.fp16_enabled()):
        raise TrainingError(f"step {step + 1}: the gradient's norm is {grad_norm}. {ADVICE}")
    return StepResult(loss, grad_norm, counts, applied)


def _sum_step(batches: Sequence[MicroBatch], loss_sum: torch.Tensor) -> tuple[StepCounts, float]:
    """Counts and loss summed over ranks, in one collective."""
    counts = sum((batch.counts for batch in batches), StepCounts())
    values = torch.tensor(counts.to_array(), dtype=torch.float64, device=loss_sum.device)
    total = sum_over_ranks(torch.cat([values, loss_sum[None]])).cpu().numpy()
    return StepCounts.from_array(total[:-1].astype(np.int64)), float(total[-1])


def evaluate_loss(
    engine: Engine,
    batches: Iterable[MicroBatch],
    world: World,
    num_tasks: int,
) -> tuple[float, list[float], int]:
    """Mean loss over an eval split, computed by all ranks together.

    Args:
        engine: From `build_engine`.
        batches: This rank's micro-batches; every rank must have the same number.
        world: This rank's place.
        num_tasks: Tasks in the data set.

    Returns:
        The mean over all supervised tokens in nats, the mean by task (both NaN without tokens), supervised
        tokens.

    Raises:
        TrainingError: The loss is not finite.
    """
    was_training = engine.module.training
    engine.eval()
    sums = torch.zeros(num_tasks, 2, dtype=torch.float64, device=world.device)
    with torch.no_grad():
        for batch in batches:
            on_device = batch.to(world.device)
            _, losses = engine(on_device, num_chunks=_common_chunks(engine, on_device))
            sums += loss_by_task(losses, on_device.target_tasks, num_tasks)
    engine.train(was_training)
    total = sum_over_ranks(sums).cpu().numpy()
    with np.errstate(invalid="ignore"):
        by_task = (total[:, 0] / total[:, 1]).tolist()
        mean = float(total[:, 0].sum() / total[:, 1].sum())
    if total[:, 1].sum() and not np.isfinite(mean):
        raise TrainingError(f"the eval loss is {mean}. {ADVICE}")
    return mean, by_task, int(total[:, 1].sum())


def gather_adapter(engine: Engine, peft_model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's whole weights on every rank's CPU, also when ZeRO-3 has split them."""
    parameters = trainable_parameters(peft_model)
    if engine.zero_optimization_stage() < 3:
        return adapter_state(peft_model)
    with deepspeed.zero.GatheredParameters([parameter for _, parameter in parameters]):
        whole = {name: parameter.detach().cpu().clone() for name, parameter in parameters}
    return adapter_state(peft_model, whole)
