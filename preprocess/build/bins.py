"""Which items share a bin: millions of them in two arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.schema import Int64Array

IntegerArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Items bin by bin. Iterating gives each bin's items as an array.

    Attributes:
        order: int64[N], the items bin by bin.
        ends: int64[B], where each bin ends in `order`.
    """

    order: Int64Array
    ends: Int64Array

    @property
    def starts(self) -> Int64Array:
        """int64[B]: where each bin starts in `order`."""
        return np.concatenate([np.zeros(1, dtype=np.int64), self.ends])[: len(self)]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Int64Array:
        """int64[K]: the items of bin 0 … B - 1."""
        if not 0 <= index < len(self.ends):
            raise IndexError(index)
        return self.order[self.ends[index - 1] if index else 0 : self.ends[index]]

    def __iter__(self) -> Iterator[Int64Array]:
        return (self[i] for i in range(len(self)))

    def sums(self, values: IntegerArray) -> Int64Array:
        """int64[B]: the sum over each bin of some value of the items (int[N]); no bin may be empty."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        sums: Int64Array = np.add.reduceat(values[self.order], self.starts, dtype=np.int64)
        return sums


def sort_stably(values: np.ndarray[Any, Any]) -> Int64Array:
    """int64[N]: a stable order of numbers ≥ 0. Those of 16 bits are sorted by radix, several times as fast."""
    small = len(values) == 0 or int(values.max()) < 1 << 16
    return np.argsort(values.astype(np.uint16) if small else values, kind="stable")
