"""Bytes that a rank sends in an optimizer step, by ZeRO stage.

Over n ranks a ring needs of each, for M bytes: all-gather and reduce-scatter (n - 1) / n M, all-reduce twice as much
(Patarasuk & Yuan 2009). The sums of gradients travel once a step, in float32 (`harness.half_precision`).

    stage 0        all-reduce of the gradients
    stages 1, 2    all-reduce of the gradients (DeepSpeed 0.19.8 does so even where a rank needs its partition alone, by
                   `use_multi_rank_bucket_allreduce`), all-gather of the updated weights
    stage 3        reduce-scatter of the gradients, all-gather of small weights after the update, and in every
                   micro-step the all-gathers of the others: see `harness.memory.gathering`
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from harness.memory.case import MemoryCase
from harness.memory.gathering import count_gathers, count_persistent
from harness.memory.weights import trained_sizes


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a rank sends in an optimizer step.

    Attributes:
        gradients: Their reduction.
        updated_weights: What the update changed.
        gathered_weights: Stage 3: weights made whole in forward and backward passes.
    """

    gradients: int
    updated_weights: int
    gathered_weights: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.gradients + self.updated_weights + self.gathered_weights


def count_traffic(case: MemoryCase, micro_steps: int) -> Traffic:
    """Count what a rank sends.

    Args:
        case: The case.
        micro_steps: Forward and backward passes in a step.
    """
    sizes, ranks, stage = trained_sizes(case), case.ranks, case.zero.stage
    share = Fraction(ranks - 1, ranks)
    if stage == 3:
        padded = sum(-(-size // ranks) * ranks for size in sizes)
        return Traffic(
            gradients=int(share * 4 * padded),
            updated_weights=int(share * count_persistent(case)),
            gathered_weights=int(share * count_gathers(case) * micro_steps),
        )
    padded = 2 * ranks * -(-sum(sizes) // (2 * ranks))
    return Traffic(
        gradients=int(2 * share * 4 * sum(sizes)),
        updated_weights=int(share * case.value_bytes * padded) if stage else 0,
        gathered_weights=0,
    )
