"""Several runs on each side: what differs from run to run, and not from step to step alone, counts as noise.

Two runs an hour apart differ by whatever else their machine did. The steps within them cannot tell; repeated runs can:
each gives one value of each quantity, its median over the steps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.compare.intervals import shift
from bench.compare.runs import APART, RunSteps, list_warnings
from bench.compare.verdict import (
    CONFIDENCE,
    Comparison,
    family_confidence,
    find_quantity,
    scale,
    shorten,
    to_ratio,
)
from preprocess.errors import ConfigError


def compare_several(a: Sequence[RunSteps], b: Sequence[RunSteps], min_change: float) -> Comparison:
    """Compare by token the medians of at least two runs on each side.

    Raises:
        ConfigError: A side has one run only.
    """
    if min(len(a), len(b)) < 2:
        raise ConfigError(
            f"got {len(a)} runs against {len(b)}, expected one on each side, or two or more on each side."
        )
    origins = [", ".join(run.origin for run in side) for side in (a, b)]
    title = f"time of a training step and its parts, of {len(a)} and {len(b)} runs"
    found = Comparison(title, origins[0], origins[1], min_change)
    warnings = [line for run in (*a[1:], *b) for line in list_warnings(a[0], run)]
    found.warnings = shorten(list(dict.fromkeys(warnings)))
    steps = [[per_token(run, None) for run in side] for side in (a, b)]
    logs = [[math.log(value) for value in side] for side in steps]
    medians = (statistics.median(steps[0]), statistics.median(steps[1]))
    interval = to_ratio(shift(logs[0], logs[1], CONFIDENCE))
    found.findings.append(find_quantity("step", "us/token", medians, interval, CONFIDENCE, -1, min_change))
    names = [name for name in list_parts(a[0]) if all(name in list_parts(run) for run in (*a, *b))]
    for name in names:
        parts = [[per_token(run, name) for run in side] for side in (a, b)]
        confidence = family_confidence(len(names))
        change = scale(shift(parts[0], parts[1], confidence), 1 / medians[0])
        both = (statistics.median(parts[0]), statistics.median(parts[1]))
        found.findings.append(
            find_quantity(f"part: {name}", "us/token", both, change, confidence, -1, min_change)
        )
    return found


def list_parts(run: RunSteps) -> list[str]:
    """The parts of a step that a run timed."""
    timed = [line["parts_s"] for line in run.steps if line.get("parts_s")]
    return [name for name in timed[0] if name not in APART] if timed else []


def per_token(run: RunSteps, part: str | None) -> float:
    """Median microseconds a token over a run's steps, of the step or of a part."""
    times = [
        (line["step_time_s"] if part is None else line["parts_s"].get(part, 0.0)) / max(1, line["tokens"])
        for line in run.steps
        if part is None or line.get("parts_s")
    ]
    return 1e6 * float(statistics.median(times))
