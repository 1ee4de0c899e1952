"""Progress of a run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from harness.metering.ceilings import name_ceiling
from harness.metering.run_meter import StepMeasures

LINE_EVERY_S = 15.0
"""Seconds between lines where there is no terminal."""


class StepProgress:
    """Shows steps, loss and speed.

    Args:
        console: Where to.
        num_steps: Steps of the whole run.
        done: Steps done before.
        enabled: False on every rank but one.
    """

    def __init__(self, console: Console, num_steps: int, done: int, *, enabled: bool) -> None:
        self._console = console
        self._num_steps = num_steps
        self._enabled = enabled
        self._last_line_s = float("-inf")
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not (enabled and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=num_steps, completed=done)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def advance(self, step: int, loss: float, measures: StepMeasures) -> None:
        """Show that a step is done."""
        text = f"loss {loss:.4f}, {describe_speed(measures)}"
        self._bar.update(self._task, completed=step, description=text)
        now = time.monotonic()
        is_due = now - self._last_line_s >= LINE_EVERY_S or step == self._num_steps
        if self._enabled and not self._console.is_terminal and is_due:
            self._last_line_s = now
            self._console.print(f"step {step}/{self._num_steps}: {text}", highlight=False)

    def note_eval(self, step: int, loss: float) -> None:
        """Show an evaluation."""
        if self._enabled:
            self._console.print(f"step {step}/{self._num_steps}: eval loss {loss:.4f}", highlight=False)


def describe_speed(measures: StepMeasures) -> str:
    """Smoothed rates, the share of the peak (or of what was measured to be possible), and the time that is left."""
    smoothed, efficiency = measures.rates.smoothed, measures.efficiency
    words = [
        f"{smoothed['samples_per_s']:,.2f} samples/s",
        f"{smoothed['tokens_per_s']:,.0f} tokens/s",
    ]
    if efficiency.mfu is not None:
        words.append(f"MFU {efficiency.mfu:.1%}")
    elif efficiency.mfu_of_ceiling is not None:
        share = efficiency.mfu_of_ceiling
        words.append(f"{share:.0%} {name_ceiling(share)}")
    if measures.eta_s is not None:
        words.append(f"{timedelta(seconds=round(measures.eta_s))} left")
    return ", ".join(words)
