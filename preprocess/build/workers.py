"""Work shared out to processes, with results in the order of the work, whatever the number of processes.

Workers are spawned, not forked: they start clean, import only what they need, and are the same on every system. A
worker ends by itself when the process that started it is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import connection
from typing import Any, TypeVar

from preprocess.errors import OutOfMemoryError

T = TypeVar("T")
R = TypeVar("R")

_QUEUED_PER_WORKER = 2
"""Pieces of work that wait for each worker: enough to keep it busy, few enough to keep memory flat."""

_EXIT_ORPHANED = 143

_state: Any = None
"""What a worker holds for all its work: set once when it starts."""

_work: Callable[[Any, Any], Any] | None = None

_failure: Exception | None = None
"""Why the state could not be made; raised by the first piece of work, for an initializer's error is only logged."""


def run_ordered(
    work: Callable[[Any, T], R], items: Iterable[T], make_state: Callable[[], Any], num_workers: int
) -> Iterator[R]:
    """Do `work(state, item)` for each item, and yield the results in the order of the items.

    Args:
        work: A function of a module.
        items: Pieces of work, taken as workers become free.
        make_state: Makes what a worker holds for all its work; called once in each worker.
        num_workers: Processes. 1, or a single item, is worked on in this process.

    Raises:
        OutOfMemoryError: The system ended a worker.
        Exception: Whatever `work` raises.
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    items = chain(first, rest)
    if num_workers == 1 or len(first) < 2:
        state = make_state() if first else None
        for item in items:
            yield work(state, item)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(num_workers, context, _start_worker, (work, make_state))
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(_do, item))
            if len(waiting) >= num_workers * (1 + _QUEUED_PER_WORKER):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OutOfMemoryError(
            "a worker process was ended from outside, most likely by the system for want of memory. Run the same "
            "command again with fewer --workers; it goes on where it stopped"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def count_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(work: Callable[[Any, Any], Any], make_state: Callable[[], Any]) -> None:
    global _state, _work, _failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends the workers in order
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _work, _state = work, make_state()
    except Exception as error:  # noqa: BLE001 - the first piece of work raises it
        _failure = error


def _do(item: Any) -> Any:  # noqa: ANN401 - whatever the work takes and gives
    if _failure is not None:
        raise _failure
    assert _work is not None
    return _work(_state, item)


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers: they watch for its end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(_EXIT_ORPHANED)
