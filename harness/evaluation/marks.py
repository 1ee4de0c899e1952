"""The plan's marks: what a tuned model is to reach on songs that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark.

    Attributes:
        name: Of the mark and of its task.
        wanted: The least share.
        choices: (method, metric) that it is held against, the first that was measured.
    """

    name: str
    wanted: float
    choices: tuple[tuple[str, str], ...]


MARKS = (
    Mark("artist", 0.80, (("rank", "acc"), ("generate", "acc"))),
    Mark("genre", 0.85, (("rank", "acc"), ("generate", "acc"))),
    Mark("themes", 0.75, (("generate", "f1"),)),
    Mark("context", 0.70, (("rank", "within_decade"), ("generate", "within_decade"))),
)


def hold_against_marks(tasks: Mapping[str, Any], system: str) -> list[dict[str, Any]]:
    """Each mark with what the system reached; None where it was not measured.

    Args:
        tasks: Task → its part of `evaluation.json`.
        system: "after", or "before" where there is no adapter.
    """
    return [_hold(mark, tasks.get(mark.name, {}).get("metrics", []), system) for mark in MARKS]


def _hold(mark: Mark, rows: list[dict[str, Any]], system: str) -> dict[str, Any]:
    measured = {(row["method"], row["metric"]): row for row in rows if row["system"] == system}
    key = next((key for key in mark.choices if key in measured), mark.choices[0])
    row = measured.get(key, {})
    value = row.get("value")
    return {
        "mark": mark.name,
        "wanted": mark.wanted,
        "value": value,
        "reached": None if value is None else bool(value >= mark.wanted),
        "low": row.get("low"),
        "high": row.get("high"),
        "n": row.get("n", 0),
        "system": system,
        "method": key[0],
        "metric": key[1],
    }
