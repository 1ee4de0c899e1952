"""Reads and lays out the micro-batches of the steps to come, while the current one computes.

::

    thread    read, collate 5 | read, collate 6 | read, collate 7 | (waits: two steps are ready)
    caller    step 4 ......................| step 5 ........................| step 6 …

The order is the plan's, whatever the threads do; a loader can begin at any step. Where the process has a hard limit of
memory, steps are laid out in the caller instead: Python waits for ever for a thread that memory does not suffice for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import Empty, Queue
from threading import Event, Thread
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import torch

from harness.batch_plan import BatchPlan
from harness.data import MicroBatch, collate
from preprocess.forest import PackedRow
from preprocess.schema import Int64Array

DEPTH = 2
"""Steps that are ready and wait, at most."""


class LoadedStep(NamedTuple):
    """What a rank computes in a step.

    Attributes:
        step: Its number, from 0 over all epochs.
        rows: int64[≥ 1], the rows of the step over all ranks.
        batches: This rank's micro-batches, on the host; as many on every rank.
    """

    step: int
    rows: Int64Array
    batches: list[MicroBatch]


class StepSource(Protocol):
    """Where a run gets its steps from."""

    def __next__(self) -> LoadedStep:
        """The next step."""

    def restart(self, plan: BatchPlan, step: int) -> None:
        """Begin again at a step, laid out by another plan."""


def load_step(
    rows: Sequence[PackedRow], plan: BatchPlan, rank: int, step: int, *, flat: bool, pin: bool
) -> LoadedStep:
    """Read and lay out one step of one rank; see `StepLoader` for the arguments."""
    parts = plan.rows_of_rank(step, rank)
    batches = [collate([rows[int(index)] for index in part], flat=flat) for part in parts]
    return LoadedStep(step, plan.rows_of_step(step), [batch.pin() if pin else batch for batch in batches])


class StepLoader:
    """An iterator over steps that is one or two ahead; a context manager, whose end ends its thread.

    An error of the thread is raised in the caller as it is, at the step that it belongs to.

    Args:
        rows: Of the split, cheap to get by index and not bound to a thread.
        plan: Which rows a step takes.
        rank: Whose micro-batches.
        start_step: The first step wanted.
        num_steps: Steps of the whole run: the last one is `num_steps` - 1.
        flat: How rows are laid out; see `harness.data.collate`.
        pin: Whether to put batches in page-locked memory, for a GPU to copy from beside its work.
        depth: Steps that are ready and wait, at most; 0 for no thread, each step is laid out when it is asked for.
    """

    def __init__(
        self,
        rows: Sequence[PackedRow],
        plan: BatchPlan,
        rank: int,
        start_step: int,
        num_steps: int,
        *,
        flat: bool,
        pin: bool,
        depth: int = DEPTH,
    ) -> None:
        self._rows = rows
        self._plan = plan
        self._rank = rank
        self._steps = range(start_step, num_steps)
        self._flat = flat
        # Threads begin on the first GPU, and would make a context there for the memory that they lock.
        self._gpu = torch.accelerator.current_device_index() if pin else None
        self._reads_ahead = depth > 0
        self._ready: Queue[LoadedStep | BaseException | None] = Queue(maxsize=depth)
        self._start()

    def _start(self) -> None:
        self._stop = Event()
        self._to_come = iter(self._steps)
        self._thread: Thread | None = None
        if self._reads_ahead:
            self._thread = Thread(target=self._work, name="step-loader", daemon=True)
            self._thread.start()

    def restart(self, plan: BatchPlan, step: int) -> None:
        """Drop what is ready, and begin again at a step, laid out by another plan."""
        self.close()
        self._plan = plan
        self._steps = range(step, self._steps.stop)
        self._start()

    def __enter__(self) -> Self:
        """Return the loader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread."""
        self.close()

    def __iter__(self) -> Iterator[LoadedStep]:
        """Return the loader itself: each step comes once."""
        return self

    def __next__(self) -> LoadedStep:
        """Wait for the next step.

        Raises:
            StopIteration: There is none, or the loader was closed.
            Exception: What went wrong in the thread.
        """
        if self._stop.is_set():
            raise StopIteration
        if not self._reads_ahead:
            return self._load(next(self._to_come))
        item = self._ready.get()
        if isinstance(item, LoadedStep):
            return item
        self.close()
        if item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """End the thread and drop what it has made; more than once does no harm."""
        self._stop.set()
        if self._thread is None:
            return
        # A thread that waits for room finds it, sees the flag, and ends; it puts one more item at most.
        while self._thread.is_alive() or not self._ready.empty():
            try:
                self._ready.get_nowait()
            except Empty:
                self._thread.join()

    def _load(self, step: int) -> LoadedStep:
        pin = self._gpu is not None
        return load_step(self._rows, self._plan, self._rank, step, flat=self._flat, pin=pin)

    def _work(self) -> None:
        try:
            if self._gpu is not None:
                torch.accelerator.set_device_index(self._gpu)
            for step in self._to_come:
                self._ready.put(self._load(step))
                if self._stop.is_set():
                    return
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001 (the caller's thread raises it)
            self._ready.put(error)
