"""Bytes that are alive while a pass makes tensors and drops them, replayed from sizes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from harness.memory.case import Part


class Made(NamedTuple):
    """One tensor's storage: its bytes, and what it counts as."""

    num_bytes: int
    part: Part


NOTHING = Made(0, "layer_work")
"""A tensor that a case does not have."""


class Tape:
    """Replays a pass: what is alive now, and what was alive at the peak of each stretch.

    Attributes:
        now: Bytes alive.
        peaks: By stretch, the parts that were alive when most bytes were.
    """

    def __init__(self) -> None:
        self.now = 0
        self.alive: Counter[Part] = Counter()
        self.peaks: dict[str, Mapping[Part, int]] = {}
        self._stretch = ""
        self._most = 0

    def begin(self, stretch: str) -> None:
        """A new stretch, at whose start is alive what the last one left."""
        self._stretch, self._most = stretch, self.now
        self.peaks[stretch] = dict(self.alive)

    def make(self, num_bytes: int, part: Part = "layer_work") -> Made:
        """A tensor comes alive."""
        self.alive[part] += num_bytes
        self.now += num_bytes
        if self.now > self._most:
            self._most = self.now
            self.peaks[self._stretch] = dict(self.alive)
        return Made(num_bytes, part)

    def drop(self, *tensors: Made) -> None:
        """Tensors end."""
        for num_bytes, part in tensors:
            self.alive[part] -= num_bytes
            self.now -= num_bytes

    def touch(self, *sizes: int) -> None:
        """Temporaries that are alive together, and gone at once."""
        self.drop(self.make(sum(sizes)))
