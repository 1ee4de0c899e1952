"""DeepSpeed's own memory estimators, as arithmetic: what its documentation tells users to size a run by.

Source: https://deepspeed.readthedocs.io/en/stable/memory.html, `estimate_zero2_model_states_mem_needs` and
`estimate_zero3_model_states_mem_needs`. They know model states alone: no activations, logits, buffers or context; and
every parameter counts as trained, which under LoRA a few percent are.
"""

from __future__ import annotations

from harness.shapes import ModelShape

TRAINED_BYTES = 18
"""Two of a 16-bit gradient (or, at stage 3, weight), four each of float32 gradient and weight, eight of moments."""


def estimate_zero2(num_weights: int, ranks: int, *, offload: bool = False) -> int:
    """Bytes of model states on one GPU under ZeRO-2, as DeepSpeed estimates them."""
    shared = 0 if offload else int(TRAINED_BYTES * num_weights / ranks)
    return 2 * num_weights + shared


def estimate_zero3(
    num_weights: int,
    largest_layer: int,
    ranks: int,
    *,
    offload: bool = False,
    offload_parameters: bool = False,
) -> int:
    """Bytes of model states on one GPU under ZeRO-3, as DeepSpeed estimates them."""
    gathered = 4 * largest_layer
    if not offload:
        return gathered + int(TRAINED_BYTES * num_weights / ranks)
    return gathered if offload_parameters else gathered + int(2 * num_weights / ranks)


def estimate(
    shape: ModelShape,
    num_trained: int,
    ranks: int,
    stage: int,
    *,
    offload: bool = False,
    offload_parameters: bool = False,
) -> int | None:
    """Bytes as DeepSpeed estimates them for a model with its adapters; None below stage 2, for which it has none.

    The largest layer is the embedding's matrix: it counts parameters of a module's own, not of its children.
    """
    num_weights = shape.num_weights + num_trained
    if stage == 2:
        return estimate_zero2(num_weights, ranks, offload=offload)
    if stage == 3:
        largest = shape.hidden_size * shape.vocab_size
        return estimate_zero3(
            num_weights, largest, ranks, offload=offload, offload_parameters=offload_parameters
        )
    return None
