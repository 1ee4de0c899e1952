"""Which rows a step takes, and on which rank: pure arithmetic from a seed, the rows' sizes and a step's number.

The order of rows depends on the seed and the epoch alone. A step takes rows in that order until the next one would
take it further from its target (rows, examples, or tokens) than it is, at least one row; an epoch's last step takes
what is left. Neither ranks nor micro-batches have a say in it::

    order of an epoch     7  2  9  4  1  8  0       examples_per_step 10
    examples in the row   4  5  4  9  6  3  2
    step                  0  0  1  1  2  2  2       of 9 (13 is further), 13 (4 is further), 11 (as near as 9: taken)

Within a step rows are dealt by size, so that all ranks have as many (one more at most) and as much to compute::

    a step of five rows on 2 ranks, micro_batch_size 2       micro-step 0    micro-step 1
                                                   rank 0    4 1             7
                                                   rank 1    2 9             none: an empty batch

So resuming needs the step's number and nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from preprocess.schema import Int32Array, Int64Array

if TYPE_CHECKING:
    from harness.row_sizes import RowSizes

Unit = Literal["rows", "examples", "tokens"]


class StepTarget(NamedTuple):
    """How much one optimizer step takes, over all ranks.

    Attributes:
        unit: What is counted.
        amount: How many, at least 1.
    """

    unit: Unit
    amount: int


class Epoch(NamedTuple):
    """One pass over the R rows in S steps.

    Attributes:
        order: int64[R], the rows in the order in which they are taken.
        bounds: int64[S + 1]; step s takes ``order[bounds[s] : bounds[s + 1]]``.
    """

    order: Int64Array
    bounds: Int64Array

    @property
    def num_steps(self) -> int:
        """Optimizer steps."""
        return len(self.bounds) - 1


class BatchPlan:
    """Assigns rows to steps, micro-steps and ranks. Safe to ask from several threads.

    Args:
        sizes: Of the split's rows, at least one.
        target: How much a step takes.
        micro_batch_size: Rows of one forward pass on one rank, at most.
        world_size: Ranks.
        seed: Seed of the order; None keeps the stored order (evaluation).

    Attributes:
        most_supervised_row: Supervised tokens of the row that has the most.
    """

    def __init__(
        self, sizes: RowSizes, target: StepTarget, micro_batch_size: int, world_size: int, seed: int | None
    ) -> None:
        assert len(sizes) > 0, "a plan needs a row"
        self.sizes = sizes
        self.target = target
        self.micro_batch_size = micro_batch_size
        self.world_size = world_size
        self.seed = seed
        self.most_supervised_row = int(sizes.supervised.max())
        self._num_steps: dict[int, int] = {}
        # The loader reads ahead into the next epoch while the run is still in this one.
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def with_micro_batch_size(self, rows: int) -> BatchPlan:
        """The same steps in micro-batches of another size; without a seed, a step is one micro-batch on each rank."""
        target = self.target if self.seed is not None else StepTarget("rows", rows * self.world_size)
        return BatchPlan(self.sizes, target, rows, self.world_size, self.seed)

    def sizes_of_steps(self) -> Int64Array:
        """int64[steps]: rows of each step of the first epoch, over all ranks."""
        return np.diff(self._epoch(0).bounds)

    def longest_rows(self) -> Int64Array:
        """int64[rows]: all rows, those with the most tokens first, and of them those with the most supervised ones."""
        return np.lexsort((-self.sizes.supervised.astype(np.int64), -self.sizes.tokens.astype(np.int64)))

    def rows_of_step(self, step: int) -> Int64Array:
        """int64[≥ 1]: the rows of a step (counted from 0 over all epochs), in the order of the epoch."""
        number, within = self._locate(step)
        epoch = self._epoch(number)
        return epoch.order[epoch.bounds[within] : epoch.bounds[within + 1]]

    def micro_steps(self, step: int) -> int:
        """Forward passes of a step, the same on every rank."""
        return -(-len(self.rows_of_step(step)) // (self.micro_batch_size * self.world_size))

    def rows_of_rank(self, step: int, rank: int) -> list[Int64Array]:
        """The rows that a rank computes in a step, one array a micro-step; the last ones may be empty.

        A micro-step's rows are of about the same sizes on every rank, for where each micro-step is a collective.
        """
        mine = self.deal(step)[rank]
        size = self.micro_batch_size
        return [mine[micro * size : (micro + 1) * size] for micro in range(self.micro_steps(step))]

    def deal(self, step: int) -> list[Int64Array]:
        """For each rank the rows of a step, largest first.

        Rows go in rounds, the largest first; in a round the rank with the least gets the largest row.
        """
        rows = self.rows_of_step(step)
        costs = self.sizes.cost(rows)
        by_size = np.lexsort((rows, -costs))
        hands: list[list[int]] = [[] for _ in range(self.world_size)]
        loads = [0] * self.world_size
        for start in range(0, len(rows), self.world_size):
            ranks = sorted(range(self.world_size), key=loads.__getitem__)
            for rank, at in zip(ranks, by_size[start : start + self.world_size].tolist(), strict=False):
                hands[rank].append(int(rows[at]))
                loads[rank] += int(costs[at])
        return [np.array(hand, dtype=np.int64) for hand in hands]

    def supervised_of_step(self, step: int) -> int:
        """Supervised tokens of a step over all ranks: what its loss is the mean of."""
        return int(self.sizes.supervised[self.rows_of_step(step)].sum())

    def steps_of_epoch(self, epoch: int) -> int:
        """Optimizer steps of a pass over all rows. Passes differ where rows do, unless rows are what is counted."""
        if self.target.unit == "rows":
            return -(-len(self.sizes) // self.target.amount)
        if epoch not in self._num_steps:
            self._num_steps[epoch] = self._epoch(epoch).num_steps
        return self._num_steps[epoch]

    def num_steps(self, epochs: float, at_most: int | None = None) -> int:
        """Steps of so many epochs, at least one.

        Args:
            epochs: Passes; a fraction ends at the step whose end is nearest to that share of the rows.
            at_most: Stop counting there.
        """
        whole, steps = int(epochs), 0
        for epoch in range(whole):
            steps += self.steps_of_epoch(epoch)
            if at_most is not None and steps >= at_most:
                return at_most
        if epochs > whole:
            steps += self._steps_of_share(whole, epochs - whole)
        steps = max(steps, 1)
        return steps if at_most is None else min(steps, at_most)

    def epoch_of(self, steps: int) -> float:
        """Epochs done after so many steps: whole ones, and the share of the rows taken of the one that is going on."""
        if steps == 0:
            return 0.0
        number, within = self._locate(steps - 1)
        return number + float(self._epoch(number).bounds[within + 1]) / len(self.sizes)

    def _steps_of_share(self, epoch: int, share: float) -> int:
        bounds = self._epoch(epoch).bounds
        return int(np.argmin(np.abs(bounds - share * len(self.sizes))))

    def _locate(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and its number in that epoch."""
        if self.target.unit == "rows":
            return divmod(step, self.steps_of_epoch(0))
        epoch = 0
        while step >= self.steps_of_epoch(epoch):
            step -= self.steps_of_epoch(epoch)
            epoch += 1
        return epoch, step

    def _make_epoch(self, epoch: int) -> Epoch:
        order = self._order(epoch)
        if self.target.unit == "rows":
            starts = np.arange(0, len(order), self.target.amount, dtype=np.int64)
            return Epoch(order, np.append(starts, len(order)))
        amounts = self.sizes.examples if self.target.unit == "examples" else self.sizes.tokens
        return Epoch(order, find_bounds(amounts[order], self.target.amount))

    def _order(self, epoch: int) -> Int64Array:
        if self.seed is None:
            return np.arange(len(self.sizes), dtype=np.int64)
        key = np.array([self.seed, epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(len(self.sizes))


def find_bounds(amounts: Int32Array | Int64Array, target: int) -> Int64Array:
    """Cut a sequence into steps whose sums are near a target.

    A step goes on until the next item would take its sum further from the target than it is; an item that leaves it
    as far is taken.

    Args:
        amounts: int [R], none negative.
        target: At least 1.

    Returns:
        int64[S + 1]: where each of the S steps begins, and R. No step is empty.
    """
    sums = np.concatenate([[0], np.cumsum(amounts, dtype=np.int64)])
    wanted = sums[:-1] + target
    below = np.searchsorted(sums, wanted, side="right") - 1  # last end whose sum is not above what is wanted
    above = np.minimum(below + 1, len(amounts))
    ends = np.where(sums[above] - wanted <= wanted - sums[below], above, below)
    ends = np.maximum(ends, np.arange(1, len(sums)))
    ends = np.searchsorted(sums, sums[ends], side="right") - 1  # items of nothing take a step no further
    bounds = [0]
    while bounds[-1] < len(amounts):
        bounds.append(int(ends[bounds[-1]]))
    return np.array(bounds, dtype=np.int64)
