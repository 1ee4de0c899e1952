"""Count what a step asks of the machine: collectives, and reads of the device by the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True, slots=True)
class Watched:
    """Collectives (name and numel of the largest tensor) and reads of the device by the host."""

    collectives: list[tuple[str, int]]
    reads: int


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every collective, and every time that the host waits for a number of the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.collectives: list[tuple[str, int]] = []
        self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.collectives.append((func._schema.name.removeprefix("c10d::"), largest_numel(args)))
        self.reads += func._schema.name in ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")
        return func(*args, **(kwargs or {}))


def largest_numel(values: Any) -> int:
    """Elements of the largest tensor in nested sequences."""
    if isinstance(values, torch.Tensor):
        return values.numel()
    if isinstance(values, list | tuple):
        return max((largest_numel(value) for value in values), default=0)
    return 0
