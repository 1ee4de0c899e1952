"""Count tensors of a rank's state from their making to their end, at every operation."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

OF_THE_HARNESS = ("harness/step.py", "harness/dist.py")
VECTORS = (
    "harness/head.py",
    "harness/loss.py",
    "harness/engine.py",
    "harness/micro_steps.py",
    "deepspeed/runtime/utils.py",
)
"""Whose tensors of one dimension are losses and norms."""


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages from their making to their end; scalars, losses and the step's sums are left out.

    Attributes:
        now: Bytes alive.
        most: Most of them since the last `restart`.
        whole: Bytes alive of weights that ZeRO-3 has gathered.
        most_whole: Most of them since the last `restart`.
        is_patient: Whether to wait after a collective until gloo's thread has let go of what it sent.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = self.whole = self.most_whole = 0
        self.is_patient = self._has_sent = False
        self._alive: dict[int, tuple[int, bool]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            self._has_sent = True
        elif self._has_sent and self.is_patient:
            self._has_sent = False
            time.sleep(0.01)
        if not any(returned.alias_info for returned in func._schema.returns):  # else a view, or in place
            for value in tensors_in(result):
                if value.dim() and value.dtype != torch.bool:
                    self._add_if_state(value)
        return result

    def _add_if_state(self, value: torch.Tensor) -> None:
        owner, function = find_owner()
        if owner.endswith(OF_THE_HARNESS) or (owner.endswith(VECTORS) and value.dim() == 1):
            return
        self.add(
            value, is_whole=owner.endswith("partition_parameters.py") and "_partition_param" not in function
        )

    def add(self, value: torch.Tensor, *, is_whole: bool = False) -> None:
        """Count a tensor, unless its storage is counted already."""
        storage = value.untyped_storage()
        if storage._cdata in self._alive or not storage.nbytes() or value.device.type != "cpu":
            return
        self._alive[storage._cdata] = (storage.nbytes(), is_whole)
        self._change(storage.nbytes(), is_whole=is_whole)
        weakref.finalize(storage, self._end, storage._cdata)

    def _end(self, key: int) -> None:
        size, is_whole = self._alive.pop(key)
        self._change(-size, is_whole=is_whole)

    def _change(self, size: int, *, is_whole: bool) -> None:
        self.now += size
        self.whole += size * is_whole
        self.most, self.most_whole = max(self.most, self.now), max(self.most_whole, self.whole)

    def restart(self) -> None:
        """Forget the peaks, once gloo's thread has let go of what it sent."""
        time.sleep(0.05)
        gc.collect()
        self.most, self.most_whole = self.now, self.whole

    def counts(self, value: torch.Tensor) -> bool:
        """Whether a tensor's storage is among those counted."""
        return value.untyped_storage()._cdata in self._alive


def tensors_in(values: Any) -> list[torch.Tensor]:
    """All tensors of a nested structure."""
    return [value for value in tree_iter(values) if isinstance(value, torch.Tensor)]


def find_owner() -> tuple[str, str]:
    """File and function, of DeepSpeed or the harness, that asked for an operation."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if ("/deepspeed/" in name and not name.endswith("nvtx.py")) or "/harness/" in name:
            return name, frame.f_code.co_name
        frame = frame.f_back
    return "", ""
