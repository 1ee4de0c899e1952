"""The rows of a micro-batch and the recomputed layers of a run: found by trial, changed when memory runs out.

A trial takes the longest rows of the split through forward and backward pass on the real engine, twice, so that the
second time every gradient is there. Then the gradients are dropped: weights, optimizer, counters and random numbers are
what they were.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.attention.choice import Kind
from harness.config import RunConfig, load_deepspeed_config
from harness.data import MicroBatch, collate
from harness.dist import Engine, World, gather_objects, run_together
from harness.head import count_chunks
from harness.lora import trainable_parameters
from harness.memory.estimate import Estimate
from harness.memory.fit_file import FIT_FILE, Fit, read_fit, shrink, write_fit
from harness.memory.limit import RankMemory, check_target, open_memory, spell
from harness.memory.measured import measure_parts
from harness.memory.search import Choice, Found, Measured, search
from harness.micro_steps import attempt, drop_gradients, gradients_kept_local, run_micro_step
from harness.recompute import decoder_layers, enable_recompute
from harness.run_folder import versions
from harness.shapes import read_shape
from harness.splits import PlannedSplit
from preprocess.errors import OutOfMemoryError

LESS_MEMORY = (
    "What takes less: --set model.recompute_layers=all, a smaller batch.micro_batch_size or lora.r, a higher ZeRO "
    "stage, shorter rows (build the data set with a smaller seq_len), more memory or ranks"
)


class MemoryFit:
    """What a run's micro-batches are, and the memory that they have.

    Args:
        config: The run's.
        world: This rank's place.
        engine: From `harness.engine.build_engine`.
        attention: The kernel.
        split: The training rows.
        holds_for: What the run is; with the memory's settings the key of what is kept in the run folder.
        writes: Whether this rank writes into the run folder.
        say: Prints a line on rank 0.

    Attributes:
        choice: Rows and recomputed layers now.
        memory: This rank's.
    """

    def __init__(
        self,
        config: RunConfig,
        world: World,
        engine: Engine,
        *,
        attention: Kind,
        split: PlannedSplit,
        holds_for: dict[str, Any],
        writes: bool,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.world, self.engine, self.say = config, world, engine, say
        self.attention, self.split, self.writes = attention, split, writes
        self.num_layers = len(decoder_layers(self.causal))
        wanted = config.model.recompute_layers
        self.choice = Choice(
            config.batch.micro_batch_size, self.num_layers if wanted == "all" else int(wanted)
        )
        self.memory: RankMemory = open_memory(config.memory, world.device, count_ranks_here(world))
        self._key = make_key(config, holds_for, self.memory.limit_bytes)

    @property
    def causal(self) -> nn.Module:
        """The model without the loss."""
        causal: nn.Module = self.engine.module.causal
        return causal

    @property
    def _path(self) -> Path:
        return self.config.output_dir / FIT_FILE

    def settle(self) -> None:
        """Take the choice that the run folder holds, or find one where a target is set, or keep the configured one.

        Raises:
            OutOfMemoryError: The target is above what is free, or not even the smallest choice stays under it.
        """
        target = self.config.memory.target
        if target is not None:
            run_together(lambda: check_target(self.memory, target, self.world.rank))
        if target is not None or self.config.memory.limit_gib is not None:
            self.memory.enforce(count_bucket_bytes(self.engine))
        fit, why = gather_objects(read_fit(self._path, self._key) if self.world.is_main else None)[0]
        if why is not None:
            self.say(why)
        if fit is not None:
            self._take(fit.choice)
            self.say(f"{describe(fit.choice)}, as {self._path} has it ({fit.origin})")
        elif target is not None:
            self._find(target)

    def _take(self, choice: Choice) -> None:
        self.choice = choice
        enable_recompute(self.causal, choice.layers)

    def _find(self, target: float) -> None:
        limit = self.memory.limit_bytes
        trial_run = TrialRun(self, target)
        if trial_run.state_share > 1:
            raise OutOfMemoryError(
                f"weights, optimizer and gradients alone take {trial_run.state_share * target:.1%} of what a rank may "
                f"use ({spell(limit)}, {self.memory.source}), and memory.target is {target:.1%}.\n{self.table()}\n"
                f"{LESS_MEMORY}"
            )
        started_s = time.perf_counter()
        found = trial_run.run()
        if found.choice is None:
            raise OutOfMemoryError(
                f"one row and every layer recomputed take more than memory.target {target:g} of {spell(limit)} "
                f"({self.memory.source}).\n{self.table()}\n{LESS_MEMORY}"
            )
        assert found.peak_bytes is not None
        share = (
            found.peak_bytes / trial_run.common_bytes * target
        )  # of the limit, on the rank with the least left
        peak = share * limit
        self._take(found.choice)
        trials = [
            {**one.choice._asdict(), "peak_bytes": one.measured.peak_bytes, "seconds": one.measured.seconds}
            for one in found.trials
        ]
        self._write(Fit(found.choice, "search", peak, target * limit, trials))
        self.say(
            f"{describe(found.choice)}: at most {spell(peak)} of {spell(limit)} ({share:.1%}, target "
            f"{target:.1%}; {self.memory.source}), found by {len(trials)} trials in "
            f"{time.perf_counter() - started_s:.1f} s"
        )

    def _write(self, fit: Fit) -> None:
        if self.writes:
            write_fit(self._path, self._key, fit)

    def take_less(
        self, rows_in_step: int, step: int, ranks: tuple[int, ...], reason: str | None
    ) -> dict[str, Any]:
        """Answer to memory that ran out in a step: choose what takes less; every rank calls it.

        Args:
            rows_in_step: The most rows that a micro-batch of the step had.
            step: Optimizer steps done before it.
            ranks: Where memory ran out.
            reason: What the allocator said, where it was this rank's.

        Returns:
            The event, as plain values.

        Raises:
            OutOfMemoryError: Nothing takes less.
        """
        tried, less = self.choice, shrink(self.choice, rows_in_step, self.num_layers)
        where = f"step {step + 1}: memory ran out on rank {', '.join(map(str, ranks))} with {describe(tried)}"
        reasons = [one for one in gather_objects(reason) if one is not None]
        if less is None:
            raise OutOfMemoryError(
                f"{where} ({reasons[0]}); nothing takes less.\n{self.table()}\n{LESS_MEMORY}"
            )
        self.memory.release()
        self._take(less)
        self._write(Fit(less, "out of memory", step=step + 1))
        self.say(f"{where} ({reasons[0]}); the step is taken again with {describe(less)}")
        event = {"event": "out of memory", "ranks": list(ranks), "reason": reasons[0]}
        return {**event, "tried": tried._asdict(), "taken": less._asdict()}

    def explain(self, error: BaseException, doing: str) -> OutOfMemoryError:
        """The user's error for memory that ran out where nothing can be done again."""
        text = next(iter(str(error).splitlines()), type(error).__name__)
        smaller = shrink(self.choice, self.choice.rows, self.num_layers)
        advice = "" if smaller is None else (
            f"Take less, as with --set batch.micro_batch_size={smaller.rows} --set model.recompute_layers="
            f"{smaller.layers}, and --resume from the last checkpoint where there is one. "
        )  # fmt: skip
        return OutOfMemoryError(
            f"memory ran out on rank {self.world.rank} in {doing}, with {describe(self.choice)} ({text}).\n"
            f"{self.table()}\n{advice}{LESS_MEMORY}"
        )

    def table(self) -> str:
        """Where this rank's memory is now, a line for each part."""
        parts = {str(part): size for part, size in measure_parts(self.engine).items() if size}
        used, limit = self.memory.used(), self.memory.limit_bytes
        parts |= {"the rest": max(0, used - sum(parts.values())), "in use": used, "limit": limit}
        width = max(map(len, parts))
        return "\n".join(f"  {name:{width}}  {spell(size):>12}" for name, size in parts.items())


class TrialRun:
    """Trials on one engine, agreed on by all ranks.

    Attributes:
        estimate: Where the search starts.
        state_share: Of the target, what weights, optimizer and a step's end take on the rank that has the least left.
    """

    def __init__(self, fit: MemoryFit, target: float) -> None:
        self._fit, self._engine, self._world, self._memory = fit, fit.engine, fit.world, fit.memory
        self._target_bytes = target * fit.memory.limit_bytes
        self._plan = fit.split.plan
        self._longest = self._plan.longest_rows()
        self._memory.release()
        self._pending_bytes = count_pending_bytes(self._engine)
        state = self._memory.used() + self._pending_bytes + count_step_bytes(self._engine, fit.world.size)
        shares, targets = zip(*gather_objects((state / self._target_bytes, self._target_bytes)), strict=True)
        # Every rank searches with the same numbers, so that all try the same.
        self.common_bytes = float(min(targets))
        self._state_bytes, self.state_share = state, float(max(shares))
        self.estimate = Estimate(
            fit.config,
            read_shape(fit.causal.config),
            fit.attention,
            self._batch(1).counts,
            self.state_share * self.common_bytes,
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
            self._fit.num_layers,
            self.common_bytes,
            micro_steps=lambda rows: float(np.ceil(steps / (rows * ranks)).mean()),
            cautious=stage == 3,
        )

    def _batch(self, rows: int) -> MicroBatch:
        flat = self._fit.attention in ("flash", "flex")
        return collate([self._fit.split.rows[int(row)] for row in self._longest[:rows]], flat=flat)

    def measure(self, choice: Choice) -> Measured:
        """The highest share of the target and the slowest time of all ranks, in this rank's bytes."""
        self._fit.say(f"trying {describe(choice)}")
        enable_recompute(self._fit.causal, choice.layers)
        batch = self._batch(choice.rows)
        most = choice.rows * self._plan.most_supervised_row
        chunks = count_chunks(most, self._fit.config.model.loss_chunk)
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


def describe(choice: Choice) -> str:
    """As in "micro_batch_size 8, recompute_layers 4"."""
    return f"micro_batch_size {choice.rows}, recompute_layers {choice.layers}"


def count_ranks_here(world: World) -> int:
    """Ranks on this rank's host."""
    hosts = gather_objects(socket.gethostname())
    return hosts.count(hosts[world.rank])


def make_key(config: RunConfig, holds_for: dict[str, Any], limit_bytes: int) -> dict[str, Any]:
    """What a found choice holds for, as plain values."""
    model = config.model.model_dump(mode="json", exclude={"recompute_layers"})
    start = None
    if config.memory.target is None:  # what memory that ran out has changed is a change of these
        start = {"rows": config.batch.micro_batch_size, "layers": config.model.recompute_layers}
    return {
        **{
            name: value
            for name, value in holds_for.items()
            if name in ("data", "world_size", "batch", "lora")
        },
        "model": model,
        "deepspeed": load_deepspeed_config(config.deepspeed),
        "limit_bytes": limit_bytes,
        "target": config.memory.target,
        "start": start,
        "versions": {
            name: version for name, version in versions().items() if name not in ("platform", "host")
        },
    }


def count_pending_bytes(engine: Engine) -> int:
    """Bytes of Adam's moments that only the first step makes."""
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    weights = [weight for group in inner.param_groups for weight in group["params"]]
    return sum(
        2 * weight.numel() * weight.element_size() for weight in weights if not inner.state.get(weight)
    )


def count_step_bytes(engine: Engine, world_size: int) -> int:
    """Bytes that a step's end takes beside state: all gradients, their sums on the way, this rank's part of them."""
    numbers = sum(getattr(one, "ds_numel", one.numel()) for _, one in trainable_parameters(engine.module))
    if not engine.zero_optimization_stage():
        return 4 * numbers * (2 if world_size > 1 else 1)
    bucket = count_bucket_bytes(engine)
    if engine.device.type == "cpu":  # of its memory only what is written is taken
        bucket = min(bucket, 4 * numbers)
    return bucket + 4 * (numbers + -(-numbers // world_size))


def count_bucket_bytes(engine: Engine) -> int:
    """Bytes that ZeRO allocates for sums of gradients on their way, however small the gradients are."""
    return 4 * int(engine.zero_reduce_bucket_size()) if engine.zero_optimization_stage() else 0
