"""Bytes of weights, gradients and optimizer state on one rank. A stand-in; see `count_state`."""

from __future__ import annotations

from dataclasses import dataclass

from harness.memory.case import MemoryCase
from harness.memory.sizes import FLOAT32, Sizes


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes by what they are for; `host` is host memory, all others are the device's.

    Attributes:
        frozen_weights: The base.
        lora_weights: Adapters and new token rows, as the forward pass reads them.
        gradients: Float32 gradients.
        master_weights: Float32 copies.
        optimizer_states: Adam's two moments.
        reduce_buffers: DeepSpeed's buckets.
        step_work: What the optimizer step makes and drops.
        gathered: ZeRO-3's gathered weights.
        host: Offloaded state.
    """

    frozen_weights: int
    lora_weights: int
    gradients: int
    master_weights: int
    optimizer_states: int
    reduce_buffers: int
    step_work: int
    gathered: int
    host: int


def count_state(case: MemoryCase) -> StateBytes:
    """Count without ZeRO's details."""
    sizes = Sizes(case)
    per_layer = sum(sizes.matrix_a(name) + sizes.matrix_b(name) for name in case.shape.projections)
    trained = per_layer * case.shape.num_layers + sizes.matrix_a("lm_head") + sizes.matrix_b("lm_head")
    own = trained // (case.ranks if case.zero.stage else 1)
    return StateBytes(
        frozen_weights=case.shape.num_weights * case.value_bytes,
        lora_weights=trained * case.value_bytes,
        gradients=trained * FLOAT32,
        master_weights=own * FLOAT32 * (case.value_bytes < FLOAT32),
        optimizer_states=2 * own * FLOAT32,
        reduce_buffers=case.zero.reduce_bucket_size * FLOAT32 * (case.zero.stage > 0 and case.ranks > 1),
        step_work=own * FLOAT32,
        gathered=0,
        host=0,
    )
