"""What an engine's own tensors take, by part."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from harness.dist import Engine
from harness.memory.case import Part


def measure_parts(engine: Engine) -> dict[Part, int]:
    """Bytes of this rank's tensors: weights, gradients, masters, moments. A storage counts once."""
    parameters = list(engine.module.parameters())
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    groups = [weight for group in inner.param_groups for weight in group["params"]]
    masters = getattr(engine.optimizer, "fp32_partitioned_groups_flat", groups)  # ZeRO-3 empties the groups
    moments = [value for state in inner.state.values() for value in state.values()]
    found: dict[Part, Iterable[object]] = {
        "frozen_weights": [_own(one) for one in parameters if not one.requires_grad],
        "lora_weights": [_own(one) for one in parameters if one.requires_grad],
        "gradients": [one.grad for one in parameters],
        "master_weights": masters,
        "optimizer_states": moments,
    }
    seen: set[int] = set()
    return {part: sum(_new_bytes(tensor, seen) for tensor in tensors) for part, tensors in found.items()}


def _own(parameter: torch.nn.Parameter) -> object:
    """A parameter, or this rank's part of it where ZeRO-3 has split it."""
    return getattr(parameter, "ds_tensor", parameter)


def _new_bytes(tensor: object, seen: set[int]) -> int:
    if not isinstance(tensor, torch.Tensor):
        return 0
    storage = tensor.untyped_storage()
    if storage.nbytes() == 0 or storage.data_ptr() in seen:
        return 0
    seen.add(storage.data_ptr())
    return storage.nbytes()
