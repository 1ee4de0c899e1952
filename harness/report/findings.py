"""What a reader of a report must not overlook."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning.

    Attributes:
        text: What was found, where, and how much of it.
        advice: What to do, or "".
        cost: Share of the run's time that it takes, by which warnings are ordered; infinity for a wrong number.
        ranks: Ranks that it names.
        is_note: Whether it was mended or came to nothing, so that it is told without alarm.
    """

    text: str
    advice: str = ""
    cost: float = 0.0
    ranks: tuple[int, ...] = ()
    is_note: bool = False
