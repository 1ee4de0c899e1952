"""What a rank shows its guardian: a few numbers in shared memory, written without a system call.

The reader takes two equal copies in a row, so it never sees half of a change.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from typing import Literal, get_args

Phase = Literal["start", "load", "engine", "search", "resume", "step", "eval", "save", "finish"]

PHASES: tuple[Phase, ...] = get_args(Phase)

STEPPING: frozenset[Phase] = frozenset({"step", "eval", "save", "finish"})
"""Phases in which a signal waits for the ranks to agree on a step, after which the state is saved."""

_FORMAT = struct.Struct("<qqqq?qdd")


@dataclass(slots=True)
class Board:
    """Where a rank is.

    Attributes:
        phase: Index in `PHASES`.
        step: Optimizer steps done in the whole run.
        steps_here: Steps done in this process.
        beats: Marks passed so far. A mark is passed on all ranks alike, so the number tells who is behind.
        waiting: Whether the rank is in a collective of the harness.
        measured_steps: Steps in `busy_s`.
        busy_s: Seconds that those took in passes of this rank's own, without what it waited for others.
        step_s: Seconds of the last step; 0 before the first one has ended.
    """

    phase: int = 0
    step: int = 0
    steps_here: int = 0
    beats: int = 0
    waiting: bool = False
    measured_steps: int = 0
    busy_s: float = 0.0
    step_s: float = 0.0

    @property
    def phase_name(self) -> Phase:
        """The phase in words."""
        return PHASES[self.phase]


class BoardFile:
    """A board in a file without a name, which parent and child map."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Make the memory, or map that of a descriptor."""
        self.descriptor = os.memfd_create("guard-board") if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self.descriptor, _FORMAT.size)
        self._memory = mmap.mmap(self.descriptor, _FORMAT.size)

    def write(self, board: Board) -> None:
        """Show a board."""
        _FORMAT.pack_into(
            self._memory,
            0,
            board.phase,
            board.step,
            board.steps_here,
            board.beats,
            board.waiting,
            board.measured_steps,
            board.busy_s,
            board.step_s,
        )

    def read(self) -> Board:
        """The board as it is now."""
        before, now = b"", self._memory[:]
        while before != now:
            before, now = now, self._memory[:]
        return Board(*_FORMAT.unpack(now))
