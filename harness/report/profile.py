"""The profile in the report: where the profiled steps' time went, by part, operator and collective."""

from __future__ import annotations

import numpy as np

from harness.json_lines import JsonObject
from harness.report.bars import lay_bars
from harness.report.charts import spell
from harness.report.plots import Axes, Chart, LegendEntry, color, draw
from harness.report.tables import NOTHING, Table, format_percent, format_seconds

TOP = 12
"""Operators in the table."""

KINDS = {
    "operator_s": ("computes", "s1"),
    "communication_exposed_s": ("communicates, nothing computes", "s3"),
    "gap_s": ("neither", "s2"),
}
"""What an instant of a step is spent on, its words and its colour; they add up to the steps' time."""


def chart_profile(profile: JsonObject) -> list[Chart]:
    """Chart computing, communication and gaps by part, of the rank whose gaps are the longest."""
    if not profile.get("ranks"):
        return []
    rank = choose_rank(profile)
    parts = [one for one in rank["parts"] if one["time_s"] > 0]
    if not parts:
        return []
    num_steps = max(1, len(rank["steps"]))
    scale, unit = (1e3, "ms") if rank["step_time_s"] / num_steps < 1 else (1.0, "s")

    def paint(axes: Axes) -> None:
        left = np.zeros(len(parts))
        for key, (_, role) in KINDS.items():
            widths = np.array([one[key] for one in parts]) / num_steps * scale
            axes.barh(np.arange(len(parts)), widths, 0.7, left=left, color=color(role))
            left += widths
        axes.set_yticks(range(len(parts)), [spell(one["part"]) for one in parts])
        axes.invert_yaxis()
        lay_bars(axes)
        axes.set_xlabel(f"{unit} a step")

    legend = [LegendEntry(label, role, "box") for label, role in KINDS.values()]
    title = "Profiled steps by part"
    note = (
        f"{_name(rank)}, steps {profile['asked']}. A profiler slows a step down: shares count, not seconds."
    )
    return [Chart(title, draw("profile", title, paint, 0.95 + 0.34 * len(parts)), legend, note)]


def choose_rank(profile: JsonObject) -> JsonObject:
    """The rank with the longest gaps: the one that has the most to gain."""
    rank: JsonObject = max(profile["ranks"], key=lambda one: float(one["gap_s"]))
    return rank


def tabulate_profile(profile: JsonObject) -> list[Table]:
    """Tabulate the ranks, the longest operators, the collectives, the gaps, and the two counts of FLOPs."""
    if not profile.get("ranks"):
        return []
    rank = choose_rank(profile)
    tables = [
        _tabulate_ranks(profile),
        _tabulate_operators(rank),
        _tabulate_collectives(rank),
        _tabulate_gaps(rank),
        _tabulate_flops(profile.get("flops")),
    ]
    return [table for table in tables if table.rows]


def _name(rank: JsonObject) -> str:
    return f"rank {rank['rank']} ({rank['host']})"


def _tabulate_ranks(profile: JsonObject) -> Table:
    rows = [
        [
            _name(one),
            *(format_percent(one[key] / one["step_time_s"] if one["step_time_s"] else None) for key in KINDS),
            one.get("trace") or NOTHING,
        ]
        for one in profile["ranks"]
    ]
    columns = ["", *(label for label, _ in KINDS.values()), "trace"]
    return Table("Profile by rank", columns, rows, note=" ".join(map(str, profile.get("notes", []))))


def _tabulate_operators(rank: JsonObject) -> Table:
    longest = rank["operators"][:TOP]
    rows = [
        [
            one["name"],
            one["part"],
            f"{one['calls']:,}",
            format_seconds(one["self_s"]),
            format_percent(one["share"]),
        ]
        for one in longest
    ]
    columns = ["operator", "part", "calls", "itself", "of the time"]
    return Table(f"Longest operators, {_name(rank)}", columns, rows)


def _tabulate_collectives(rank: JsonObject) -> Table:
    rows = [
        [
            one["collective"],
            f"{one['calls']:,}",
            NOTHING if one.get("bytes") is None else f"{one['bytes'] / 1e6:,.1f}",
            format_seconds(one["time_s"]),
            format_seconds(one["exposed_s"]),
        ]
        for one in rank["communication"]
    ]
    return Table("Collectives", ["", "calls", "MB", "took", "exposed"], rows)


def _tabulate_gaps(rank: JsonObject) -> Table:
    rows = [
        [f"{one['step']:,}", one["part"], format_seconds(one["time_s"]), one.get("after") or NOTHING]
        for one in rank["gaps"][:6]
    ]
    return Table("Longest gaps", ["step", "part", "took", "after"], rows)


def _tabulate_flops(flops: JsonObject | None) -> Table:
    if not flops:
        return Table("", [], [])
    rows = [
        ["ours", f"{flops['ours'] / 1e9:,.3f} GFLOP"],
        ["DeepSpeed's, all", f"{flops['deepspeed'] / 1e9:,.3f} GFLOP"],
        ["DeepSpeed's, matrix products", f"{flops['deepspeed_products'] / 1e9:,.3f} GFLOP"],
        ["ratio", f"{flops['ratio']:.3f}"],
    ]
    return Table("FLOPs of one forward pass", [], rows, note=str(flops.get("reason", "")))
