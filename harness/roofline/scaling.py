"""Step time over ranks, simulated: parts that were measured, rows dealt out, the slowest rank, then the collectives.

::

    step = slowest rank's rows x seconds a row x contention  +  fixed seconds x contention  +  collectives (alpha-beta)

Nothing overlaps: gradients stay on their rank until the last backward pass (`harness.engine`). Rows are dealt as
`harness.batch_plan` deals them, so that a step of four rows on three ranks takes as long as one of six. Contention is
1 where every rank has a device of its own; ranks that share cores are slowed by what was measured for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.batch_plan import BatchPlan
from harness.memory.case import MemoryCase
from harness.roofline.collectives import Link, communication_seconds, list_collectives

HOSTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class Parts:
    """What one rank's step is made of, without any communication.

    Attributes:
        row_s: Forward, loss and backward pass of a mean row.
        fixed_s: What a step takes whatever its rows: update, reading, the rest.
        source: Where the figures come from.
    """

    row_s: float
    fixed_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Scaled:
    """A simulated step.

    Attributes:
        ranks: In all.
        rows: Of the step, over all ranks.
        slowest_rows: Mean rows' worth of work on the slowest rank.
        compute_s: Of the slowest rank, with what is fixed.
        communication_s: After it.
        examples: Of the step.
    """

    ranks: int
    rows: float
    slowest_rows: float
    compute_s: float
    communication_s: float
    examples: float

    @property
    def step_s(self) -> float:
        """Seconds in all."""
        return self.compute_s + self.communication_s

    @property
    def examples_per_s(self) -> float:
        """Over all ranks."""
        return self.examples / self.step_s


def slowest_rows(plan: BatchPlan, steps: Sequence[int]) -> float:
    """Mean over some steps of the work on the slowest rank, in mean rows of the step.

    Args:
        plan: Of so many ranks, over real rows.
        steps: Which.
    """
    found = []
    for step in steps:
        loads = [float(plan.sizes.cost(rows).sum()) for rows in plan.deal(step)]
        found.append(max(loads) / sum(loads) * len(plan.rows_of_step(step)))
    return sum(found) / len(found)


def even_rows(rows: int, ranks: int) -> int:
    """Rows of the rank that has the most, where all rows are alike."""
    return -(-rows // ranks)


def simulate_step(
    parts: Parts,
    case: MemoryCase,
    link: Link,
    *,
    rows: float,
    slowest: float,
    micro_steps: int,
    examples: float,
    contention: float = 1.0,
    num_tasks: int = 8,
) -> Scaled:
    """Simulate a step.

    Args:
        parts: Of one rank.
        case: With the number of ranks and the ZeRO stage.
        link: Between the ranks.
        rows: Of the step, over all ranks.
        slowest: Mean rows' worth of work on the slowest rank.
        micro_steps: Passes on each rank.
        examples: Of the step.
        contention: How many times longer a rank computes beside the others than alone.
        num_tasks: Of the data set.
    """
    collectives = list_collectives(case, micro_steps, num_tasks)
    return Scaled(
        ranks=case.ranks,
        rows=rows,
        slowest_rows=slowest,
        compute_s=(slowest * parts.row_s + parts.fixed_s) * contention,
        communication_s=communication_seconds(collectives, link, case.ranks),
        examples=examples,
    )
