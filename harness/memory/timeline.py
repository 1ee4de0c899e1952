"""Memory within one step: allocated bytes at each decoder layer's boundary and at the ends of phases.

    forward begins ─ layer 0 forward ─ … ─ layer 27 forward ─ forward ends ─ loss begins ─ loss ends ─ backward begins
    ─ head backward ─ layer 27 backward ─ … ─ layer 1 backward ─ backward ends (layer 0 is through then) ─ optimizer …

"layer 3 backward" is the moment when layer 3 has its input's gradient: the hook is on a tensor in the autograd graph,
not on the module, so it is the same with recomputation, whose second forward pass is told from the first by its phase.
The allocator's count follows the host, which is ahead of a GPU: figures are exact, seconds are the host's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.json_lines import JsonObject, read_json_lines, write_json_lines
from preprocess.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

TIMELINE_FILE = "memory_timeline.jsonl"

MAX_POINTS = 2000
"""Points at layers in one step: some 30 micro-steps of 30 layers. Ends of phases are noted beyond it."""


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """Memory at one moment.

    Attributes:
        time_s: Seconds since the step's start.
        where: As in "layer 3 forward" or "loss ends".
        allocated: Bytes of tensors, on the CPU of all that malloc handed out.
    """

    time_s: float
    where: str
    allocated: int


@dataclass(frozen=True, slots=True)
class MemoryTimeline:
    """Memory within one step on one rank; steps count from 1, as in metrics.jsonl."""

    rank: int
    step: int
    points: tuple[TimelinePoint, ...]

    @property
    def peak(self) -> TimelinePoint:
        """The highest point."""
        return max(self.points, key=lambda point: point.allocated)

    def to_dict(self) -> JsonObject:
        """A line of memory_timeline.jsonl."""
        points = [{"time_s": p.time_s, "where": p.where, "allocated": p.allocated} for p in self.points]
        return {"rank": self.rank, "step": self.step, "points": points}


class TimelineRecorder:
    """Takes the timeline of one step at a time, and keeps the last one."""

    def __init__(
        self, rank: int, read: Callable[[], int], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Create a recorder.

        Args:
            rank: For the record.
            read: Returns allocated bytes.
            clock: Seconds from any origin, monotonic.
        """
        self.last: MemoryTimeline | None = None
        self._rank = rank
        self._read = read
        self._clock = clock
        self._handles: list[RemovableHandle] = []
        self._points: list[TimelinePoint] = []
        self._step: int | None = None
        self._phase = ""
        self._started_at = 0.0

    def start(self, step: int, layers: Sequence[nn.Module]) -> None:
        """Begin a step's timeline; one that was left open, since its step failed, is dropped.

        Args:
            step: Its number, from 1.
            layers: Decoder layers. Compiled ones are not looked into: a hook would have them compiled anew.
        """
        self._remove_hooks()
        self._step, self._points, self._started_at = step, [], self._clock()
        count = len(layers)
        for index, layer in enumerate(layers):
            if getattr(layer, "_compiled_call_impl", None) is None:
                name = "head" if index + 1 == count else f"layer {index + 1}"
                self._handles.append(layer.register_forward_hook(self._after(index, name)))

    def _after(self, index: int, above: str) -> Callable[[nn.Module, Any, Any], None]:
        """The hook of a layer's forward pass; `above` is what has passed through backward when its output's is due."""

        def note(module: nn.Module, inputs: object, output: Any) -> None:  # noqa: ANN401 - whatever a layer returns
            if self._phase == "backward":
                self._add_layer(f"layer {index} recomputed")
                return
            self._add_layer(f"layer {index} forward")
            hidden: torch.Tensor = output[0] if isinstance(output, tuple) else output
            if hidden.requires_grad:
                cast("Any", hidden).register_hook(lambda gradient: self._add_layer(f"{above} backward"))

        return note

    def enter(self, phase: str) -> None:
        """Note that a phase begins."""
        if self._step is not None:
            self._phase = phase
            self._add(f"{phase} begins")

    def leave(self, phase: str) -> None:
        """Note that a phase ends."""
        if self._step is not None:
            self._phase = ""
            self._add(f"{phase} ends")

    def stop(self) -> None:
        """End the step's timeline, if there is one, and keep it as the last."""
        self._remove_hooks()
        if self._step is not None and self._points:
            self.last = MemoryTimeline(self._rank, self._step, tuple(self._points))
        self._step = None

    def _remove_hooks(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _add_layer(self, where: str) -> None:
        if self._step is not None and len(self._points) < MAX_POINTS:
            self._add(where)

    def _add(self, where: str) -> None:
        allocated = self._read()  # before the clock: what it takes belongs to what came before
        self._points.append(TimelinePoint(self._clock() - self._started_at, where, allocated))


def write_timelines(path: Path, timelines: Iterable[MemoryTimeline]) -> None:
    """Write the timelines of all ranks to a file (memory_timeline.jsonl), replacing it in one step."""
    write_json_lines(path, (timeline.to_dict() for timeline in timelines))


def read_timelines(path: Path) -> list[MemoryTimeline]:
    """Read what `write_timelines` wrote.

    Raises:
        DataError: A line is not a timeline.
    """
    try:
        return [_parse(line) for line in read_json_lines(path)]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: a line is not a timeline of memory ({type(error).__name__}: {error}). "
            "Write the file again with a new run, or remove it."
        ) from error


def _parse(line: JsonObject) -> MemoryTimeline:
    points = tuple(
        TimelinePoint(float(p["time_s"]), str(p["where"]), int(p["allocated"])) for p in line["points"]
    )
    if not points:
        raise ValueError("no points")
    return MemoryTimeline(int(line["rank"]), int(line["step"]), points)
