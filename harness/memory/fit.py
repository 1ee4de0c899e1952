"""The rows of a micro-batch and the recomputed layers of a run: found by trial, changed when memory runs out."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from harness.config import RunConfig
from harness.deepspeed_config import load_deepspeed_config
from harness.dist import Engine, World, gather_objects, run_together
from harness.memory.case import MemoryCase
from harness.memory.fit_file import FIT_FILE, Fit, read_fit, shrink, write_fit
from harness.memory.limit import RankMemory, check_target, open_memory, spell
from harness.memory.measured import measure_parts
from harness.memory.search import Choice
from harness.memory.trials import TrialRun, count_bucket_bytes
from harness.recompute import decoder_layers, enable_recompute
from harness.run_folder import versions
from harness.splits import PlannedSplit
from preprocess.errors import ConfigError, OutOfMemoryError

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
        case: Its memory case, or None where the model's layers are not known.
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
        case: MemoryCase | None,
        split: PlannedSplit,
        holds_for: dict[str, Any],
        writes: bool,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.world, self.engine, self.say = config, world, engine, say
        self.case, self.split, self.writes = case, split, writes
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
            self.say(f"{fit.choice}, as {self._path} has it ({fit.origin})")
        elif target is not None:
            self._find(target)

    def _take(self, choice: Choice) -> None:
        self.choice = choice
        enable_recompute(self.causal, choice.layers)

    def open_trials(self, target: float) -> TrialRun:
        """Trials against a target, on this run's engine.

        Raises:
            ConfigError: What the model takes cannot be predicted.
        """
        if self.case is None:
            raise ConfigError(
                "memory.target: what this model's layers hold is not known, so there is nothing to start from; set it "
                "to null, and batch.micro_batch_size and model.recompute_layers by hand"
            )
        return TrialRun(
            self.config.model.loss_chunk,
            self.world,
            self.engine,
            self.memory,
            case=self.case,
            split=self.split,
            target=target,
            say=self.say,
        )

    def _find(self, target: float) -> None:
        limit = self.memory.limit_bytes
        trial_run = self.open_trials(target)
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
            f"{found.choice}: at most {spell(peak)} of {spell(limit)} ({share:.1%}, target "
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
        where = f"step {step + 1}: memory ran out on rank {', '.join(map(str, ranks))} with {tried}"
        reasons = [one for one in gather_objects(reason) if one is not None]
        if less is None:
            raise OutOfMemoryError(
                f"{where} ({reasons[0]}); nothing takes less.\n{self.table()}\n{LESS_MEMORY}"
            )
        self.memory.release()
        self._take(less)
        self._write(Fit(less, "out of memory", step=step + 1))
        self.say(f"{where} ({reasons[0]}); the step is taken again with {less}")
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
            f"memory ran out on rank {self.world.rank} in {doing}, with {self.choice} ({text}).\n"
            f"{self.table()}\n{advice}{LESS_MEMORY}"
        )

    def table(self) -> str:
        """Where this rank's memory is now, a line for each part."""
        parts = {str(part): size for part, size in measure_parts(self.engine).items() if size}
        used, limit = self.memory.used(), self.memory.limit_bytes
        parts |= {"the rest": max(0, used - sum(parts.values())), "in use": used, "limit": limit}
        width = max(map(len, parts))
        return "\n".join(f"  {name:{width}}  {spell(size):>12}" for name, size in parts.items())


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
