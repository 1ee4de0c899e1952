"""What of a rank's memory is state, measured: the bytes of the tensors that a DeepSpeed engine really holds.

Each storage counts once, with all its bytes (padding included), for the first part in the order of `PARTS_OF_STATE`
that has a tensor in it: under ZeRO weights are views into flat buffers, say. DeepSpeed keeps its state in attributes
that differ by stage; what of its tensors is none of weights, masters, states and gradients is a buffer that it
communicates through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.memory.case import PARTS_OF_STATE, Part

if TYPE_CHECKING:
    from harness.dist import Engine

MASTERS = (
    "single_partition_of_fp32_groups",  # ZeRO-1 and 2
    "fp32_groups_flat_partition",  # ZeRO-1 in bf16 where gradients add up in float32
    "fp32_partitioned_groups_flat",  # ZeRO-3
    "fp32_groups",  # half precision without ZeRO
)

GRADIENTS = (
    "averaged_gradients",
    "all_grad_tensors",
    "accumulated_grads_in_cpu",
    "fp32_groups_gradients_flat",
    "grads_in_partition",
    "grad_partitions_flat_buffer",
    "_DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition",
)


def measure_parts(engine: Engine, *, on_host: bool = False) -> dict[Part, int]:
    """Bytes of the state that this rank holds, by part; parts of nothing are there with 0.

    Some microseconds a parameter. Nothing is communicated or gathered: each rank tells its own.

    Args:
        engine: From `harness.engine.build_engine`, at any ZeRO stage.
        on_host: Tell what lies in the host's memory while the device computes (offloaded state) instead of what lies
            on the device. Where the CPU computes, all is on the device.
    """
    device = torch.device(engine.device).type
    bytes_of = dict.fromkeys(PARTS_OF_STATE, 0)
    seen: set[tuple[str, int]] = set()
    for part, tensor in _list_tensors(engine):
        storage = tensor.untyped_storage()
        key = (str(tensor.device), storage.data_ptr())
        if key not in seen and (tensor.device.type != device) == on_host and tensor.device.type != "meta":
            seen.add(key)
            bytes_of[part] += storage.nbytes()
    return bytes_of


def _list_tensors(engine: Engine) -> Iterator[tuple[Part, torch.Tensor]]:
    """Tensors of the engine with their parts; the first one of a storage decides what it is."""
    module, wrapper = engine.module, engine.optimizer
    parameters = list(module.parameters())
    optimizer = wrapper if isinstance(wrapper, torch.optim.Optimizer) else wrapper.optimizer
    for parameter in parameters:
        part: Part = "lora_weights" if parameter.requires_grad else "frozen_weights"
        yield part, parameter.detach()
        yield from ((part, shard) for shard in find_tensors(getattr(parameter, "ds_tensor", None)))
    yield from (("frozen_weights", buffer) for buffer in module.buffers())
    own = {} if wrapper is optimizer else vars(wrapper)
    grouped = [group["params"] for group in optimizer.param_groups]
    masters = list(find_tensors([[own.get(name) for name in MASTERS], grouped]))
    yield from (("master_weights", master.detach()) for master in masters)
    yield from (("optimizer_states", state) for state in find_tensors(dict(optimizer.state)))
    yield from (("gradients", one.grad) for one in [*parameters, *masters] if one.grad is not None)
    yield from (("gradients", one) for one in find_tensors([own.get(name) for name in GRADIENTS]))
    yield from (("communication", one) for one in find_tensors(own))


def find_tensors(value: object, depth: int = 5) -> Iterator[torch.Tensor]:
    """Tensors in nested containers and dataclasses; other objects are not looked into.

    Args:
        value: What may hold some.
        depth: Levels to go down.
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and not isinstance(value, str | bytes):
        for item in _items(value):
            yield from find_tensors(item, depth - 1)


def _items(value: object) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, one.name) for one in fields(value))
