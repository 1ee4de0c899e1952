"""What memory is planned for, and what a plan says: plain values, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from harness.flops import Kind
from harness.linear_flops import LoraShape
from harness.shapes import ModelShape

Phase = Literal["load", "lora", "engine_init", "forward", "loss", "backward", "optimizer", "eval", "save"]
"""A stretch of a run in which memory is looked at, in the order of the first step."""

PHASES: tuple[Phase, ...] = get_args(Phase)

Part = Literal[
    "frozen_weights",
    "lora_weights",
    "gradients",
    "master_weights",
    "optimizer_states",
    "activations",
    "layer_work",
    "logits",
    "communication",
    "context",
    "fragmentation",
]
"""What memory is taken by: weights of the base; weights of adapters and new token rows, as the forward pass reads them;
their gradients; their float32 copies; Adam's two moments; what the forward pass keeps for the backward pass; what a
layer at work makes and drops; logits with their gradients and the head's sums; DeepSpeed's buckets and gathered
weights; the device's context and communicators; what the allocator holds and cannot use."""

PARTS: tuple[Part, ...] = get_args(Part)

Precision = Literal["bf16", "fp16", "fp32"]

BYTES: Mapping[Precision, int] = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes of a value."""


@dataclass(frozen=True, slots=True)
class ZeroSettings:
    """What of a DeepSpeed JSON decides over memory and traffic; sizes count values, not bytes."""

    stage: int = 1
    offload_optimizer: bool = False
    offload_parameters: bool = False
    reduce_bucket_size: int = 50_000_000
    allgather_bucket_size: int = 50_000_000
    overlap_comm: bool = False
    prefetch_bucket_size: int = 50_000_000
    persistence_threshold: int = 100_000
    max_live_parameters: int = 1_000_000_000
    max_reuse_distance: int = 1_000_000_000

    @classmethod
    def read(cls, deepspeed: Mapping[str, Any]) -> Self:
        """From the dictionary of a file in `ds_configs/`, with DeepSpeed's own defaults for what it leaves out."""
        zero: Mapping[str, Any] = deepspeed.get("zero_optimization", {})
        stage = int(zero.get("stage", 0))

        def offloads(key: str) -> bool:
            return bool((zero.get(key) or {}).get("device", "none") != "none")

        return cls(
            stage=stage,
            offload_optimizer=offloads("offload_optimizer"),
            offload_parameters=offloads("offload_param"),
            reduce_bucket_size=int(zero.get("reduce_bucket_size", 500_000_000)),
            allgather_bucket_size=int(zero.get("allgather_bucket_size", 500_000_000)),
            overlap_comm=bool(zero.get("overlap_comm", stage == 3)),
            prefetch_bucket_size=int(zero.get("stage3_prefetch_bucket_size", 50_000_000)),
            persistence_threshold=int(zero.get("stage3_param_persistence_threshold", 100_000)),
            max_live_parameters=int(zero.get("stage3_max_live_parameters", 1_000_000_000)),
            max_reuse_distance=int(zero.get("stage3_max_reuse_distance", 1_000_000_000)),
        )


@dataclass(frozen=True, slots=True)
class MemoryCase:
    """One rank's work, of which the memory follows.

    Attributes:
        shape: The model's sizes.
        lora: Its adapter, or None.
        zero: How state is shared out.
        ranks: In all.
        slots: Tokens (padding included) of the largest micro-batch on one rank.
        supervised: Supervised tokens of that micro-batch.
        precision: Of weights and computation.
        recompute_layers: Decoder layers (the first ones) that run again in the backward pass.
        dropout: On the adapters' inputs; 0 for none.
        attention: The kernel.
        row_slots: Slots of a row, for kernels with a dense mask.
        loss_chunk: Supervised tokens whose logits exist at a time.
        lora_kernel: As in `harness.config.ModelSettings`.
        fp8: Whether the frozen projections are float8.
        compile: Whether decoder layers are compiled.
        new_tokens: Token rows that are trained besides.
        device: What computes; a CPU has no context and no caching allocator.
    """

    shape: ModelShape
    lora: LoraShape | None
    zero: ZeroSettings
    ranks: int
    slots: int
    supervised: int
    precision: Precision = "bf16"
    recompute_layers: int = 0
    dropout: float = 0.0
    attention: Kind = "flash"
    row_slots: int = 2048
    loss_chunk: int = 1024
    lora_kernel: Literal["lean", "peft"] = "lean"
    fp8: bool = False
    compile: bool = False
    new_tokens: int = 0
    device: Literal["cuda", "cpu"] = "cuda"

    @property
    def value_bytes(self) -> int:
        """Bytes of a value in the model's precision."""
        return BYTES[self.precision]


@dataclass(frozen=True, slots=True)
class PhaseMemory:
    """What is alive at a phase's peak on one rank, in bytes by part; parts of nothing may be left out."""

    phase: Phase
    parts: Mapping[Part, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is predicted for one rank.

    Attributes:
        phases: In the order of `PHASES`; those that a case does not have are left out.
        host: Bytes of the host's memory by what they are for (offloaded state, page-locked batches, …).
    """

    phases: tuple[PhaseMemory, ...]
    host: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> PhaseMemory:
        """The phase with the most bytes."""
        return max(self.phases, key=lambda phase: phase.total)
