"""FLOPs of a step, and the share of what the devices can do that they are: MFU and HFU. Plain values, without torch.

*Model FLOPs* (for MFU) are what the step's real tokens need once: no padding, no recomputation; an adapter's cost and a
frozen base's saving are in it, and a pair of tokens counts where the forest lets one see the other. *Hardware FLOPs*
(for HFU) are what is computed: padding, recomputed layers, all pairs of a dense mask. See `harness.flops`. Of a `flex`
kernel, which computes whole blocks of 128 by 128, only the pairs that see each other are counted: its HFU is a lower
bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.cards import find_card
from harness.flops import FlopParts, StepFlops, count_step_flops
from harness.memory.case import MemoryCase
from harness.metering.ceilings import Ceilings
from harness.planning.setting import Efficiency
from harness.planning.speed import compute_seconds
from harness.throughput import StepCounts

DENSE = ("sdpa", "eager")
"""Kernels that compute every pair of a micro-batch's slots."""


@dataclass(frozen=True, slots=True)
class StepEfficiency:
    """FLOPs of a step (or of several) over all ranks, and their shares.

    Attributes:
        model_flops: What the real tokens need; None where the model's layers are not known.
        hardware_flops: What was computed; likewise.
        mfu: Model FLOPs over what the cards' dense peaks allow in the same time; None where a rank has no card with a
            known peak. Float8 products are held against the float8 peak.
        hfu: The same of hardware FLOPs.
        mfu_of_ceiling: Model FLOPs over what the measured matrix products allow in the same time.
    """

    model_flops: int | None = None
    hardware_flops: int | None = None
    mfu: float | None = None
    hfu: float | None = None
    mfu_of_ceiling: float | None = None


def count_case_flops(case: MemoryCase, counts: StepCounts, dense_pairs: int) -> StepFlops:
    """FLOPs of some work.

    Args:
        case: What computes.
        counts: The work.
        dense_pairs: Pairs of slots in its micro-batches, which kernels with a dense mask compute.
    """
    return count_step_flops(
        case.shape,
        case.lora,
        tokens=counts.tokens,
        attention_pairs=counts.attention_pairs,
        supervised_tokens=counts.supervised_tokens,
        recompute_layers=case.recompute_layers,
        attention=case.attention,
        slots=counts.slots,
        computed_pairs=dense_pairs if case.attention in DENSE else counts.attention_pairs,
        lora_kernel=case.lora_kernel,
        fused_head=case.zero.stage != 3,
    )


class FlopCount:
    """Counts the FLOPs of steps and keeps their sums.

    Args:
        case: What computes, None where the model's layers are not known: then nothing is counted.
        ceilings: Of the run's devices.
    """

    def __init__(self, case: MemoryCase | None, ceilings: Ceilings) -> None:
        self._case = case
        self._ceilings = ceilings
        cards = [rank.card for rank in ceilings.ranks]
        self._cards = [find_card(card) for card in cards if card is not None]
        self._all_known = len(self._cards) == len(cards)
        self._model, self._hardware, self._seconds = FlopParts(), FlopParts(), 0.0

    def set_recompute(self, layers: int) -> None:
        """From now on so many decoder layers run again in the backward pass."""
        if self._case is not None:
            self._case = replace(self._case, recompute_layers=layers)

    def add_step(
        self, counts: StepCounts, dense_pairs: int, seconds: float, *, is_warmup: bool
    ) -> StepEfficiency:
        """Count a step.

        Args:
            counts: Its work over all ranks.
            dense_pairs: Pairs of slots in its micro-batches, over all ranks.
            seconds: Its time.
            is_warmup: Whether the sums leave it out.
        """
        if self._case is None:
            return StepEfficiency()
        flops = count_case_flops(self._case, counts, dense_pairs)
        if not is_warmup:
            self._model, self._hardware = self._model + flops.model, self._hardware + flops.hardware
            self._seconds += seconds
        return self._divide(flops.model, flops.hardware, seconds)

    def summary(self) -> StepEfficiency:
        """Of all steps after warm-up."""
        return (
            StepEfficiency()
            if self._case is None
            else self._divide(self._model, self._hardware, self._seconds)
        )

    def _divide(self, model: FlopParts, hardware: FlopParts, seconds: float) -> StepEfficiency:
        ceiling = self._ceilings.matmul_flops_per_s * seconds
        return StepEfficiency(
            model.total,
            hardware.total,
            self._share_of_peak(model, seconds),
            self._share_of_peak(hardware, seconds),
            model.total / ceiling if ceiling else None,
        )

    def _share_of_peak(self, flops: FlopParts, seconds: float) -> float | None:
        """FLOPs over what all cards could do in so many seconds; each would do it alone in `compute_seconds`."""
        if self._case is None or not self._all_known or not flops.total or not seconds:
            return None
        alone_s = [compute_seconds(flops, self._case, card, Efficiency(1.0, 1.0)) for card in self._cards]
        return 1 / (seconds * sum(1 / one for one in alone_s))
