"""A step's time on every rank: read from the run's lines, drawn and tabulated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.json_lines import JsonObject
from harness.report.bars import lay_bars
from harness.report.charts import PART_ROLES, spell
from harness.report.plots import Axes, Chart, Floats, LegendEntry, color, draw
from harness.report.records import RunRecords
from harness.report.tables import NOTHING, Table, format_percent, format_seconds

MAX_BARS = 16
"""Ranks in the chart: the slowest and the fastest by their own work."""

WAITING = ("wait", "communication")
"""Parts in which a rank does not work by itself."""


@dataclass(frozen=True, slots=True)
class RankTimes:
    """The measured steps (without warm-up) of n steps and R ranks.

    Attributes:
        steps: int64[n].
        hosts: R names, "" where a host is not known.
        step_time_s: float64[n, R].
        parts_s: Part to float64[n, R]; "eval" and "save" are not among them.
    """

    steps: np.ndarray[tuple[int], np.dtype[np.int64]]
    hosts: list[str]
    step_time_s: Floats
    parts_s: dict[str, Floats]

    @property
    def num_ranks(self) -> int:
        """R."""
        return len(self.hosts)

    @property
    def work_s(self) -> Floats:
        """float64[n, R]: what a rank does by itself, neither waiting nor sending."""
        return self.step_time_s - sum(
            (self.parts_s[part] for part in WAITING if part in self.parts_s),
            np.zeros_like(self.step_time_s),
        )

    def name(self, rank: int) -> str:
        """A rank with its host, for a reader."""
        return f"rank {rank} ({self.hosts[rank]})" if self.hosts[rank] else f"rank {rank}"


def read_rank_times(run: RunRecords) -> RankTimes | None:
    """The times of every rank, or of rank 0 alone where the run has no lines of kind "ranks"; None without any.

    Lines of a world of another size (a run that went on with fewer hosts) than the last one's are left out.
    """
    lines = run.ranks or [_as_ranks(line) for line in run.train if "other" in line.get("parts_s", {})]
    if not lines:
        return None
    size = len(lines[-1]["step_time_s"])
    warmup = {line["step"] for line in run.train if line.get("is_warmup")} or {
        line["step"] for line in run.train[:1]
    }
    lines = [line for line in lines if len(line["step_time_s"]) == size]
    lines = [line for line in lines if line["step"] not in warmup] or lines
    parts = list(dict.fromkeys(part for line in lines for part in line["parts_s"]))
    return RankTimes(
        np.array([line["step"] for line in lines], dtype=np.int64),
        _hosts(run, size),
        np.array([line["step_time_s"] for line in lines], dtype=np.float64),
        {
            part: np.array([line["parts_s"].get(part, [0.0] * size) for line in lines], dtype=np.float64)
            for part in parts
            if part not in ("eval", "save")
        },
    )


def _as_ranks(line: JsonObject) -> JsonObject:
    """A "train" line, whose times are rank 0's, as one of kind "ranks" of one rank."""
    parts = {part: [seconds] for part, seconds in line["parts_s"].items()}
    return {"step": line["step"], "step_time_s": [line["step_time_s"]], "parts_s": parts}


def _hosts(run: RunRecords, size: int) -> list[str]:
    """Host of each rank, from the summary or the measured ceilings."""
    named = (run.summary or {}).get("hosts") or [
        one.get("host") for one in sorted(run.ceilings.get("ranks", []), key=lambda one: int(one["rank"]))
    ]
    return [str(host or "") for host in named] if len(named) == size else [""] * size


def chart_ranks(times: RankTimes | None) -> list[Chart]:
    """Chart a step's mean seconds by part on every rank; beyond sixteen, on the slowest and the fastest."""
    if times is None or times.num_ranks < 2:
        return []
    order = np.argsort(-times.work_s.mean(axis=0), kind="stable").tolist()
    half = MAX_BARS // 2
    shown = sorted(order if len(order) <= MAX_BARS else order[:half] + order[-half:])
    means = {part: seconds.mean(axis=0)[shown] for part, seconds in times.parts_s.items() if seconds.any()}
    scale, unit = (1e3, "ms") if times.step_time_s.mean() < 1 else (1.0, "s")

    def paint(axes: Axes) -> None:
        left = np.zeros(len(shown))
        for part, seconds in means.items():
            widths = seconds * scale
            axes.barh(np.arange(len(shown)), widths, 0.7, left=left, color=color(PART_ROLES.get(part, "s6")))
            left += widths
        axes.set_yticks(range(len(shown)), [times.name(rank) for rank in shown])
        axes.invert_yaxis()
        lay_bars(axes)
        axes.set_xlabel(unit)

    legend = [LegendEntry(spell(part), PART_ROLES.get(part, "s6"), "box") for part in means]
    title = "Where a step's time goes on each rank, mean"
    note = "A rank that waits has less to do than the slowest one. "
    if len(shown) < len(order):
        note += f"The {half} ranks of {len(order)} that work longest and the {half} that work shortest. "
    drawing = draw("ranks", title, paint, 0.95 + 0.34 * len(shown))
    return [Chart(title, drawing, legend, f"{note}Warm-up is left out.")]


def tabulate_ranks(times: RankTimes | None) -> list[Table]:
    """Tabulate for each rank its own work, its waiting, and how often it was the slowest."""
    if times is None or times.num_ranks < 2:
        return []
    work, total = times.work_s, times.step_time_s.mean(axis=0)
    slowest = np.bincount(work.argmax(axis=1), minlength=times.num_ranks) / len(work)
    means = work.mean(axis=0)
    columns = ["", "own work", "data", "waits", "communicates", "slowest in"]
    rows = []
    for rank in range(times.num_ranks):
        parts = [times.parts_s.get(part) for part in ("data", *WAITING)]
        shares = [
            NOTHING if part is None else format_percent(float(part[:, rank].mean() / total[rank]))
            for part in parts
        ]
        rows.append(
            [
                times.name(rank),
                format_seconds(float(means[rank])),
                *shares,
                f"{slowest[rank]:.0%} of steps",
            ]
        )
    if len(rows) > MAX_BARS:
        order = np.argsort(-means, kind="stable").tolist()
        rows = [rows[rank] for rank in order[:MAX_BARS]]
    marked = frozenset({(int(means.argmax()), 1)}) if len(rows) == times.num_ranks else frozenset({(0, 1)})
    note = f"Means over {len(work):,} steps that were timed by parts."
    if len(rows) < times.num_ranks:
        note += f" The {MAX_BARS} of {times.num_ranks} ranks that work longest."
    return [Table("A step on each rank", columns, rows, marked=marked, note=note)]
