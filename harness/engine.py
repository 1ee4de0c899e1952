"""The DeepSpeed engine, driven so that its arithmetic is the global token mean: build, step, evaluate, gather.

Gradients stay on their rank, in float32, until a step's last backward pass; then DeepSpeed reduces them once, whatever
the ZeRO stage. In between all ranks hear of each other's losses and gradients: where one is not finite, the gradients
are dropped, and DeepSpeed never sees them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import repeat
from typing import cast

import deepspeed
import numpy as np
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import set_z3_leaf_modules
from peft import PeftModel
from pydantic import ValidationError
from transformers import PreTrainedModel

from harness.config import RunConfig
from harness.data import MicroBatch
from harness.deepspeed_config import deepspeed_config, zero_stage
from harness.dist import Engine, World, collectives_timed, max_over_ranks, sum_over_ranks
from harness.half_precision import (
    loss_scale,
    missing_scale,
    prepare_gradients,
    reduce_in_float32,
    scale_kept,
)
from harness.lean.layer import LeanLayer
from harness.lora import adapter_state, trainable_parameters
from harness.loss import ForestLanguageModel, loss_by_task
from harness.micro_steps import (
    attempt,
    common_chunks,
    drop_gradients,
    local_norm,
    run_micro_steps,
)
from harness.step import (
    STOP_SIGNALS,
    Float64Array,
    Part,
    RanksOutOfMemoryError,
    StepResult,
    StepSums,
    StepTally,
    StopRequestedError,
    explain_faults,
    explain_overflow,
    read_stop,
    step_seed,
    stop_flags,
)
from preprocess.errors import ConfigError

STOP_CHECK_EVERY = 8
"""Micro-batches of an evaluation at ZeRO-3 between two questions whether to stop."""


def build_engine(model: ForestLanguageModel, config: RunConfig, world: World) -> Engine:
    """Wrap a model in a DeepSpeed engine with AdamW over its trainable parameters.

    Args:
        model: The model with its adapter; the base is frozen.
        config: The run's configuration.
        world: This rank's place.

    Raises:
        ConfigError: The device does not compute in the precision asked for, or DeepSpeed's file has a key or a value
            that DeepSpeed does not know, or asks for another sum of gradients than the harness takes.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    settings, precision = config.optimizer, config.model.precision
    values = deepspeed_config(config, world.size)
    if "grad_accum_dtype" in values.get("data_types", {}):
        why = "is the harness's to set, and gradients add up in float32 at every ZeRO stage; remove it"
        raise ConfigError(f"deepspeed {config.deepspeed}: data_types.grad_accum_dtype {why}")
    optimizer = torch.optim.AdamW(
        [parameter for _, parameter in trainable_parameters(model)],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,  # one pass over weights and moments, which are flat tensors under ZeRO, and no wait for the device
    )
    if precision == "fp16" and not get_accelerator().is_fp16_supported():
        raise ConfigError("model.precision fp16: this device does not compute in fp16; use bf16 or fp32")
    reduce_in_float32(values, precision, zero_stage(config.deepspeed))
    if zero_stage(config.deepspeed) == 3:
        _gather_lean_layers_whole(model)
    try:
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=values)
    except ValidationError as error:  # DeepSpeed's own, of a key or value in its file
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"deepspeed {config.deepspeed}: {where}: {first['msg']}; got {first['input']!r}"
        ) from error
    prepare_gradients(engine)
    engine.train()  # models are loaded for inference, and layers recompute in training mode alone
    return engine


def _gather_lean_layers_whole(model: ForestLanguageModel) -> None:
    """Let ZeRO-3 gather all weights of a lean layer at once: it reads them without calling the modules they are in."""
    if not any(isinstance(module, LeanLayer) for module in model.modules()):
        return
    set_z3_leaf_modules(model, [LeanLayer])
    embedding = cast("PreTrainedModel", model.causal).get_input_embeddings()
    # Where no input of the first layer wants a gradient, ZeRO-3 takes its weights away before the end of backward.
    embedding.register_forward_hook(
        lambda module, inputs, output: output.requires_grad_() if torch.is_grad_enabled() else output
    )


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
    num_tasks: int | None = None,
    num_chunks: Sequence[int] | None = None,
    asked_to_stop: Callable[[], int] = int,
    has_compiled: Callable[[], bool] = bool,
    times: Float64Array | None = None,
) -> StepResult:
    """Run every micro-step of one optimizer step and update the weights, unless a number is not finite.

    Args:
        engine: From `build_engine`.
        batches: This rank's micro-batches; any number from 1, the same on all ranks in the same step.
        world: This rank's place.
        step: Number of the step, from 0.
        global_valid_tokens: Supervised tokens of the step over all ranks and micro-steps.
        learning_rate: The step's rate.
        seed: The run's seed, for dropout.
        part: Opens a part of the step for timing.
        num_tasks: Tasks in the data set, or None to sum all of them in one.
        num_chunks: For each micro-step the passes through the head of the rank that needs the most, from the plan.
            Only ZeRO-3, where each is a collective, needs it; there None asks all ranks in each micro-step. The same
            number in every step lets ZeRO-3 keep its record of what it gathers when, and so its prefetch.
        asked_to_stop: Gives the signal that asked this rank to stop, or 0; all ranks hear of it with the step's result.
        has_compiled: Whether this rank has compiled code in the step; all hear of it likewise.
        times: float64[NUM_TIMES], this rank's times of the step before; all hear of them likewise.

    Raises:
        RanksOutOfMemoryError: Memory ran out in a pass on some ranks, at ZeRO 0 to 2; raised on all. Nothing has
            changed, so the step can be taken again, with the same rows in other micro-batches.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    tally = StepTally(num_tasks, world.device, len(batches))
    run_micro_steps(
        engine,
        batches,
        world,
        tally,
        global_valid_tokens=global_valid_tokens,
        seed=step_seed(seed, step),
        num_chunks=num_chunks or [None] * len(batches),
        part=part,
    )
    among_ranks: Part = part if world.size > 1 else _no_part
    with part("optimizer"):
        tally.stop, tally.compiled, tally.times = asked_to_stop(), has_compiled(), times
        vector = tally.to_vector(local_norm(engine), world.rank, world.size)
        with among_ranks("wait"):
            total = sum_over_ranks(vector)
        sums = tally.read(total, world.size)
        if sums.ran_out:
            drop_gradients(engine)
            raise RanksOutOfMemoryError(sums.ran_out, tally.ran_out)
        return _finish_step(engine, sums, world, among_ranks)


def _finish_step(engine: Engine, sums: StepSums, world: World, part: Part) -> StepResult:
    """Update the weights, or leave them and the optimizer as they are."""
    scale, norm, applied = loss_scale(engine), float("nan"), False
    overflowed = engine.fp16_enabled() and not sums.has_bad_loss
    if sums.faults:
        drop_gradients(engine, lower_scale=overflowed)
    else:
        with collectives_timed(lambda: part("communication")):
            _reduce_gradients(engine, world)
            norm = _update(engine)
        applied = bool(engine.was_step_applied())  # fp16 gradients that float32 holds may still be too large
    done = StepResult(
        sums.loss, norm, sums.counts, sums.by_task, sums.examples, applied, faults=sums.faults, stop=sums.stop
    )
    done = replace(done, meter=sums.meter)
    if applied:
        return done
    reason = explain_overflow(scale, loss_scale(engine)) if overflowed else explain_faults(sums.faults)
    return replace(done, grad_norm=float("nan"), reason=reason, overflowed=overflowed)


def _no_part(name: str) -> AbstractContextManager[None]:
    """Times nothing: a single rank waits for none, and what DeepSpeed does with its gradients is the optimizer's."""
    return nullcontext()


def _reduce_gradients(engine: Engine, world: World) -> None:
    """Average the gradients over ranks (ZeRO-0) or bring them to the ranks that own them, once a step."""
    engine.set_gradient_accumulation_boundary(is_boundary=True)
    if engine.zero_optimization_stage() > 0:
        with engine.coalesce_grad_reduction():
            pass  # on its end DeepSpeed reduces the gradients that lie on the parameters
    elif world.size > 1:
        engine.allreduce_gradients(bucket_size=engine.zero_reduce_bucket_size())


def _update(engine: Engine) -> float:
    """Clip, and let the optimizer step. Returns the norm before clipping, without any loss scale."""
    scale = missing_scale(engine)
    # DeepSpeed forgets the norm that it clips by where it wraps no optimizer: float32 without ZeRO.
    plain = local_norm(engine) if isinstance(engine.optimizer, torch.optim.Optimizer) else None
    with scale_kept(engine):
        engine.step()
    return float(engine.get_global_grad_norm() if plain is None else plain) / scale


def evaluate_loss(
    engine: Engine,
    batches: Iterable[MicroBatch],
    world: World,
    num_tasks: int,
    num_chunks: Iterable[int] | None = None,
    asked_to_stop: Callable[[], int] = int,
) -> tuple[float, list[float], int]:
    """Mean loss over an eval split, computed by all ranks together.

    Args:
        engine: From `build_engine`.
        batches: This rank's micro-batches; every rank must have the same number.
        world: This rank's place.
        num_tasks: Tasks in the data set.
        num_chunks: For each micro-batch the passes through the head of the rank that needs the most; see `train_step`.
        asked_to_stop: Gives the signal that asked this rank to stop, or 0.

    Returns:
        The mean over all supervised tokens in nats, the mean by task (both NaN without tokens), supervised
        tokens.

    Raises:
        RanksOutOfMemoryError: Memory ran out on some ranks, at ZeRO 0 to 2; raised on all.
        StopRequestedError: A signal asked some rank to stop; raised on all.
    """
    was_training = engine.module.training
    engine.eval()
    sums = torch.zeros(num_tasks, 2, dtype=torch.float64, device=world.device)

    def add(batch: MicroBatch, chunks: int | None) -> None:
        on_device = batch.to(world.device)
        _, losses = engine(on_device, num_chunks=common_chunks(engine, on_device, chunks))
        sums.add_(loss_by_task(losses, on_device.target_tasks, num_tasks))

    def add_all() -> None:
        with torch.no_grad():
            passes: Iterable[int | None] = repeat(None) if num_chunks is None else num_chunks
            for number, (batch, chunks) in enumerate(zip(batches, passes, strict=False)):
                if _breaks_off(engine, number, asked_to_stop(), world):
                    break
                add(batch, chunks)

    reason = attempt(engine, add_all)
    engine.train(was_training)
    return _read_eval(sums, reason, asked_to_stop(), world)


def _breaks_off(engine: Engine, number: int, stop: int, world: World) -> bool:
    """Whether to leave an evaluation before a micro-batch. At ZeRO-3, where its passes are common, all must."""
    if engine.zero_optimization_stage() < 3:
        return stop != 0
    if number % STOP_CHECK_EVERY:
        return False
    return bool(max_over_ranks(torch.tensor(float(stop), device=world.device)).item())


def _read_eval(
    sums: torch.Tensor, reason: str | None, stop: int, world: World
) -> tuple[float, list[float], int]:
    """Add up over ranks what `evaluate_loss` returns; hear of ranks whose memory ran out, or that shall stop."""
    ran_out = torch.zeros(world.size, dtype=torch.float64, device=world.device)
    ran_out[world.rank] = float(reason is not None)
    vector = torch.cat([sums.flatten(), ran_out, stop_flags(stop).to(world.device)])
    sizes = [sums.numel(), world.size, len(STOP_SIGNALS)]
    total, flags, stops = torch.split(sum_over_ranks(vector).cpu(), sizes)
    if found := read_stop(stops.tolist()):
        raise StopRequestedError(found)
    if flags.any():
        raise RanksOutOfMemoryError(torch.nonzero(flags).flatten().tolist(), reason)
    by_task = total.reshape(-1, 2).numpy()
    with np.errstate(invalid="ignore"):
        means = (by_task[:, 0] / by_task[:, 1]).tolist()
        mean = float(by_task[:, 0].sum() / by_task[:, 1].sum())
    return mean, means, int(by_task[:, 1].sum())


def gather_adapter(engine: Engine, peft_model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's whole weights on every rank's CPU, also when ZeRO-3 has split them."""
    parameters = trainable_parameters(peft_model)
    if engine.zero_optimization_stage() < 3:
        return adapter_state(peft_model)
    with deepspeed.zero.GatheredParameters([parameter for _, parameter in parameters]):
        whole = {name: parameter.detach().cpu().clone() for name, parameter in parameters}
    return adapter_state(peft_model, whole)
