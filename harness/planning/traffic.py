"""Bytes that a rank sends in one optimizer step, by ZeRO stage.

A ring over n ranks sends (n - 1) / n of a tensor for a reduce-scatter or an all-gather, and twice that for an
all-reduce (Rajbhandari et al. 2020, arXiv:1910.02054, section 7). Gradients travel once a step, in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.memory.case import MemoryCase

FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one rank and step.

    Attributes:
        gradients: All-reduce at stages 0 to 2, reduce-scatter at stage 3.
        updated_weights: All-gather of the trained weights after the step, at stages 1 and 2.
        gathered_weights: All-gathers of all weights before they are used, at stage 3.
    """

    gradients: int
    updated_weights: int
    gathered_weights: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.gradients + self.updated_weights + self.gathered_weights


def count_trained(case: MemoryCase) -> int:
    """Weights that train: r (I + O) for each adapter, and rows of new tokens (of an untied head too)."""
    shape = case.shape
    rows = case.new_tokens * shape.hidden_size * (1 if shape.tied else 2)
    if case.lora is None:
        return rows
    widths = sum(
        sum(sizes) * shape.num_layers
        for name, sizes in shape.projections.items()
        if name in case.lora.targets
    )
    head = (shape.hidden_size + shape.vocab_size) * ("lm_head" in case.lora.targets)
    return case.lora.r * (widths + head) + rows


def count_traffic(case: MemoryCase, micro_steps: int) -> Traffic:
    """Count a step's bytes.

    Stage 3 gathers every weight in the forward and in the backward pass of each micro-step, and once more where a
    layer runs again; small tensors that stay whole are counted too, which is below 1 %.
    """
    trained, stage = count_trained(case), case.zero.stage
    gather = (case.ranks - 1) / case.ranks
    if stage < 3:
        updated = gather * case.value_bytes * trained if stage else 0
        return Traffic(round(2 * gather * FLOAT32 * trained), round(updated), 0)
    passes = 2 + case.recompute_layers / case.shape.num_layers
    weights = (case.shape.num_weights + trained) * case.value_bytes
    return Traffic(round(gather * FLOAT32 * trained), 0, round(micro_steps * passes * gather * weights))
