"""How many bytes of tensors are alive at once while something runs, counted at every operation, on any device.

Fake tensors are counted as well: storages are told apart by identity, not by address.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, from their making to their end.

    Args:
        width: Last dimension of the tensors that are counted apart.

    Attributes:
        now: Bytes alive.
        most: Most bytes alive at once, of everything made inside.
        widest: Most bytes alive at once, of storages made as tensors `width` wide.
        peaks: Most bytes alive at once in each stretch that `begin` has named.
    """

    def __init__(self, width: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.width = width
        self.now = self.most = self.widest = 0
        self.peaks: dict[str, int] = {}
        self._stretch: str | None = None
        self._alive: dict[int, tuple[int, bool]] = {}
        self._now_wide = 0

    def begin(self, stretch: str) -> None:
        """From here on peaks are those of a new stretch."""
        self._stretch = stretch
        self.peaks[stretch] = self.now

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - as torch's base class has it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as torch's base class has it
        """Run an operation, and count what it made."""
        given = {value.untyped_storage()._cdata for value in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for value in _tensors(result):
            if value.untyped_storage()._cdata not in given:
                self._count(value)
        return result

    def _count(self, value: torch.Tensor) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self._alive or storage.nbytes() == 0:
            return
        is_wide = value.dim() > 1 and value.shape[-1] == self.width
        self._alive[key] = (storage.nbytes(), is_wide)
        self._add(storage.nbytes(), is_wide)
        weakref.finalize(storage, self._end, key)

    def _end(self, key: int) -> None:
        size, is_wide = self._alive.pop(key)
        self._add(-size, is_wide)

    def _add(self, size: int, is_wide: bool) -> None:
        self.now += size
        self._now_wide += size * is_wide
        self.most = max(self.most, self.now)
        if self._stretch is not None:
            self.peaks[self._stretch] = max(self.peaks[self._stretch], self.now)
        self.widest = max(self.widest, self._now_wide)


def _tensors(values: Any) -> list[torch.Tensor]:  # noqa: ANN401 - any nesting of tensors
    return [value for value in tree_iter(values) if isinstance(value, torch.Tensor)]


def kept_storages(run: Callable[[], object]) -> dict[int, torch.UntypedStorage]:
    """What autograd holds for the backward pass of what runs, each storage once, by its identity.

    A layer that recomputes its activations shows what it keeps between the passes: its input.
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return kept
