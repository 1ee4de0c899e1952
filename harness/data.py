"""Which rows a step takes on which rank, as pure arithmetic, and how rows become a micro-batch of tensors.

The order of rows depends on the seed and the epoch alone, and a step takes the same rows on any number of ranks::

    permutation of an epoch   7 2 9 4 | 1 8 0 3 | 5 6          global_batch_size 4
                              step 0    step 1    step 2 (two rows: the rest of the ranks compute an empty one)

    step 0 on 2 ranks, micro_batch_size 1:      rank 0: 7, 9     rank 1: 2, 4     (2 micro-steps)
    step 0 on 1 rank:                           rank 0: 7, 2, 9, 4                (4 micro-steps)

So resuming needs the step's number and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harness.throughput import StepCounts
from preprocess.forest import PackedRow, euler_intervals, position_ids, segment_of_slot
from preprocess.schema import Int64Array


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Assigns rows to steps, micro-steps and ranks.

    Attributes:
        num_rows: Rows in the split.
        micro_batch_size: Rows of one forward pass on one rank.
        accumulation_steps: Micro-steps of one optimizer step.
        world_size: Ranks.
        seed: Seed of the order; None keeps the stored order (evaluation).
    """

    num_rows: int
    micro_batch_size: int
    accumulation_steps: int
    world_size: int
    seed: int | None

    @property
    def global_batch_size(self) -> int:
        """Rows of one optimizer step."""
        return self.micro_batch_size * self.accumulation_steps * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in a pass over all rows; the last may hold fewer rows."""
        return -(-self.num_rows // self.global_batch_size)

    def rows_of_step(self, step: int) -> Int64Array:
        """int64[≤ global_batch_size]: the rows of a step (counted from 0 over all epochs)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.global_batch_size
        return self._order(epoch)[start : start + self.global_batch_size]

    def rows_of_rank(self, step: int, rank: int) -> list[Int64Array]:
        """The rows of a step that a rank computes, one array a micro-step; an array may be empty."""
        rows = self.rows_of_step(step)
        at_once = self.micro_batch_size * self.world_size
        first = [micro * at_once + rank * self.micro_batch_size for micro in range(self.accumulation_steps)]
        return [rows[start : start + self.micro_batch_size] for start in first]

    def _order(self, epoch: int) -> Int64Array:
        if self.seed is None:
            return np.arange(self.num_rows, dtype=np.int64)
        key = np.array([self.seed, epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(self.num_rows)


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """R rows of one forward pass, padded to the longest of them (T slots); N supervised tokens.

    Attributes:
        input_ids: int64[R, T].
        position_ids: int64[R, T], restarting at each root and going on from a parent's end.
        entry: int32[R, T], Euler entry time of each slot's segment.
        exit: int32[R, T], Euler exit time. Slot q sees slot k when entry[k] <= entry[q] < exit[k] and k <= q.
        sources: int64[N], flat slot (row * T + slot) whose hidden state predicts a supervised token: the slot
            before it, which lies in the same segment.
        targets: int64[N], the supervised token ids.
        target_tasks: int64[N], the task that each supervised token belongs to.
        counts: Rows, examples, tokens, supervised tokens, slots.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    entry: torch.Tensor
    exit: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    target_tasks: torch.Tensor
    counts: StepCounts

    def to(self, device: torch.device) -> MicroBatch:
        """The same batch on a device."""
        names = ("input_ids", "position_ids", "entry", "exit", "sources", "targets", "target_tasks")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return MicroBatch(**moved, counts=self.counts)


def collate(rows: Sequence[PackedRow]) -> MicroBatch:
    """Lay rows out as one padded micro-batch.

    No rows at all give a batch of one padding slot without a supervised token: a rank that has nothing left in
    the last step still takes part in every collective, and adds nothing to loss or gradient.
    """
    num_rows = max(len(rows), 1)
    num_slots = max((len(row.input_ids) for row in rows), default=1)
    ids = np.zeros((num_rows, num_slots), dtype=np.int64)
    positions = np.zeros((num_rows, num_slots), dtype=np.int64)
    # A padding slot is a tree of its own, so that its softmax has something to attend to.
    entry = np.tile(np.arange(num_slots, dtype=np.int32) + num_slots, (num_rows, 1))
    exit_ = entry + 1
    mask = np.zeros((num_rows, num_slots), dtype=np.bool_)
    tasks = np.full((num_rows, num_slots), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        length, segment = len(row.input_ids), segment_of_slot(row)
        row_entry, row_exit = euler_intervals(row)
        ids[i, :length] = row.input_ids
        positions[i, :length] = position_ids(row)
        entry[i, :length] = row_entry[segment]
        exit_[i, :length] = row_exit[segment]
        mask[i, :length] = row.label_mask
        tasks[i, :length] = row.tasks[segment]
    supervised = np.flatnonzero(mask)
    return MicroBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        entry=torch.from_numpy(entry),
        exit=torch.from_numpy(exit_),
        sources=torch.from_numpy(supervised - 1),
        targets=torch.from_numpy(ids.ravel()[supervised]),
        target_tasks=torch.from_numpy(tasks.ravel()[supervised]),
        counts=StepCounts(
            rows=len(rows),
            examples=sum(row.num_examples for row in rows),
            tokens=sum(len(row.input_ids) for row in rows),
            supervised_tokens=len(supervised),
            slots=num_rows * num_slots,
        ),
    )
