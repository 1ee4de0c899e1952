"""memory_fit.json: the rows and recomputed layers that a run has settled on, and what they hold for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.memory.search import Choice
from preprocess.durable import write_text_durably
from preprocess.outside_text import parse_json

FIT_FILE = "memory_fit.json"


@dataclass(frozen=True, slots=True)
class Fit:
    """A choice and where it comes from.

    Attributes:
        choice: Rows of a micro-batch and recomputed layers.
        origin: "config", "search", or "out of memory".
        peak_bytes: What a search measured of it; None otherwise.
        target_bytes: What it was to stay under; None otherwise.
        trials: What a search tried, as plain values.
        step: Of the run, for which it was taken when memory ran out.
    """

    choice: Choice
    origin: str
    peak_bytes: float | None = None
    target_bytes: float | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)
    step: int | None = None


def write_fit(path: Path, key: dict[str, Any], fit: Fit) -> None:
    """Write a fit with what it holds for, in one step."""
    values = {**asdict(fit), "choice": fit.choice._asdict(), "key": key}
    write_text_durably(path, json.dumps(values, indent=2) + "\n")


def read_fit(path: Path, key: dict[str, Any]) -> tuple[Fit | None, str | None]:
    """Read a fit.

    Args:
        path: The file.
        key: What it must hold for.

    Returns:
        The fit, or None where there is none or it holds for something else; and in that case a line that says so.
    """
    if not path.is_file():
        return None, None
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        found = values.pop("key")
        fit = Fit(**{**values, "choice": Choice(**values["choice"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, f"{path}: damaged; it is made anew"
    now = json.loads(json.dumps(key))
    differing = sorted(name for name in now.keys() | found.keys() if now.get(name) != found.get(name))
    if differing:
        return None, f"{path}: found for another {', '.join(differing)}; it is made anew"
    return fit, None


def shrink(choice: Choice, rows_in_step: int, num_layers: int) -> Choice | None:
    """What takes less memory after it ran out: half of the rows; at one row, half of the layers left, then all.

    Args:
        choice: With which it ran out.
        rows_in_step: The most that a micro-batch of the step had.
        num_layers: Of the model.

    Returns:
        None where nothing is left to give up.
    """
    rows = min(choice.rows, rows_in_step)
    if rows > 1:
        return choice._replace(rows=rows // 2)
    if choice.layers >= num_layers:
        return None
    halved = choice.layers + -(-(num_layers - choice.layers) // 2)
    # Once more would gain little at a time: the second turn takes all.
    return Choice(1, num_layers if choice.layers * 2 >= num_layers else halved)
