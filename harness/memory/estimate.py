"""A first guess of a micro-batch's memory and work, for the search to start from; trials correct it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.flops import count_step_flops
from harness.memory.case import MemoryCase, Part
from harness.memory.predict import predict
from harness.throughput import StepCounts

MOVING: tuple[Part, ...] = ("activations", "layer_work", "logits", "fragmentation")
"""What a pass makes and drops."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What rows of one size take.

    Attributes:
        case: Of the run; its micro-batch does not matter.
        row: Counts of one row, the longest.
        held_bytes: What is there while rows pass: measured, with what the first step adds, and all gradients.
        least_bytes: What every step takes, whatever its rows: at its end, when the rows have passed.
    """

    case: MemoryCase
    row: StepCounts
    held_bytes: float
    least_bytes: float

    def predict_bytes(self, rows: int, layers: int) -> float:
        """The peak of a micro-batch of so many rows with so many layers recomputed, state and all.

        Between no layer and all of them along a straight line: nearly what it is, for a fraction of the time.
        """
        num_layers = self.case.shape.num_layers
        whole, lean = self._pass_bytes(rows, 0), self._pass_bytes(rows, num_layers)
        passing = self.held_bytes + whole + (lean - whole) * layers / num_layers
        return max(self.least_bytes, passing)

    def _pass_bytes(self, rows: int, layers: int) -> int:
        case = replace(
            self.case,
            slots=rows * self.row.slots,
            supervised=rows * self.row.supervised_tokens,
            row_slots=self.row.slots,
            recompute_layers=layers,
        )
        passes = (
            phase.parts for phase in predict(case).phases if phase.phase in ("forward", "loss", "backward")
        )
        return max(sum(parts.get(part, 0) for part in MOVING) for parts in passes)

    def predict_seconds(self, rows: int, layers: int) -> float:
        """A micro-batch's work in FLOPs: what its seconds are in proportion to."""
        flops = count_step_flops(
            self.case.shape,
            self.case.lora,
            tokens=rows * self.row.tokens,
            attention_pairs=rows * self.row.attention_pairs,
            supervised_tokens=rows * self.row.supervised_tokens,
            recompute_layers=layers,
            attention=self.case.attention,
            slots=rows * self.row.slots,
            lora_kernel=self.case.lora_kernel,
        )
        return float(flops.hardware.total)
