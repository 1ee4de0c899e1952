"""One injected fault and what became of the run; and the table of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from rich.console import Console
from rich.table import Table

Kind = Literal["kill", "disk", "flip", "side file", "stop", "freeze", "link", "control"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault.

    Attributes:
        kind: The campaign.
        what: The fault in words, enough to repeat it with the campaign's seed.
        problems: What was wrong; empty where the run survived.
        lost_steps: Steps since the last checkpoint that had to be taken again; None where none were at stake.
        wrong: Whether a resumed run differed from the unbroken one.
        detect_s: Seconds from the fault to the end of the last rank that it did not kill, or None.
    """

    kind: Kind
    what: str
    problems: tuple[str, ...] = ()
    lost_steps: int | None = None
    wrong: bool = False
    detect_s: float | None = None

    @property
    def survived(self) -> bool:
        """Whether all went as promised."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Row:
    """A campaign in numbers; see `Trial`."""

    kind: str
    tried: int
    survived: int
    max_lost_steps: int
    wrong_resumes: int
    detect_median_s: float | None
    detect_max_s: float | None


def count_up(trials: Sequence[Trial]) -> list[Row]:
    """The numbers of each kind, in order of appearance."""
    return [
        _row(kind, [one for one in trials if one.kind == kind])
        for kind in dict.fromkeys(t.kind for t in trials)
    ]


def _row(kind: str, trials: Sequence[Trial]) -> Row:
    times = [trial.detect_s for trial in trials if trial.detect_s is not None]
    return Row(
        kind,
        tried=len(trials),
        survived=sum(trial.survived for trial in trials),
        max_lost_steps=max((trial.lost_steps or 0 for trial in trials), default=0),
        wrong_resumes=sum(trial.wrong for trial in trials),
        detect_median_s=median(times) if times else None,
        detect_max_s=max(times, default=None),
    )


def print_trials(trials: Sequence[Trial], console: Console) -> None:
    """The table, and every fault that was not survived."""
    table = Table(title="Faults", title_justify="left")
    table.add_column("kind")
    for name in ("tried", "survived", "lost steps, max", "wrong resumes", "detected, median s", "max s"):
        table.add_column(name, justify="right")
    for row in count_up(trials):
        times = ["" if x is None else f"{x:.1f}" for x in (row.detect_median_s, row.detect_max_s)]
        numbers = (row.tried, row.survived, row.max_lost_steps, row.wrong_resumes)
        table.add_row(row.kind, *map(str, numbers), *times)
    console.print(table)
    for trial in trials:
        for problem in trial.problems:
            console.print(
                f"{trial.kind}: {trial.what}: {problem}", highlight=False, markup=False, soft_wrap=True
            )
