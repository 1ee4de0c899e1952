"""Where an engine keeps the float32 values of its trained parameters, at every ZeRO stage.

What AdamW updates is, and which part of a parameter lies in it:

    stage 0, float32        the parameter itself
    stage 0, bf16 and fp16  its float32 copy, whole on every rank
    stages 1 and 2          a flat tensor of this rank's share of all parameters laid end to end
    stage 3                 a flat tensor of this rank's share of each parameter, one after another

Its moments have the same layout, so one `Place` finds all three. Source: DeepSpeed 0.19.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import torch

from harness.dist import Engine, Optimizer
from harness.lora import trainable_parameters
from preprocess.errors import ConfigError

KINDS = ("master", "exp_avg", "exp_avg_sq")
"""What is kept of a trained value: itself in float32, and Adam's moments of its gradient."""

Named: TypeAlias = list[tuple[str, Any]]
"""Trained parameters by name; DeepSpeed puts attributes of its own on them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A run of a parameter's values, and where they lie on this rank.

    Attributes:
        name: Of the parameter.
        shape: Of the whole parameter.
        start: Index of the first value in the parameter, flattened.
        count: Values, at least 1.
        tensor: float32, what AdamW updates.
        offset: Index of the first value in that tensor, flattened.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    count: int
    tensor: torch.Tensor
    offset: int

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """float32[count]: these values in `tensor`, which lies as the place's own does; a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.count)


def adam_of(engine: Engine) -> torch.optim.Optimizer:
    """The optimizer that DeepSpeed's wraps, or the one that it does not wrap."""
    found: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return found


def find_places(engine: Engine, rank: int) -> list[Place]:
    """Every trained value on this rank, in the order of parameters. At stage 0 all ranks hold all.

    Raises:
        ConfigError: The optimizer's state lies on an NVMe disk.
    """
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    named = trainable_parameters(engine.module)
    if stage == 0:
        return list(_places_without_zero(optimizer, named))
    if stage == 3:
        if getattr(optimizer, "swap_optimizer", False):
            raise ConfigError('deepspeed: offload_optimizer.device "nvme" cannot be saved; use "cpu" instead')
        return list(_places_of_stage_3(optimizer, named, rank))
    return list(_places_of_partition(optimizer, named))


def _places_without_zero(
    optimizer: Optimizer, named: list[tuple[str, torch.nn.Parameter]]
) -> Iterator[Place]:
    copies = {
        id(half): whole
        for halves, wholes in zip(
            getattr(optimizer, "fp16_groups", ()), getattr(optimizer, "fp32_groups", ()), strict=True
        )
        for half, whole in zip(halves, wholes, strict=True)
    }
    for name, parameter in named:
        tensor = copies.get(id(parameter), parameter)
        yield Place(name, tuple(parameter.shape), 0, parameter.numel(), tensor, 0)


def _places_of_partition(
    optimizer: Optimizer,
    named: Named,
) -> Iterator[Place]:
    """Stages 1 and 2: DeepSpeed has noted for each parameter which run of it this rank owns, if any."""
    for name, parameter in named:
        mapping = parameter._hp_mapping
        if mapping is None:
            continue
        start, address = mapping.lp_fragment_address.start, mapping.hp_fragment_address
        flat = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
        yield Place(name, tuple(parameter.shape), start, address.numel, flat, address.start)


def _places_of_stage_3(
    optimizer: Optimizer,
    named: Named,
    rank: int,
) -> Iterator[Place]:
    """Each parameter is cut into as many equal shares as there are ranks; padding ends the last ones."""
    for name, parameter in named:
        group, offset, share = optimizer.grad_position[optimizer.get_param_id(parameter)]
        shape = tuple(parameter.ds_shape)
        count = min(share, prod(shape) - rank * share)
        if count > 0:
            flat = optimizer.fp32_partitioned_groups_flat[group]
            yield Place(name, shape, rank * share, count, flat, offset)


def owned_places(engine: Engine, rank: int) -> list[Place]:
    """The values that this rank saves: every value is one rank's. At stage 0 all are rank 0's."""
    return [] if engine.zero_optimization_stage() == 0 and rank else find_places(engine, rank)


def steps_of(engine: Engine, places: list[Place]) -> list[float]:
    """For each place the updates that Adam has counted, 0 before the first."""
    states = adam_of(engine).state
    tensors = {id(place.tensor): place.tensor for place in places}
    counted = [
        (key, states[tensor]["step"]) for key, tensor in tensors.items() if "step" in states.get(tensor, {})
    ]
    if not counted:
        return [0.0] * len(places)
    values = torch.stack([torch.as_tensor(step, dtype=torch.float32) for _, step in counted]).tolist()
    by_tensor = dict(zip([key for key, _ in counted], values, strict=True))
    return [by_tensor.get(id(place.tensor), 0.0) for place in places]


def refresh_weights(engine: Engine) -> None:
    """Make the weights that the forward pass reads from their float32 copies; every rank must call this."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    with torch.no_grad():
        if stage in (1, 2):
            optimizer.update_lp_params()
        elif stage == 3:
            optimizer.checkpoint_event_prologue()  # takes the whole copies of small weights away
            for group in range(len(optimizer.fp16_groups)):
                optimizer._reassign_or_swap_out_partitioned_parameters(group)
            optimizer.checkpoint_event_epilogue()
        elif not isinstance(optimizer, torch.optim.Optimizer):
            for halves, wholes in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
                for half, whole in zip(halves, wholes, strict=True):
                    half.data.copy_(whole.data)
