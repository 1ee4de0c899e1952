"""Marks that a rank passes, for its guardian to see; and the signal that asks it to stop.

One process is one rank, so the marks are the process's own. Without a guardian they cost next to nothing and do
nothing. They are passed on all ranks alike: none may stand where rank 0 alone comes by.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from harness.guard.board import PHASES, STEPPING, Board, BoardFile, Phase

T = TypeVar("T")

BUSY_PARTS = ("data", "forward", "loss", "backward")
"""Parts of a step that wait for no other rank, at ZeRO 0 to 2."""


class Marks:
    """A process's marks.

    Attributes:
        board: What was shown last.
        stop: The signal that asks for a stop, or 0.
    """

    def __init__(self) -> None:
        self.board = Board()
        self.stop = 0
        self._file: BoardFile | None = None
        self._events: list[dict[str, Any]] = []

    def show_on(self, file: BoardFile | None) -> None:
        """Show the marks on a board from now on, or no longer."""
        self._file = file
        self._show()

    def _show(self) -> None:
        if self._file is not None:
            self._file.write(self.board)

    def enter(self, phase: Phase) -> None:
        """Pass into a phase, which has its own limit of time; it lasts until the next one."""
        self.board.phase = PHASES.index(phase)
        self.beat()

    def beat(self) -> None:
        """Pass a mark."""
        self.board.beats += 1
        self._show()

    def beats(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with a mark before each."""
        for item in items:
            self.beat()
            yield item

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a wait for other ranks: what hangs there does so for want of another. Only the main thread's count."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.board.waiting = True
        self.beat()
        try:
            yield
        finally:
            self.board.waiting = False
            self.beat()

    def end_step(self, step: int, step_s: float, parts_s: Mapping[str, float]) -> None:
        """Mark the end of a step.

        Args:
            step: Steps done.
            step_s: Its seconds.
            parts_s: Its seconds by part; empty where it was not timed by parts.
        """
        self.board.step, self.board.step_s = step, step_s
        self.board.steps_here += 1
        if parts_s:
            self.board.measured_steps += 1
            self.board.busy_s += sum(parts_s.get(part, 0.0) for part in BUSY_PARTS)
        self.beat()

    def is_stepping(self) -> bool:
        """Whether a stop waits for a step's end."""
        return self.board.phase_name in STEPPING

    def asked_to_stop(self) -> int:
        """The number of the signal that asks for a stop, or 0."""
        return self.stop

    def put_event(self, event: dict[str, Any]) -> None:
        """Keep what the guardian found out, for the run to write down."""
        self._events.append(event)

    def take_events(self) -> list[dict[str, Any]]:
        """What the guardian found out since the last call, as plain values."""
        taken, self._events = self._events, []
        return taken


MARKS = Marks()
"""This process's."""
