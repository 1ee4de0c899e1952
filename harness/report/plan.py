"""A plan in the report: predicted memory by phase and part, predicted speed by ZeRO stage, the wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.json_lines import JsonObject, replace_text
from harness.numbers import format_float
from harness.report.bars import draw_bars, lay_bars
from harness.report.plots import Axes, Chart, LegendEntry, color, draw, series_role
from harness.report.records import RunRecords
from harness.report.tables import NOTHING, Table, format_seconds
from preprocess.errors import DataError

GIB = 2**30

GROUPS: Mapping[str, Sequence[str]] = {
    "frozen weights": ("frozen_weights",),
    "adapters and their state": ("lora_weights", "gradients", "master_weights", "optimizer_states"),
    "activations": ("activations",),
    "layer at work": ("layer_work",),
    "logits": ("logits",),
    "communication": ("communication",),
    "context and slack": ("context", "fragmentation"),
}
"""Parts that share a colour: a chart of eleven could not be read."""


def write_plan_page(path: Path, plan: JsonObject) -> None:
    """Write a plan's page: one self-contained HTML file."""
    from harness.report import render_report

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, render_report(RunRecords(name=str(plan["model"]), kind="Plan", plan=plan)))


def check_plan(path: Path, plan: JsonObject) -> JsonObject:
    """A plan that this version draws.

    Raises:
        DataError: It is of another version, or no plan.
    """
    if plan.get("format_version") != 1 or not {"memory", "by_stage", "wishes"} <= set(plan):
        raise DataError(f"{path} is no plan of this version. Write it again: python -m harness plan … --json")
    return plan


def chart_plan(plan: JsonObject) -> list[Chart]:
    """Draw memory by phase, and tokens a second by ZeRO stage where a speed is predicted."""
    if not plan:
        return []
    charts = [_chart_memory(plan)]
    speeds = {stage: found["tokens_per_s"] for stage, found in plan["by_stage"].items() if found is not None}
    if any(speed is not None for speed in speeds.values()):
        names = [f"ZeRO-{stage}" for stage in speeds]
        note = f"Link between hosts: {plan['setting']['link_gbps']:g} Gb/s. Predicted, not measured."
        bars = {"tokens/s": [float(speed or 0) for speed in speeds.values()]}
        charts.append(
            draw_bars("plan-speed", "Predicted tokens a second, best of each stage", names, bars, note)
        )
    return charts


def _chart_memory(plan: JsonObject) -> Chart:
    phases, limit = plan["memory"]["phases"], plan["limit_bytes"] / GIB
    heights = {
        group: np.array([sum(parts.get(part, 0) for part in members) / GIB for parts in phases.values()])
        for group, members in GROUPS.items()
    }
    shown = {group: values for group, values in heights.items() if values.any()}

    def paint(axes: Axes) -> None:
        left = np.zeros(len(phases))
        for index, values in enumerate(shown.values()):
            axes.barh(np.arange(len(phases)), values, 0.7, left=left, color=color(series_role(index)))
            left += values
        axes.axvline(limit, color=color("ink"), linewidth=1.4, linestyle="--")
        axes.set_yticks(range(len(phases)), [phase.replace("_", " ") for phase in phases])
        axes.invert_yaxis()
        lay_bars(axes)

    title = "Predicted memory of a rank by phase, GiB"
    legend = [LegendEntry(group, series_role(index), "box") for index, group in enumerate(shown)]
    legend.append(LegendEntry("target", "ink", "dash"))
    height = 0.7 + 0.35 * len(phases)
    return Chart(title, draw("plan-memory", title, paint, height), legend, f"Target: {limit:.1f} GiB.")


def tabulate_plan(plan: JsonObject) -> list[Table]:
    """Tabulate the setting, the stages, what would free most, and the wishes with their arithmetic."""
    if not plan:
        return []
    relief = [[item["change"], f"{item['freed_bytes'] / GIB:.2f}"] for item in plan["relief"]]
    tables = [_tabulate_basis(plan), _tabulate_stages(plan)]
    if relief:
        tables.append(Table("GiB that one change would free", [], relief))
    return tables + [tabulate_wish(answer) for answer in plan["wishes"]]


def _tabulate_basis(plan: JsonObject) -> Table:
    setting, memory = plan["setting"], plan["memory"]
    rows = [
        ["card", f"{setting['card'] or NOTHING}, {setting['memory_bytes'] / 2**20:,.0f} MiB"],
        ["ranks", f"{setting['nodes']} hosts x {setting['gpus_per_node']}"],
        ["rows", setting["workload"]["source"]],
        ["share of peak", f"{setting['efficiency']['bf16']:.0%} in bf16 ({setting['efficiency']['source']})"],
        ["peak", f"{memory['peak_bytes'] / GIB:.1f} GiB in phase {memory['peak_phase']}"],
    ]
    return Table("Planned for", [], rows)


def _tabulate_stages(plan: JsonObject) -> Table:
    columns = ["ZeRO", "rows", "recomputed", "GiB", "GB sent", "step", "examples/s"]
    rows = []
    for stage, found in plan["by_stage"].items():
        if found is None:
            rows.append([stage, "does not fit", *[NOTHING] * 5])
            continue
        seconds = None if found["compute_s"] is None else found["compute_s"] + found["communication_s"]
        rows.append(
            [
                stage,
                str(found["micro_batch_size"]),
                str(found["recompute_layers"]),
                f"{found['peak_bytes'] / GIB:.1f}",
                f"{sum(found['traffic'].values()) / 1e9:.2f}",
                NOTHING if seconds is None else format_seconds(seconds),
                NOTHING if found["examples_per_s"] is None else format_float(found["examples_per_s"]),
            ]
        )
    return Table("Best of each ZeRO stage", columns, rows)


def tabulate_wish(answer: JsonObject) -> Table:
    """The wish as planned and each way to it, the arithmetic below."""

    def row(change: str, value: float | None, reaches: bool | None) -> list[str]:
        verdict = NOTHING if reaches is None else "yes" if reaches else "no"
        return [change, NOTHING if value is None else format_float(value), verdict]

    rows = [row("as planned", answer["predicted"], answer["reachable"])]
    rows += [row(way["change"], way["value"], way["reaches"]) for way in answer["ways"]]
    factor = answer["factor"]
    lines = [*answer["arithmetic"]] + ([f"factor {factor:,.1f}"] if factor is not None else [])
    return Table(answer["wish"], ["", answer["unit"], "reaches it"], rows, note="; ".join(lines) + ".")
