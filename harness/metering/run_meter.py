"""A run's meter on one rank: its clock, and everything beside it that is measured step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from harness.config import RunConfig
from harness.dist import World, gather_objects
from harness.memory.case import MemoryCase
from harness.metering.ceilings import CEILINGS_FILE, Ceilings, write_ceilings
from harness.metering.compiling import CompileWatch
from harness.metering.efficiency import FlopCount, StepEfficiency
from harness.metering.energy import EnergyMeter, add_up_energy, find_counter
from harness.metering.measure import measure_ceilings
from harness.metering.ranks import Float64Array, OwnTimes, describe_ranks, keep_times, total_by_rank
from harness.metering.time_left import TimeLeft
from harness.meters import ThroughputMeter
from harness.step import StepResult
from harness.throughput import StepRates, divide

CLOSE_LOOK_EVERY = 20
"""One step in so many has its memory looked at layer by layer. On a GPU it is also the one that is timed by parts: it
waits for the device at each part's ends, while in the others the host runs ahead of it."""

FIRST_LOOKS = 3
"""Steps from the start that are looked at as well: memory has its peak by then, and a short run has parts too."""


def is_looked_at(steps_done: int) -> bool:
    """Whether the next step is looked at closely, after so many steps of this process."""
    return steps_done < FIRST_LOOKS or steps_done % CLOSE_LOOK_EVERY == 0


@dataclass(frozen=True, slots=True)
class StepMeasures:
    """What a step's end tells.

    Attributes:
        rates: The step's time and rates; its parts are this rank's.
        efficiency: Its FLOPs and their shares.
        eta_s: Seconds to the end of the run.
        ranks: The line of metrics.jsonl with the times of the step before on all ranks; None where it was not timed by
            parts.
    """

    rates: StepRates
    efficiency: StepEfficiency
    eta_s: float | None
    ranks: dict[str, Any] | None


class RunMeter:
    """The meter of a run on one rank.

    Args:
        config: The run's.
        world: This rank's place.
        num_steps: Of the whole run.
        eval_tokens: Of the eval split.

    Attributes:
        clock: Times steps and parts.
        ceilings: What the devices can do, once they were measured.
        steps_here: Steps that this process has begun.
    """

    ceilings: Ceilings

    def __init__(self, config: RunConfig, world: World, num_steps: int, eval_tokens: int) -> None:
        self.clock = ThroughputMeter(synchronize=synchronizer(world.device))
        self._config = config
        self._world = world
        self._flops: FlopCount | None = None
        self._compiling = CompileWatch()
        self._energy = EnergyMeter(find_counter(world))
        schedule = config.schedule
        self._left = TimeLeft(num_steps, schedule.eval_every_steps, schedule.save_every_steps, eval_tokens)
        self._own: OwnTimes | None = None
        self._examples = 0
        self.steps_here = 0

    def measure(self) -> None:
        """Measure the ceilings, and let the first rank write them down; every rank calls this."""
        self.ceilings = measure_ceilings(self._world, self._config.model.precision)
        self.clock.transfer_s = self.ceilings.allreduce_latency_s or 0.0
        if self._world.is_main:
            write_ceilings(self._config.output_dir / CEILINGS_FILE, self.ceilings)

    def count_flops(self, case: MemoryCase | None, recompute_layers: int) -> None:
        """From now on count a model's FLOPs, with so many layers that run again in the backward pass."""
        if self._flops is None:
            self._flops = FlopCount(case, self.ceilings)
        self._flops.set_recompute(recompute_layers)

    def start_step(self) -> bool:
        """Begin a step. Returns whether its memory is to be looked at closely."""
        closely = is_looked_at(self.steps_here)
        self.steps_here += 1
        self._energy.start()
        if closely:
            self._energy.look()
        self.clock.start_step(detailed=closely or self._world.device.type == "cpu")
        return closely

    @property
    def has_compiled(self) -> Callable[[], bool]:
        """Whether this rank has compiled code since the step's beginning."""
        return self._compiling.has_compiled

    @property
    def own_times(self) -> Float64Array | None:
        """float64[NUM_TIMES], this rank's times of the step before, for the others."""
        return None if self._own is None else self._own.seconds

    def end_step(self, step: int, result: StepResult) -> StepMeasures:
        """End a step.

        Args:
            step: Optimizer steps done, this one included.
            result: What the engine gave.
        """
        rates = self.clock.end_step(result.counts, compiled=result.meter.compiled)
        before, self._own = self._own, keep_times(step, rates)
        self._examples += result.counts.examples
        self._note(rates, result.counts.tokens)
        efficiency = StepEfficiency()
        if self._flops is not None:
            efficiency = self._flops.add_step(
                result.counts, result.meter.dense_pairs, rates.step_time_s, is_warmup=rates.is_warmup
            )
        ranks = (
            describe_ranks(before.step, result.meter.times) if before is not None and before.by_part else None
        )
        return StepMeasures(rates, efficiency, self._left.estimate(step), ranks)

    def _note(self, rates: StepRates, tokens: int) -> None:
        """Learn how long things take, for the time that is left."""
        parts_s = rates.parts_s
        self._left.note_step(rates.step_time_s + rates.stalls_s, is_warmup=rates.is_warmup)
        if "forward" in parts_s:
            self._left.note_forward(parts_s["forward"] + parts_s["loss"], tokens)
        if "eval" in parts_s:
            self._left.note_eval(parts_s["eval"])
        if "save" in parts_s:
            self._left.note_save(parts_s["save"])

    def finish(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """What the summary says beside the clock's; every rank calls this.

        Returns:
            Further fields of the summary, and the last line of times by rank, as `StepMeasures.ranks`.
        """
        found = gather_objects(
            (self.clock.totals(), self._energy.joules(), self._world.local_rank, self.own_times)
        )
        totals, joules, local_ranks, times = zip(*found, strict=True)
        devices = [rank.device for rank in self.ceilings.ranks]
        energy_j = add_up_energy(joules, devices, local_ranks)
        summary = {
            **asdict(StepEfficiency() if self._flops is None else self._flops.summary()),
            "energy_j": energy_j,
            "joules_per_example": divide(energy_j, self._examples) if energy_j and self._examples else None,
            "hosts": self.ceilings.hosts,
            "by_rank": total_by_rank(totals),
        }
        if self._own is None or not self._own.by_part:
            return summary, None
        return summary, describe_ranks(self._own.step, np.stack(times))


def synchronizer(device: torch.device) -> Callable[[], None] | None:
    """What waits for a device's work, so that the parts of a step are its own; None on the CPU."""
    return None if device.type == "cpu" else lambda: torch.accelerator.synchronize(device)
