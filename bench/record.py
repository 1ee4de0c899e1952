"""What every benchmark shares: timing in turns, medians, ratios to a baseline, one JSON line a run.

Ways of doing the same work are timed turn by turn (A, B, A, B, …), so that another load on the machine hits all of
them, and each turn gives a ratio of its own. A ratio above 1 always means: faster than the baseline.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import measure_load

FORMAT_VERSION = 2
"""Version 2 keeps the values of each figure, the load at the end, and the time; `bench.recorded` reads 1 as well."""

MAX_VALUES = 400
"""A figure of more values keeps so many of them, evenly spaced; its median and percentiles are of all."""

DIGITS = 7
"""Significant digits of a value that is kept."""


class WrongResultError(RuntimeError):
    """Two ways that must give the same result do not, so their times mean nothing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity measured n times.

    Attributes:
        unit: As in "examples/s"; "x" for a ratio.
        median: Half of the values lie below.
        p20: A fifth of the values lies below.
        p80: Four fifths of the values lie below.
        n: Number of values.
        values: The values in the order of their turns, `MAX_VALUES` of them at most; () where only the summary is
            known.
    """

    unit: str
    median: float
    p20: float
    p80: float
    n: int
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Turns:
    """What came of timing some ways in turns.

    Attributes:
        seconds: For each way, the wall time of each of its turns.
        results: For each way, what its last turn returned.
    """

    seconds: dict[str, list[float]]
    results: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program found.

    Attributes:
        baseline: The way that `ratios` compare with.
        figures: Measured quantities, by way and quantity.
        ratios: By way: how many times as fast as the baseline; above 1 is faster.
        facts: Counts and settings that the figures belong to; they do not vary from turn to turn.
    """

    baseline: str
    figures: dict[str, Figure]
    ratios: dict[str, Figure]
    facts: dict[str, float | int | str] = field(default_factory=dict)


def summarize(values: Sequence[float], unit: str) -> Figure:
    """Median, 20th and 80th percentile (linear between neighbours).

    Raises:
        ValueError: There is no value.
    """
    if not values:
        raise ValueError("a figure needs at least one value")
    p20, median, p80 = np.percentile(np.asarray(values, dtype=np.float64), [20, 50, 80]).tolist()
    return Figure(unit, median, p20, p80, len(values), keep(values))


def keep(values: Sequence[float]) -> tuple[float, ...]:
    """The values that a record keeps: `MAX_VALUES` at most, evenly spaced, with `DIGITS` digits."""
    spaced = np.linspace(0, len(values) - 1, min(len(values), MAX_VALUES)).round().astype(np.int64)
    return tuple(float(f"{values[index]:.{DIGITS}g}") for index in spaced)


def rates(seconds: Sequence[float], num_items: int) -> list[float]:
    """Items a second in each turn."""
    return [num_items / turn for turn in seconds]


def costs(seconds: Sequence[float], num_items: int, scale: float = 1e6) -> list[float]:
    """Time an item in each turn; in microseconds unless `scale` says otherwise."""
    return [turn * scale / num_items for turn in seconds]


def compare(baseline_s: Sequence[float], other_s: Sequence[float]) -> Figure:
    """How many times as fast as the baseline, turn by turn; above 1 is faster.

    Args:
        baseline_s: Seconds of each turn of the baseline (or seconds an item, where the work differs).
        other_s: The same of the other way, in the same turns.

    Raises:
        ValueError: The turns are not the same in number, or there are none.
    """
    pairs = zip(baseline_s, other_s, strict=True)
    return summarize([base / other for base, other in pairs], "x")


def time_in_turns(
    ways: Mapping[str, Callable[[], object]],
    num_turns: int,
    *,
    num_warmups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Time each way once a turn, in their order: A, B, A, B and so on.

    A way's last result is freed, and garbage collected, before its clock starts: no way pays for another's litter.

    Args:
        ways: Names and what to run.
        num_turns: Timed turns.
        num_warmups: Turns before them that are run but not timed (caches, lazy initialisation).
        clock: Seconds since some moment.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for turn in range(-num_warmups, num_turns):
        for name, run in ways.items():
            results.pop(name, None)
            gc.collect()
            elapsed, results[name] = _time(run, clock)
            if turn >= 0:
                seconds[name].append(elapsed)
    return Turns(seconds, results)


def _time(run: Callable[[], object], clock: Callable[[], float]) -> tuple[float, object]:
    start = clock()
    result = run()
    return clock() - start, result


def make_record(
    name: str, question: str, outcome: Outcome, command: str, surroundings: Mapping[str, Any]
) -> dict[str, Any]:
    """One run as a JSON object; call it after the last measurement, for the load at the end.

    Args:
        name: Of the program.
        question: What it answers.
        outcome: What it found.
        command: The command line that repeats it.
        surroundings: See `bench.machine.describe_surroundings`.
    """
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "question": question,
        "command": command,
        **surroundings,
        "load_average_at_end": measure_load(),
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(outcome),
    }


def to_line(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON; a number that is not finite is an error, not "NaN".

    Raises:
        ValueError: A value is not finite.
    """
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record to a file of JSON lines; earlier runs stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(to_line(record) + "\n")
