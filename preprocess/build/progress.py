"""How far long work has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 20.0

Advance = Callable[[int], None]
"""Called with how much more is done."""


@contextmanager
def show_progress(console: Console, what: str, total: int | None, unit: str = "songs") -> Iterator[Advance]:
    """Show how far a stage has come.

    Args:
        console: Where to.
        what: The stage, as in "scanning".
        total: How much there is to do, or None when nobody knows yet.
        unit: What is counted.
    """
    if not console.is_terminal:
        yield _Lines(console, what, total, unit).advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, told="")
        start, done = time.monotonic(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress.update(task, advance=count, told=_tell(done, total, unit, time.monotonic() - start))

        yield advance


class _Lines:
    def __init__(self, console: Console, what: str, total: int | None, unit: str) -> None:
        self._console, self._what, self._total, self._unit = console, what, total, unit
        self._start = self._last = time.monotonic()
        self._done = 0

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            told = _tell(self._done, self._total, self._unit, now - self._start)
            self._console.print(f"{self._what}: {told}", highlight=False)


def _tell(done: int, total: int | None, unit: str, seconds: float) -> str:
    of = "" if total is None else f" of {total:,}"
    rate = f", {done / seconds:,.0f}/s" if seconds > 1 else ""
    return f"{done:,}{of} {unit}{rate}"
