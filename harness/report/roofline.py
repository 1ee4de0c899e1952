"""The roofline in the report: the log-log chart with the run's point, the ceilings as bars, hosts simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter

from harness.json_lines import JsonObject, replace_text
from harness.numbers import format_float
from harness.report.bars import draw_bars
from harness.report.plots import Axes, Chart, LegendEntry, color, draw, format_number, series_role
from harness.report.records import RunRecords
from harness.report.tables import NOTHING, Table, format_seconds

__all__ = ["chart_roofline", "tabulate_roofline", "write_roofline_page"]


def write_roofline_page(path: Path, study: JsonObject) -> None:
    """Write a study's page: one self-contained HTML file."""
    from harness.report import render_report

    path.parent.mkdir(parents=True, exist_ok=True)
    run = RunRecords(name=str(study["name"]), kind="Roofline", roofline=study)
    replace_text(path, render_report(run))


def chart_roofline(run: RunRecords) -> list[Chart]:
    """Draw the roofline, the ceilings, and examples/s over hosts."""
    study = run.roofline
    if not study:
        return []
    return [_chart_roof(study), _chart_ceilings(study), _chart_hosts(study), *_chart_moves(study)]


def _chart_roof(study: JsonObject) -> Chart:
    roof, standing = study["roof"], study["standing"]
    intensity, ridge, peak = roof["intensity"], roof["ridge"], roof["peak_flops"]
    left, right = min(intensity, ridge) / 100, max(intensity, ridge) * 30

    def paint(axes: Axes) -> None:
        x = np.geomspace(left, right, 60)
        axes.plot(x, np.minimum(peak, x * roof["bandwidth_bytes_per_s"]), color=color("ink"), linewidth=1.8)
        axes.axvline(intensity, color=color("muted"), linewidth=1.0, linestyle="--")
        under = min(peak, intensity * roof["bandwidth_bytes_per_s"])
        axes.plot([intensity], [under], marker="o", markersize=6, color=color("s1"), linestyle="none")
        if standing is not None:
            measured = standing["flops_per_s"]
            axes.plot([intensity], [measured], marker="o", markersize=7, color=color("s2"), linestyle="none")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(visible=True, axis="both")
        axes.minorticks_off()
        axes.set_xlabel("FLOP for each byte that memory moves")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_format_power))

    legend = [
        LegendEntry(f"roof of a {study['card']}", "ink"),
        LegendEntry("the step's intensity", "muted", "dash"),
        LegendEntry("attainable", "s1", "dot"),
    ]
    if standing is not None:
        legend.append(LegendEntry("measured", "s2", "dot"))
    bound = "compute" if intensity >= ridge else "memory"
    note = f"{format_float(intensity)} FLOP a byte; the ridge is at {format_float(ridge)}: bound by {bound}."
    title = "Roofline of a rank, FLOP/s"
    return Chart(title, draw("roofline", title, paint, 3.2), legend, note)


def _format_power(value: float, position: int | None = None) -> str:
    """A tick of a logarithmic axis: 1T, 100G; `position` is matplotlib's and unused."""
    return f"{value / 1e12:g}T" if value >= 1e12 else format_number(value)


def _chart_ceilings(study: JsonObject) -> Chart:
    """Bars on a logarithmic axis: ceilings lie decades apart."""
    ceilings, standing = study["ceilings"], study["standing"]
    names = [one["name"] for one in ceilings] + (["measured"] if standing is not None else [])
    values = [one["examples_per_s"] for one in ceilings]
    values += [standing["examples_per_s"]] if standing is not None else []
    colors = ["s2" if name == "measured" else "s1" for name in names]

    def paint(axes: Axes) -> None:
        axes.barh(range(len(names)), values, 0.6, color=[color(role) for role in colors])
        axes.set_xscale("log")
        axes.set_xlim(left=min(values) / 3, right=max(values) * 3)
        axes.set_yticks(range(len(names)), names)
        for place, value in enumerate(values):
            axes.annotate(
                format_number(float(f"{value:.3g}")),
                (value, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=color("ink"),
            )
        axes.invert_yaxis()
        axes.minorticks_off()
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_formatter(FuncFormatter(format_number))

    title = "Ceilings, examples a second"
    legend = [LegendEntry("ceiling", "s1", "box")]
    legend += [LegendEntry("measured", "s2", "box")] if standing is not None else []
    note = f"Each as if nothing else took time; the lowest is {study['bottleneck']}. The axis is logarithmic."
    return Chart(title, draw("ceilings", title, paint, 0.7 + 0.4 * len(names)), legend, note)


def _chart_hosts(study: JsonObject) -> Chart:
    curves = {"a step as now": study["scaling"]["fixed"], "a step that grows": study["scaling"]["growing"]}

    def paint(axes: Axes) -> None:
        for index, points in enumerate(curves.values()):
            ranks = [point["ranks"] for point in points]
            rates = [point["examples_per_s"] for point in points]
            axes.plot(
                ranks, rates, color=color(series_role(index)), linewidth=1.8, marker="o", markersize=3.5
            )
        first = curves["a step that grows"][0]
        ranks = [point["ranks"] for point in curves["a step that grows"]]
        ideal = [first["examples_per_s"] / first["ranks"] * count for count in ranks]
        axes.plot(ranks, ideal, color=color("muted"), linewidth=1.0, linestyle="--")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ranks, [str(count) for count in ranks])
        axes.minorticks_off()
        axes.set_xlabel("ranks")
        axes.yaxis.set_major_formatter(FuncFormatter(format_number))

    title = "Examples a second over ranks, simulated"
    legend = [LegendEntry(name, series_role(index)) for index, name in enumerate(curves)]
    legend.append(LegendEntry("as many times the first", "muted", "dash"))
    link = study["link"]
    speed = f"{format_float(link['gbps'])} Gb/s, {format_float(1e6 * link['latency_s'])} us a round"
    note = f"From {study['parts']['source']}; link of {speed}."
    return Chart(title, draw("hosts", title, paint, 3.0), legend, note)


def _chart_moves(study: JsonObject) -> list[Chart]:
    charts = []
    heads = {
        "tasks": "Tasks a song",
        "row_length": "Slots of a row",
        "recompute_layers": "Recomputed layers",
    }
    for name, head in heads.items():
        moved = study["moves"][name]
        if not moved:
            continue
        groups = [f"{one['value']:,}" for one in moved]
        bars = {
            "steps as they are": [one["examples_per_s"] for one in moved],
            "even steps": [one["even_examples_per_s"] for one in moved],
        }
        charts.append(draw_bars(f"move-{name}", f"{head}: examples a second, predicted", groups, bars, ""))
    return charts


def tabulate_roofline(run: RunRecords) -> list[Table]:
    """Tabulate ceilings with their arithmetic, what is next, hosts, and the plan's claims."""
    from harness.report.plan import tabulate_wish

    study = run.roofline
    if not study:
        return []
    tables = [_tabulate_ceilings(study), _tabulate_next(study), _tabulate_hosts(study)]
    # A plan on the same page has answered them.
    return tables + ([] if run.plan else [tabulate_wish(answer) for answer in study["wishes"]])


def _tabulate_ceilings(study: JsonObject) -> Table:
    standing = study["standing"]
    rows = []
    for one in study["ceilings"]:
        share = NOTHING if standing is None else f"{standing['shares'][one['name']]:.1%}"
        rates = [format_float(one[name]) for name in ("tokens_per_s", "examples_per_s")]
        rows.append([one["name"], *rates, share, one["arithmetic"], one["source"]])
    columns = ["ceiling", "tokens/s", "examples/s", "reached", "of a step", "from"]
    return Table("Ceilings", columns, rows, note=" ".join(f"{line}." for line in study["missing"]))


def _tabulate_next(study: JsonObject) -> Table:
    return Table("", ["What bounds the speed"], [[line] for line in study["next"]])


def _tabulate_hosts(study: JsonObject) -> Table:
    rows = []
    for fixed, growing in zip(study["scaling"]["fixed"], study["scaling"]["growing"], strict=True):
        cells = [str(fixed["ranks"])]
        for one in (fixed, growing):
            cells += [format_seconds(one["compute_s"]), format_seconds(one["communication_s"])]
            cells += [format_float(one["examples_per_s"]), f"{one['efficiency']:.0%}"]
        rows.append(cells)
    heads = ["computing", "link", "examples/s", "efficiency"]
    note = "Left a step of as many rows as now, right one that grows with the ranks."
    return Table("Ranks, simulated", ["ranks", *heads, *heads], rows, note=note)
