"""What one optimizer step adds up over micro-steps and ranks, and what it says afterwards; no DeepSpeed in here.

Everything that a step has to know of all ranks travels in one vector, and is read by the host once, before the update::

    counts of work | examples by task | losses and supervised tokens by task
    | bad losses by rank and micro-step | bad gradients by rank | ranks whose memory ran out
    | ranks asked to stop by SIGTERM, by SIGINT
    | pairs of slots | ranks that compiled | times of the step before by rank
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from harness.batch_plan import BatchPlan
from harness.data import MicroBatch
from harness.loss import loss_by_task
from harness.metering.ranks import NUM_TIMES
from harness.throughput import StepCounts
from preprocess.schema import Int64Array

Float64Array = npt.NDArray[np.float64]

Part = Callable[[str], AbstractContextManager[None]]
"""Opens a named part of a step for timing and memory: "forward", "loss", "backward", "optimizer", and within the last
"wait" and "communication", of which a single rank has none."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a step met a number that is not finite.

    Attributes:
        rank: On which rank.
        micro_step: In the loss of which micro-step, from 0; None where it was the rank's gradient.
    """

    rank: int
    micro_step: int | None

    def __str__(self) -> str:
        if self.micro_step is None:
            return f"the gradient on rank {self.rank}"
        return f"the loss of micro-step {self.micro_step + 1} on rank {self.rank}"


class RanksOutOfMemoryError(Exception):
    """Memory ran out on some ranks in what can be done again; raised on all of them, after what they have agreed on.

    Attributes:
        ranks: Which.
        reason: What this rank's allocator said; None where its memory sufficed.
    """

    def __init__(self, ranks: Sequence[int], reason: str | None) -> None:
        super().__init__(f"memory ran out on rank {', '.join(map(str, ranks))}")
        self.ranks = tuple(ranks)
        self.reason = reason


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a run to stop; of two that come, the later one in this list counts."""


class StopRequestedError(Exception):
    """A signal asked some rank to stop; raised on all of them at the same place.

    Attributes:
        signal_number: Which.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


@dataclass(frozen=True, slots=True)
class MeterSums:
    """What all ranks' meters have to say, added up.

    Attributes:
        dense_pairs: Pairs of slots in the micro-batches, R T^2 of R rows of T slots: what a dense mask computes.
        compiled: Whether some rank compiled code in the step.
        times: float64[ranks, NUM_TIMES], the times of the step before; see `harness.metering.ranks`.
    """

    dense_pairs: int = 0
    compiled: bool = False
    times: Float64Array = field(default_factory=lambda: np.zeros((0, NUM_TIMES)))


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        loss: Mean over the step's supervised tokens, in nats; not finite where a loss was not.
        grad_norm: Global norm before clipping, without any loss scale; NaN where the step was not applied.
        counts: Work over all ranks.
        by_task: float64[num_tasks, 2], the sum of losses in nats and the supervised tokens of each task, all ranks.
        examples: int64[num_tasks], questions with their answers of each task, all ranks.
        applied: Whether weights changed. Otherwise they and the optimizer's state are what they were before.
        reason: Why not, or None.
        overflowed: Whether the reason is that fp16 gradients overflowed, for which the loss scale is lowered.
        faults: Where the numbers were that are not finite.
        stop: The signal that asked some rank to stop, or 0.
        meter: What the meter hears of all ranks.
    """

    loss: float
    grad_norm: float
    counts: StepCounts
    by_task: Float64Array
    examples: Int64Array
    applied: bool
    reason: str | None = None
    overflowed: bool = False
    faults: tuple[Fault, ...] = ()
    stop: int = 0
    meter: MeterSums = field(default_factory=MeterSums)


@dataclass(frozen=True, slots=True)
class StepSums:
    """What all ranks did in the forward and backward passes of a step.

    Attributes:
        counts: Work.
        by_task: float64[num_tasks, 2], the sum of losses in nats and the supervised tokens of each task.
        examples: int64[num_tasks].
        faults: Losses and gradients that are not finite, losses first.
        ran_out: Ranks whose memory ran out; then the step is to be done again, and the rest says nothing.
        stop: The signal that asked some rank to stop, or 0.
        meter: What the meter hears of all ranks.
    """

    counts: StepCounts
    by_task: Float64Array
    examples: Int64Array
    faults: tuple[Fault, ...]
    ran_out: tuple[int, ...] = ()
    stop: int = 0
    meter: MeterSums = field(default_factory=MeterSums)

    @property
    def loss(self) -> float:
        """Mean over the supervised tokens, in nats; 0 without any."""
        loss, tokens = self.by_task.sum(axis=0)
        return float(loss / max(tokens, 1.0))

    @property
    def has_bad_loss(self) -> bool:
        """Whether a loss is not finite."""
        return any(fault.micro_step is not None for fault in self.faults)


@dataclass(slots=True)
class StepTally:
    """One rank's sums of a step; they stay on the device until `read`.

    Attributes:
        num_tasks: Tasks in the data set; None counts all tokens as one task's.
        device: Where the losses are.
        num_micro_steps: Of the step, as many on every rank.
        counts: Work so far.
        by_task: float64[num_tasks, 2].
        examples: int64[num_tasks].
        bad_losses: For each micro-step done float64[], 1 where its loss is not finite.
        ran_out: What the allocator said when memory ran out, or None.
        stop: The signal that asked this rank to stop, or 0.
        dense_pairs: Pairs of slots so far.
        compiled: Whether this rank has compiled code in the step.
        times: float64[NUM_TIMES], this rank's times of the step before; None for none.
    """

    num_tasks: int | None
    device: torch.device
    num_micro_steps: int
    counts: StepCounts = field(default_factory=StepCounts)
    by_task: torch.Tensor = field(init=False)
    examples: Int64Array = field(init=False)
    bad_losses: list[torch.Tensor] = field(default_factory=list)
    ran_out: str | None = None
    stop: int = 0
    dense_pairs: int = 0
    compiled: bool = False
    times: Float64Array | None = None

    def __post_init__(self) -> None:
        self.by_task = torch.zeros(self.num_tasks or 1, 2, dtype=torch.float64, device=self.device)
        self.examples = np.zeros(self.num_tasks or 1, dtype=np.int64)

    def add(self, batch: MicroBatch, loss_sum: torch.Tensor, losses: torch.Tensor) -> None:
        """Count a micro-step: its batch, the sum that goes into backward, float[N] losses of its tokens."""
        tasks = batch.target_tasks if self.num_tasks else torch.zeros_like(batch.target_tasks)
        self.by_task += loss_by_task(losses, tasks, len(self.by_task))
        self.bad_losses.append((~torch.isfinite(loss_sum.detach())).double())
        self.examples += batch.examples_by_task(self.num_tasks) if self.num_tasks else batch.counts.examples
        self.counts += batch.counts
        rows, slots = batch.input_ids.shape
        self.dense_pairs += rows * slots * slots

    def to_vector(self, grad_norm: torch.Tensor, rank: int, world_size: int) -> torch.Tensor:
        """float64[...]: this rank's part of the step, to be added up over ranks.

        Args:
            grad_norm: Scalar, the norm of this rank's own gradients: finite when all of them are.
            rank: This rank.
            world_size: Ranks.
        """
        counts = torch.from_numpy(np.concatenate([self.counts.to_array(), self.examples]).astype(np.float64))
        losses = torch.zeros(world_size, self.num_micro_steps, dtype=torch.float64, device=self.device)
        if self.bad_losses:
            losses[rank, : len(self.bad_losses)] = torch.stack(self.bad_losses)
        gradients, ran_out = torch.zeros(2, world_size, dtype=torch.float64, device=self.device)
        gradients[rank] = (~torch.isfinite(grad_norm)).double()
        ran_out[rank] = float(self.ran_out is not None)
        moved = counts.to(self.device, non_blocking=True)
        last = torch.cat([stop_flags(self.stop), self._meter_vector(rank, world_size)])
        flags = last.to(self.device, non_blocking=True)
        return torch.cat([moved, self.by_task.flatten(), losses.flatten(), gradients, ran_out, flags])

    def _meter_vector(self, rank: int, world_size: int) -> torch.Tensor:
        times = np.zeros((world_size, NUM_TIMES))
        if self.times is not None:
            times[rank] = self.times
        return torch.from_numpy(np.concatenate([[self.dense_pairs, self.compiled], times.ravel()]))

    def read(self, total: torch.Tensor, world_size: int) -> StepSums:
        """The sums over all ranks, on the host: the one place where it waits for the device.

        Args:
            total: What `to_vector` gives, added up over ranks.
            world_size: Ranks.
        """
        values = total.cpu().numpy()
        num_counts, num_tasks = len(self.counts.to_array()), len(self.examples)
        sizes = (
            num_counts,
            num_tasks,
            2 * num_tasks,
            world_size * self.num_micro_steps,
            world_size,
            world_size,
            len(STOP_SIGNALS),
        )
        counts, examples, by_task, losses, gradients, ran_out, stop, meter = np.split(
            values, np.cumsum(sizes)
        )
        return StepSums(
            StepCounts.from_array(counts.astype(np.int64)),
            by_task.reshape(-1, 2),
            examples.astype(np.int64),
            find_faults(losses.reshape(world_size, -1), gradients),
            tuple(np.flatnonzero(ran_out > 0).tolist()),
            read_stop(stop.tolist()),
            MeterSums(int(meter[0]), bool(meter[1]), meter[2:].reshape(world_size, NUM_TIMES)),
        )


def stop_flags(signal_number: int) -> torch.Tensor:
    """float64[2]: 1 at the signal's place in `STOP_SIGNALS`, to be added up over ranks."""
    return torch.tensor([float(signal_number == one) for one in STOP_SIGNALS], dtype=torch.float64)


def read_stop(flags: Sequence[float]) -> int:
    """The signal that sums of `stop_flags` tell of, or 0."""
    return max(
        (int(one) for one, flag in zip(STOP_SIGNALS, flags, strict=True) if flag),
        key=STOP_SIGNALS.index,
        default=0,
    )


def find_faults(losses: Float64Array, gradients: Float64Array) -> tuple[Fault, ...]:
    """The faults that flags tell of.

    Args:
        losses: float64[ranks, micro-steps], above 0 where a loss is not finite.
        gradients: float64[ranks], above 0 where a gradient is not finite.
    """
    bad_losses = [Fault(int(rank), int(micro_step)) for rank, micro_step in np.argwhere(losses > 0)]
    return (*bad_losses, *(Fault(int(rank), None) for rank in np.flatnonzero(gradients > 0)))


def explain_faults(faults: Sequence[Fault]) -> str:
    """Why a step is not applied: which numbers are not finite. A gradient is not named where a loss is to blame."""
    losses = [fault for fault in faults if fault.micro_step is not None]
    named = losses or faults
    return f"{join_some(named)} {'is' if len(named) == 1 else 'are'} not finite"


def explain_overflow(before: float, after: float) -> str:
    """Why a step in fp16 is not applied: its gradients were too large, with these loss scales then and from now on."""
    change = f"lowered to {after:g}" if after < before else "kept"
    return f"gradients overflow fp16 at loss scale {before:g}, which is {change}"


def name_rows(plan: BatchPlan, step: int, faults: Sequence[Fault], at_most: int = 8) -> str:
    """The rows among which numbers arose that are not finite, in brackets for a message; nothing without a fault."""
    rows: set[int] = set()
    for fault in faults:
        parts = plan.rows_of_rank(step, fault.rank)
        chosen = parts if fault.micro_step is None else [parts[fault.micro_step]]
        rows.update(int(row) for part in chosen for row in part)
    shown = ", ".join(map(str, sorted(rows)[:at_most])) + (" …" if len(rows) > at_most else "")
    return f" (rows {shown})" if rows else ""


def join_some(faults: Sequence[Fault], at_most: int = 4) -> str:
    """The first faults in words, and how many more there are."""
    named = ", ".join(str(fault) for fault in faults[:at_most])
    return named if len(faults) <= at_most else f"{named} and {len(faults) - at_most} more"


def step_seed(seed: int, step: int) -> int:
    """Seed of a step's dropout masks: the same on every rank and in every micro-step."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
