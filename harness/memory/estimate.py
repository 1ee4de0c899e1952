"""A first guess of a micro-batch's memory and work, for the search to start from; trials correct it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config import RunConfig
from harness.flops import Kind, count_step_flops
from harness.linear_flops import LoraShape
from harness.memory.case import BYTES
from harness.shapes import ModelShape
from harness.throughput import StepCounts


@dataclass(frozen=True, slots=True)
class Estimate:
    """What rows of one size take.

    Attributes:
        config: The run's.
        shape: The model's.
        attention: The kernel.
        row: Counts of one row, the longest.
        state_bytes: What is held before any row comes: measured, with what the first step adds.
    """

    config: RunConfig
    shape: ModelShape
    attention: Kind
    row: StepCounts
    state_bytes: float

    def predict_bytes(self, rows: int, layers: int) -> float:
        """The peak of a micro-batch of so many rows with so many layers recomputed, state and all."""
        shape, value = self.shape, BYTES[self.config.model.precision]
        heads = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
        widths = 5 * shape.hidden_size + heads + 2 * shape.ffn_size
        if self.config.lora.dropout:
            widths += 3 * shape.hidden_size + shape.ffn_size
        kept = widths * (shape.num_layers - layers) + shape.hidden_size * layers
        work = widths + 2 * shape.ffn_size
        logits = min(self.config.model.loss_chunk, rows * self.row.supervised_tokens) * shape.vocab_size
        at_head = 2 * rows * self.row.supervised_tokens * shape.hidden_size * value + logits * (2 * value + 4)
        return self.state_bytes + rows * self.row.slots * value * (kept + work) + at_head

    def predict_seconds(self, rows: int, layers: int) -> float:
        """A micro-batch's work in FLOPs: what its seconds are in proportion to."""
        model = self.config.model
        flops = count_step_flops(
            self.shape,
            LoraShape(self.config.lora.r, self.config.lora.targets),
            tokens=rows * self.row.tokens,
            attention_pairs=rows * self.row.attention_pairs,
            supervised_tokens=rows * self.row.supervised_tokens,
            recompute_layers=layers,
            attention=self.attention,
            slots=rows * self.row.slots,
            lora_kernel=model.lora_kernel,
        )
        return float(flops.hardware.total)
