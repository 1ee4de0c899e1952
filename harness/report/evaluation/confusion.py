"""Heat maps of what was answered where something else was true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from matplotlib.patches import Rectangle

from harness.report.evaluation.charts import capitalize, shorten
from harness.report.evaluation.records import Scores
from harness.report.evaluation.systems import name_system, place_of
from harness.report.plots import Axes, Chart, color, draw

MAX_NAMES = 14
"""Names of a side; the others are put together."""

OTHERS = "others"
STRONGEST = 0.7
"""Opacity of a cell that holds all songs of its row, so that its number can still be read."""

Confusion = Mapping[str, Mapping[str, int]]
"""True name to predicted name to songs."""


def chart_confusion(scores: Scores) -> list[Chart]:
    """Chart true against predicted names, by task and model."""
    charts: list[Chart] = []
    for task, by_system in scores.confusion.items():
        for system in sorted(by_system, key=place_of):
            table, num_others = limit_names(by_system[system])
            title = f"{capitalize(task)}: true (down) and answered (across), {name_system(system)}"
            name = f"confusion-{len(charts)}"
            note = "Songs; a cell's colour is its share of the row. On the diagonal the answer is right." + (
                f" {num_others:,} rarer names are put together." if num_others else ""
            )
            svg = draw(name, title, _paint(table), 1.5 + 0.26 * len(list_names(table)))
            charts.append(Chart(title, svg, note=note))
    return charts


def list_names(table: Confusion) -> list[str]:
    """All names of a table, in order; those put together last."""
    names = {*table, *(name for row in table.values() for name in row)}
    return sorted(names, key=lambda name: (name == OTHERS, name))


def limit_names(table: Confusion) -> tuple[dict[str, dict[str, int]], int]:
    """A table of `MAX_NAMES` names at most, the most frequent ones, and how many were put together."""
    counts: Counter[str] = Counter()
    for truth, row in table.items():
        counts[truth] += sum(row.values())
        counts.update(row)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    if len(ranked) <= MAX_NAMES:
        return {truth: dict(row) for truth, row in table.items()}, 0
    kept = set(ranked[: MAX_NAMES - 1])
    limited: dict[str, Counter[str]] = {}
    for truth, row in table.items():
        into = limited.setdefault(truth if truth in kept else OTHERS, Counter())
        for name, num_songs in row.items():
            into[name if name in kept else OTHERS] += num_songs
    return {truth: dict(row) for truth, row in limited.items()}, len(ranked) - len(kept)


def _paint(table: Confusion) -> Callable[[Axes], None]:
    names = list_names(table)

    def paint(axes: Axes) -> None:
        for y, truth in enumerate(names):
            row = table.get(truth, {})
            total = sum(row.values()) or 1
            for x, predicted in enumerate(names):
                num_songs = row.get(predicted, 0)
                if num_songs:
                    role = "s1" if truth == predicted and truth != OTHERS else "s2"
                    _paint_cell(axes, x, y, num_songs, STRONGEST * num_songs / total, color(role))
        labels = [shorten(name, 18) for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=90)
        axes.set_yticks(range(len(names)), labels)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines["bottom"].set_visible(False)
        for line in range(len(names) + 1):
            axes.axhline(line - 0.5, color=color("grid"), linewidth=0.5)

    return paint


def _paint_cell(axes: Axes, x: int, y: int, num_songs: int, alpha: float, role: str) -> None:
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=role, alpha=alpha, linewidth=0))
    axes.text(x, y, f"{num_songs:,}", ha="center", va="center", fontsize=8.5, color=color("ink"))
