"""How many bytes a run takes on one rank, phase by phase: state, activations, and what no tensor accounts for.

Exact, from sizes: weights and optimizer state (`harness.memory.state`), tensors of a pass
(`harness.memory.activations`).
Assumed, for they depend on driver, card and history: the device's context, communicators, the allocator's slack. They
are the constants below, and nothing on a CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from harness.memory.activations import batch_bytes, replay, replay_evaluation
from harness.memory.case import MemoryCase, MemoryPlan, Part, Phase, PhaseMemory
from harness.memory.state import StateBytes, count_state

CONTEXT_BYTES = 512 * 2**20
"""Assumed: a CUDA context with torch's kernels and cuBLAS; 0.4 to 0.6 GiB on cards since Ampere."""

CUBLAS_WORKSPACE_BYTES = 32 * 2**20
"""cuBLAS's workspace of one stream on Hopper (torch allocates 32 MiB there, 8 MiB on cards before)."""

COMMUNICATOR_BYTES = 320 * 2**20
"""Assumed: NCCL's buffers and channels with several ranks; 0.2 to 0.5 GiB by number of channels and links."""

SLACK = 0.03
"""Assumed: share of what a pass makes that the allocator holds beyond it (rounding, splits that fit nothing). With
expandable segments little; without, it may be more."""


@lru_cache(maxsize=4096)
def predict(case: MemoryCase) -> MemoryPlan:
    """Bytes alive at the peak of each phase.

    The passes are those of a step's later micro-batches, which find every float32 gradient in its place; a step's first
    one is below it. Phases `load` and `lora` come before the engine; `eval` runs between steps, `save` copies the
    adapter to the host.
    """
    state = count_state(case)
    steps = replay(case)
    resident = _resident(case, state)
    loaded: dict[Part, int] = {"frozen_weights": state.frozen_weights, "context": resident["context"]}
    adapted: dict[Part, int] = {**loaded, "lora_weights": state.lora_weights}
    training: dict[Part, int] = {**resident, "gradients": state.gradients}
    batch: dict[Part, int] = {"activations": batch_bytes(case)}
    buffers, whole = state.held_buffers, state.held_buffers + state.persistent
    gathered: dict[Part, int] = {"communication": state.held_buffers + state.gathered}
    phases: list[tuple[Phase, Iterable[Mapping[Part, int]]]] = [
        ("load", (loaded,)),
        ("lora", (adapted,)),
        ("engine_init", (resident, {"communication": buffers})),
        *(_pass(stretch, training, gathered, batch, steps.peaks[stretch]) for stretch in _STRETCHES),
        (
            "optimizer",
            (training, {"communication": state.reduce_buffers + whole, "layer_work": state.step_work}),
        ),
        ("eval", (resident, gathered, batch, replay_evaluation(case))),
        ("save", (resident, {"communication": whole})),
    ]
    return MemoryPlan(tuple(_add_slack(case, phase, parts) for phase, parts in phases), state.host)


_STRETCHES: tuple[Phase, ...] = ("forward", "loss", "backward")


def _pass(phase: Phase, *parts: Mapping[Part, int]) -> tuple[Phase, tuple[Mapping[Part, int], ...]]:
    return phase, parts


def _resident(case: MemoryCase, state: StateBytes) -> dict[Part, int]:
    """What is there as long as the engine is."""
    return {
        "frozen_weights": state.frozen_weights,
        "lora_weights": state.lora_weights,
        "master_weights": state.master_weights,
        "optimizer_states": state.optimizer_states,
        "context": context_bytes(case),
    }


def context_bytes(case: MemoryCase) -> int:
    """The device's context and communicators, assumed; 0 on a CPU."""
    if case.device == "cpu":
        return 0
    return CONTEXT_BYTES + CUBLAS_WORKSPACE_BYTES + COMMUNICATOR_BYTES * (case.ranks > 1)


def _add_slack(case: MemoryCase, phase: Phase, parts: Iterable[Mapping[Part, int]]) -> PhaseMemory:
    """Sum a phase's parts, and add the allocator's slack over what comes and goes."""
    total: Counter[Part] = Counter()
    for part in parts:
        total.update(part)
    moving: tuple[Part, ...] = ("activations", "layer_work", "logits")
    slack = round(SLACK * sum(total[part] for part in moving)) if case.device == "cuda" else 0
    total["fragmentation"] = slack
    return PhaseMemory(phase, {part: num_bytes for part, num_bytes in total.items() if num_bytes})
