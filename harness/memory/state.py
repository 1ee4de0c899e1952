"""The bytes that one rank holds of weights, gradients and optimizer, at every ZeRO stage, to the byte.

Which tensors there are, of T trained values in all (F frozen ones) on n ranks. w is the bytes of a value in the model's
precision; P the values of a partition: at stages 1 and 2 T, rounded up to a multiple of 2 n, over n; at stage 3 the sum
of every parameter's values over n, each rounded up.

    tensor                            stage 0      stages 1, 2   stage 3            alive
    frozen weights                    w F          w F           w F / n, rounded   always
    trained weights                   w T          w n P         w P                always
    their copies in float32           4 T (a)      4 P           4 P                always
    Adam's moments                    8 T          8 P           8 P                from the first update on
    Adam's step counts, float32       one each     one           one                from the first update on
    bucket for gradients              -            4 b           4 b                1, 2: in the step; 3: always
    partition of gradients            -            4 P (c)       4 P                1, 2: in the step; 3: always
    gradients                         4 T          4 T           4 T                first backward pass to reduction
    whole small weights (d)           -            -             w each             first update to next update
    whole weights in use              -            -             see `gathering`    forward and backward pass
    work of the step                  see `harness.memory.reduction`                a moment

(a) In half precision; in float32 the weights themselves are updated. Stages 1 to 3 copy even there.
(b) `reduce_bucket_size`, whether or not as many values train.
(c) In float32 instead all values of every parameter that the partition touches, and a flat copy of the partition.
(d) Parameters of up to `stage3_param_persistence_threshold` values, besides their partitions; none on one rank.

With the optimizer offloaded its copies, moments and partition of gradients are the host's, and so are the weights'
partitions where parameters are, but for those of (d). Not counted are scalars (norms, losses), the rotary embeddings'
frequencies (4 bytes for each value of a head), dropout's tables (`harness.dropout`), and micro-batches. Nor is what a
step's last forward pass leaves: at stage 3, with the lean kernel and no new tokens, the embedding's output and its
gradient, 2 w S H bytes for S slots, live until the step is done.

Source: DeepSpeed 0.19.8, and tensors counted at every stage (`tests/test_memory_state.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.memory.case import MemoryCase
from harness.memory.gathering import count_gathered, count_persistent
from harness.memory.reduction import (
    FLOAT32,
    FLOAT64,
    PartitionedReduction,
    peak_of_stage_3,
    peak_without_zero,
    reduce_bucket_bytes,
    work_of_stage_3,
)
from harness.memory.traffic import Traffic, count_traffic
from harness.memory.weights import Weight, count_float8, count_tables, list_weights, trained_sizes

__all__ = ["StateBytes", "Traffic", "count_state", "count_traffic"]


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes on one rank's device, and on its host, from the first update on.

    Attributes:
        frozen_weights: Of the base, with the tables of new tokens.
        lora_weights: Adapters and new rows, as the forward pass reads them.
        gradients: At their fullest, before the step.
        master_weights: Float32 copies.
        optimizer_states: Adam's moments and step counts.
        reduce_buffers: Buckets that the step makes and drops (stages 1 and 2).
        step_work: What else the step takes at its peak, beyond the sum of all other parts but `gathered`.
        gathered: Stage 3: whole weights alive at once in forward and backward pass, at most, `persistent` included.
        persistent: Those of them that stay whole from one pass to the next.
        held_buffers: Buckets that are there all the time (stage 3; and with the optimizer offloaded).
        host: Bytes of the host's memory by what they are for.
    """

    frozen_weights: int
    lora_weights: int
    gradients: int
    master_weights: int
    optimizer_states: int
    reduce_buffers: int
    step_work: int
    gathered: int
    persistent: int = 0
    held_buffers: int = 0
    host: Mapping[str, int] = field(default_factory=dict)

    @property
    def at_rest(self) -> int:
        """Between two steps."""
        weights = self.frozen_weights + self.lora_weights + self.master_weights
        return weights + self.optimizer_states + self.held_buffers + self.persistent

    @property
    def at_init(self) -> int:
        """When the engine is built: the optimizer has no state yet, and no weight has been gathered."""
        return self.at_rest - self.optimizer_states - self.persistent

    @property
    def before_step(self) -> int:
        """After the last backward pass."""
        return self.at_rest + self.gradients

    @property
    def at_step(self) -> int:
        """At the peak of reduction and update."""
        return self.before_step + self.reduce_buffers + self.step_work


def count_state(case: MemoryCase, rank: int = 0) -> StateBytes:
    """Count what a rank holds.

    Args:
        case: The case; `shape.vocab_size` counts rows with those of new tokens.
        rank: Whose memory; ranks differ in `step_work` alone.
    """
    sizes, weights = trained_sizes(case), list_weights(case)
    persistent = count_persistent(case)
    masters, states = _count_optimizer(case, sizes)
    frozen = _frozen_weights(case, weights)
    state = StateBytes(
        frozen_weights=frozen,
        lora_weights=case.value_bytes * _trained_values(case, sizes),
        gradients=FLOAT32 * sum(sizes),
        master_weights=masters,
        optimizer_states=states,
        reduce_buffers=reduce_bucket_bytes(case),
        step_work=_step_work(case, sizes, rank, persistent),
        gathered=count_gathered(case),
        persistent=persistent,
        held_buffers=_held_buffers(case, sizes),
    )
    return _move_to_host(case, state, sizes, weights)


def partition_values(case: MemoryCase, sizes: tuple[int, ...]) -> int:
    """Trained values that a rank updates."""
    if case.zero.stage == 0:
        return sum(sizes)
    if case.zero.stage == 3:
        return sum(-(-size // case.ranks) for size in sizes)
    return 2 * -(-sum(sizes) // (2 * case.ranks))


def _trained_values(case: MemoryCase, sizes: tuple[int, ...]) -> int:
    """Trained values in the model's precision on a rank, with padding."""
    whole = case.ranks if case.zero.stage in (1, 2) else 1
    return whole * partition_values(case, sizes)


def _frozen_weights(case: MemoryCase, weights: tuple[Weight, ...]) -> int:
    parts = case.ranks if case.zero.stage == 3 else 1
    values = sum(-(-weight.num_values // parts) for weight in weights if not weight.trains)
    return case.value_bytes * values + count_tables(case) + (count_float8(case.shape) if case.fp8 else 0)


def _count_optimizer(case: MemoryCase, sizes: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of float32 copies, and of moments and step counts."""
    values = partition_values(case, sizes)
    copies = 0 if case.zero.stage == 0 and case.precision == "fp32" else FLOAT32 * values
    num_tensors = len(sizes) if case.zero.stage == 0 else 1
    return copies, 2 * FLOAT32 * values + FLOAT32 * num_tensors


def _held_buffers(case: MemoryCase, sizes: tuple[int, ...]) -> int:
    if case.zero.stage == 3:
        return FLOAT32 * (case.zero.reduce_bucket_size + partition_values(case, sizes))
    if case.zero.stage and case.zero.offload_optimizer:
        return case.value_bytes * max(sizes, default=0)
    return 0


def _step_work(case: MemoryCase, sizes: tuple[int, ...], rank: int, persistent: int) -> int:
    """Beyond gradients and buckets."""
    given = FLOAT32 * sum(sizes)
    if case.zero.stage == 0:
        return peak_without_zero(case, sizes) - given
    if case.zero.stage == 3:
        updating = work_of_stage_3(case, sizes) - persistent * (not case.zero.offload_optimizer)
        return max(peak_of_stage_3(case, sizes), updating) - given
    reduction = PartitionedReduction(case, sizes, partition_values(case, sizes), rank)
    return reduction.peak() - given - reduce_bucket_bytes(case)


def _move_to_host(
    case: MemoryCase, state: StateBytes, sizes: tuple[int, ...], weights: tuple[Weight, ...]
) -> StateBytes:
    """Take what is offloaded off the device."""
    zero, host = case.zero, dict[str, int]()
    if zero.offload_optimizer and zero.stage:
        gradients = FLOAT32 * partition_values(case, sizes)
        host |= {"master_weights": state.master_weights, "optimizer_states": state.optimizer_states}
        host["gradients"] = 2 * gradients if zero.stage == 3 else gradients
        held = state.held_buffers - (gradients if zero.stage == 3 else 0)
        state = replace(state, master_weights=0, optimizer_states=0, held_buffers=held)
        if zero.stage == 3:  # the norm of each piece is taken in float64
            host["step_work"] = FLOAT64 * max((-(-size // case.ranks) for size in sizes), default=0)
        else:
            staging = partition_values(case, sizes) + max(sizes, default=0)
            host["staging"] = case.value_bytes * staging
    if zero.offload_parameters and zero.stage == 3:
        kept = _persistent_partitions(case, weights) + count_tables(case)
        host |= {"frozen_weights": state.frozen_weights - kept, "lora_weights": state.lora_weights}
        state = replace(state, frozen_weights=kept, lora_weights=0)
    return replace(state, host=host)


def _persistent_partitions(case: MemoryCase, weights: tuple[Weight, ...]) -> int:
    """Bytes of the partitions of small frozen weights, which stay on the device."""
    small = (
        weight.num_values
        for weight in weights
        if not weight.trains and weight.num_values <= case.zero.persistence_threshold
    )
    return case.value_bytes * sum(-(-size // case.ranks) for size in small)
