"""Work shared out to processes, with results in the order of the work, whatever the number of processes.

Workers are spawned, not forked: they start clean, and are the same on every system. They serve one stage after
another, and end by themselves when the process that started them is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from preprocess.errors import OutOfMemoryError

T = TypeVar("T")
R = TypeVar("R")

_QUEUED_PER_WORKER = 2
"""Pieces of work that wait for each worker: enough to keep it busy, few enough to keep memory flat."""

_EXIT_ORPHANED = 143


class Workers:
    """Processes that work through one stage after another. They start when there is work for two.

    Args:
        num_workers: Processes. 1 works in this process.
        scratch: Folder for what workers are told at the start of a stage; None: the system's.
    """

    def __init__(self, num_workers: int, scratch: Path | None = None) -> None:
        self.num_workers = num_workers
        self._scratch = scratch
        self._executor: ProcessPoolExecutor | None = None
        self._num_stages = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def run(
        self, work: Callable[[Any, T], R], items: Iterable[T], make_state: Callable[[], Any]
    ) -> Iterator[R]:
        """Do `work(state, item)` for each item, and yield the results in the order of the items.

        Args:
            work: A function of a module.
            items: Pieces of work, taken as workers become free. A single one is worked on in this process.
            make_state: Makes what a worker holds for this stage; called once in each worker. It must pickle.

        Raises:
            OutOfMemoryError: The system ended a worker.
            Exception: Whatever `work` or `make_state` raises.
        """
        rest = iter(items)
        first = list(islice(rest, 2))
        items = chain(first, rest)
        if self.num_workers > 1 and len(first) == 2:
            yield from self._share_out(work, items, make_state)
        elif first:
            state = make_state()
            for item in items:
                yield work(state, item)

    def _share_out(
        self, work: Callable[[Any, T], R], items: Iterable[T], make_state: Callable[[], Any]
    ) -> Iterator[R]:
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.num_workers, context, _start_worker)
        self._num_stages += 1
        waiting: deque[Future[R]] = deque()
        with tempfile.TemporaryDirectory(prefix="stage-", dir=self._scratch) as folder:
            state_file = Path(folder) / "state"
            state_file.write_bytes(pickle.dumps(make_state))
            try:
                for item in items:
                    errand = _Errand(self._num_stages, state_file, work, item)
                    waiting.append(self._executor.submit(_run, errand))
                    if len(waiting) >= self.num_workers * (1 + _QUEUED_PER_WORKER):
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool as error:
                raise OutOfMemoryError(
                    "a worker process was ended from outside, most likely by the system for want of memory. Run the "
                    "same command again with fewer --workers; it goes on where it stopped"
                ) from error
            finally:
                for future in waiting:
                    future.cancel()


def count_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Errand:
    """A piece of work on its way to a worker, with the number of its stage and where the stage's state is."""

    stage: int
    state_file: Path
    work: Callable[[Any, Any], Any]
    item: Any


_held: tuple[int, Any] = (0, None)
"""In a worker: the number of the stage it is in, and what it holds for it."""


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends the workers in order
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _run(errand: _Errand) -> Any:  # noqa: ANN401 - whatever the work gives
    global _held
    if _held[0] != errand.stage:
        make_state = pickle.loads(errand.state_file.read_bytes())  # written by the parent a moment ago
        _held = (errand.stage, make_state())
    return errand.work(_held[1], errand.item)


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers: they watch for its end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(_EXIT_ORPHANED)
