"""Trials of a micro-batch's rows and of recomputed layers on the real engine, which leave no trace in it.

A trial takes the longest rows of the split through forward and backward pass, twice, so that the second time every
gradient is there. Then the gradients are dropped: weights, optimizer, counters and random numbers are what they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import cast

import numpy as np
import torch
from torch import nn

from harness.data import MicroBatch, collate
from harness.dist import Engine, World, gather_objects
from harness.head import count_chunks
from harness.lora import trainable_parameters
from harness.memory.case import MemoryCase
from harness.memory.estimate import Estimate
from harness.memory.limit import RankMemory
from harness.memory.search import Choice, Found, Measured, search
from harness.micro_steps import attempt, drop_gradients, gradients_kept_local, run_micro_step
from harness.recompute import decoder_layers, enable_recompute
from harness.splits import PlannedSplit


class TrialRun:
    """Trials on one engine, agreed on by all ranks.

    Args:
        loss_chunk: Supervised tokens of a pass through the head.
        world: This rank's place.
        engine: From `harness.engine.build_engine`.
        memory: This rank's.
        case: The run's memory case.
        split: The training rows.
        target: Share of the limit that a peak must not be above.
        say: Prints a line on rank 0.

    Attributes:
        estimate: Where the search starts.
        state_share: Of the target, what weights, optimizer and a step's end take on the rank that has the least left.
    """

    def __init__(
        self,
        loss_chunk: int,
        world: World,
        engine: Engine,
        memory: RankMemory,
        *,
        case: MemoryCase,
        split: PlannedSplit,
        target: float,
        say: Callable[[str], None],
    ) -> None:
        self._loss_chunk, self._world, self._engine, self._memory = loss_chunk, world, engine, memory
        self._say = say
        self._case, self._split, self._plan = case, split, split.plan
        self._causal = cast("nn.Module", engine.module.causal)
        self._num_layers = len(decoder_layers(self._causal))
        self._target_bytes = target * memory.limit_bytes
        self._longest = self._plan.longest_rows()
        self._memory.release()
        self._pending_bytes = count_pending_bytes(self._engine)
        held = self._memory.used() + self._pending_bytes + count_gradient_bytes(self._engine)
        state = held + count_step_bytes(self._engine, world.size)
        of_ranks = gather_objects((held / self._target_bytes, state / self._target_bytes, self._target_bytes))
        held_shares, shares, targets = zip(*of_ranks, strict=True)
        # Every rank searches with the same numbers, so that all try the same.
        self.common_bytes = float(min(targets))
        self._state_bytes, self.state_share = state, float(max(shares))
        self.estimate = Estimate(
            case,
            self._batch(1).counts,
            held_bytes=float(max(held_shares)) * self.common_bytes,
            least_bytes=self.state_share * self.common_bytes,
        )

    def run(self) -> Found:
        """Search; every rank calls it, and all get the same, in the bytes of the rank with the least."""
        steps, ranks = self._plan.sizes_of_steps(), self._world.size
        stage = self._engine.zero_optimization_stage()
        return search(
            self.measure,
            self.estimate.predict_bytes,
            self.estimate.predict_seconds,
            min(-(-int(steps.max()) // ranks), len(self._longest)),
            self._num_layers,
            self.common_bytes,
            micro_steps=lambda rows: float(np.ceil(steps / (rows * ranks)).mean()),
            cautious=stage == 3,
        )

    def _batch(self, rows: int) -> MicroBatch:
        flat = self._case.attention in ("flash", "flex")
        return collate([self._split.rows[int(row)] for row in self._longest[:rows]], flat=flat)

    def measure(self, choice: Choice) -> Measured:
        """The highest share of the target and the slowest time of all ranks, in this rank's bytes."""
        self._say(f"trying {choice}")
        enable_recompute(self._causal, choice.layers)
        batch = self._batch(choice.rows)
        most = choice.rows * self._plan.most_supervised_row
        chunks = count_chunks(most, self._loss_chunk)
        seconds: list[float] = []

        def pass_twice() -> None:
            for _ in range(2):
                started_s = self._clock()
                run_micro_step(
                    self._engine,
                    batch.to(self._world.device),
                    self._world,
                    global_valid_tokens=most * self._world.size,
                    seed=0,
                    num_chunks=chunks,
                    part=lambda name: nullcontext(),
                )
                seconds.append(self._clock() - started_s)

        self._memory.release()
        self._memory.start_peak()
        devices = [self._world.device] if self._world.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), gradients_kept_local(self._engine):
            ran_out = attempt(self._engine, pass_twice)
        peak = self._memory.peak() + self._pending_bytes
        drop_gradients(self._engine)
        self._memory.release()
        peak = max(peak, self._state_bytes)
        return self._agree(None if ran_out is not None else peak / self._target_bytes, seconds[-1:])

    def _agree(self, share: float | None, seconds: list[float]) -> Measured:
        found = gather_objects((share, seconds))
        shares = [one for one, _ in found]
        if any(one is None for one in shares):
            return Measured(None)
        return Measured(max(shares) * self.common_bytes, max(max(times) for _, times in found))

    def _clock(self) -> float:
        if self._world.device.type == "cuda":
            torch.cuda.synchronize(self._world.device)
        return time.perf_counter()


def count_pending_bytes(engine: Engine) -> int:
    """Bytes of Adam's moments that only the first step makes."""
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    weights = [weight for group in inner.param_groups for weight in group["params"]]
    return sum(
        2 * weight.numel() * weight.element_size() for weight in weights if not inner.state.get(weight)
    )


def count_gradient_bytes(engine: Engine) -> int:
    """Bytes of all gradients, which are float32 and whole on every rank."""
    return 4 * sum(getattr(one, "ds_numel", one.numel()) for _, one in trainable_parameters(engine.module))


def count_step_bytes(engine: Engine, world_size: int) -> int:
    """Bytes that a step's end takes beside state and gradients: sums of them on the way, this rank's part of them."""
    gradients = count_gradient_bytes(engine)
    if not engine.zero_optimization_stage():
        return gradients if world_size > 1 else 0
    bucket = count_bucket_bytes(engine)
    if engine.device.type == "cpu":  # of its memory only what is written is taken
        bucket = min(bucket, gradients)
    return bucket + -(-gradients // world_size)


def count_bucket_bytes(engine: Engine) -> int:
    """Bytes that ZeRO allocates for sums of gradients on their way, however small the gradients are."""
    return 4 * int(engine.zero_reduce_bucket_size()) if engine.zero_optimization_stage() else 0
