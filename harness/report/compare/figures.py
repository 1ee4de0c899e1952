"""The comparison's figures: one row each, one column a run, beside the first run's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.json_lines import JsonObject
from harness.numbers import format_float
from harness.report.charts import take
from harness.report.headlines import Card
from harness.report.losses import last_mean
from harness.report.plots import Floats
from harness.report.ratios import Ratio, compare_rates
from harness.report.records import RunRecords
from harness.report.tables import NOTHING, Table, format_percent, format_seconds, summarize_throughput

Runs = Sequence[tuple[str, RunRecords]]

NO_DIFFERENCE = 0.02
"""A rate whose ratio is within this of 1 is called equal however narrow its interval."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of every run.

    Attributes:
        name: What it is, with its unit.
        key: Its name as a plain value.
        values: One a run; None where a run has none.
        ratios: To the first run's; None where there is none.
        better: Which of two is better, "" where neither is.
    """

    name: str
    key: str
    values: list[float | None]
    ratios: list[Ratio | None]
    better: str = ""


def measured_steps(run: RunRecords) -> list[JsonObject]:
    """The lines of the steps after warm-up."""
    if any("is_warmup" in line for line in run.train):
        return [line for line in run.train if not line.get("is_warmup")]
    return run.train[1:]


def rate_steps(run: RunRecords, key: str) -> tuple[Floats, Floats]:
    """Amounts and seconds of the measured steps, float64[n] each."""
    steps = measured_steps(run)
    amounts = np.ones(len(steps)) if key == "steps" else np.nan_to_num(take(steps, key))
    return np.asarray(amounts), np.nan_to_num(take(steps, "step_time_s"))


RATES = {
    "examples": ("samples/s", "samples_per_s"),
    "tokens": ("tokens/s", "tokens_per_s"),
    "supervised_tokens": ("supervised tokens/s", "supervised_tokens_per_s"),
    "slots": ("slots/s (with padding)", "slots_per_s"),
    "steps": ("steps/s", "steps_per_s"),
}

PLAIN = {
    "tokens_per_example": ("tokens computed an example", "lower"),
    "real_slot_share": ("slots that are real", "higher"),
    "mfu": ("MFU", "higher"),
    "hfu": ("HFU", ""),
    "mfu_of_ceiling": ("MFU of the measured ceiling", "higher"),
    "joules_per_example": ("J an example", "lower"),
}
SHARES = frozenset({"real_slot_share", "mfu", "hfu", "mfu_of_ceiling"})


def list_figures(runs: Runs) -> list[Figure]:
    """Losses, rates with intervals, and what a run's summary has."""
    found = [
        _plain("last eval loss", "eval_loss", [_last_eval(run) for _, run in runs], "lower"),
        _plain("best eval loss", "best_eval_loss", [_best_eval(run) for _, run in runs], "lower"),
        _plain(
            "train loss, last tenth",
            "train_loss",
            [last_mean(take(run.train, "loss")) for _, run in runs],
            "lower",
        ),
        *(_rate(name, key, amount, runs) for amount, (name, key) in RATES.items()),
    ]
    speeds = [summarize_throughput(run) for _, run in runs]
    found += [
        _plain(name, key, [speed.get(key) for speed in speeds], better)
        for key, (name, better) in PLAIN.items()
    ]
    totals = [math.fsum(np.nan_to_num(take(run.train, "step_time_s"))) or None for _, run in runs]
    peaks = [max((record.peak_bytes / 2**30 for record in run.memory), default=None) for _, run in runs]
    found += [
        _plain("steps", "steps", [run.train[-1]["step"] if run.train else None for _, run in runs]),
        _plain("step time, all", "step_time_total_s", totals, "lower"),
        _plain("peak memory, GiB", "peak_memory_gib", peaks, "lower"),
    ]
    return [figure for figure in found if any(value is not None for value in figure.values)]


def _plain(name: str, key: str, values: Sequence[float | None], better: str = "") -> Figure:
    first = values[0]
    ratios = [Ratio(value / first) if value is not None and first else None for value in values]
    return Figure(name, key, list(values), ratios, better)


def _rate(name: str, key: str, amount: str, runs: Runs) -> Figure:
    steps = [rate_steps(run, amount) for _, run in runs]
    values = [float(a.sum() / s.sum()) if s.sum() > 0 and a.sum() > 0 else None for a, s in steps]
    ratios = [
        compare_rates(one, steps[0]) if value is not None else None
        for one, value in zip(steps, values, strict=True)
    ]
    return Figure(name, key, values, ratios, "higher")


def _last_eval(run: RunRecords) -> float | None:
    return next((line["loss"] for line in reversed(run.evals) if line.get("loss") is not None), None)


def _best_eval(run: RunRecords) -> float | None:
    return min((line["loss"] for line in run.evals if line.get("loss") is not None), default=None)


def tabulate_figures(figures: Sequence[Figure], runs: Runs) -> list[Table]:
    """Tabulate the figures, and accuracy by task with its intervals."""
    labels = [label for label, _ in runs]
    rows, marked = [], set[tuple[int, int]]()
    for index, figure in enumerate(figures):
        rows.append([figure.name, *(_cell(figure, i) for i in range(len(runs)))])
        best = find_best(figure)
        marked |= {(index, best + 1)} if best is not None else set()
    note = (
        f"Below a figure its ratio to {labels[0]}'s; for rates with a 95 % interval (block bootstrap over the steps "
        "after warm-up). Marked: the best, where the difference is clear."
    )
    tables = [Table("Figures", ["", *labels], rows, marked=frozenset(marked), note=note)]
    tasks = list(dict.fromkeys(one.task for _, run in runs for one in run.tasks))
    if tasks:
        by_run = [{one.task: one for one in run.tasks} for _, run in runs]
        rows = []
        for task in tasks:
            cells = [found[task].after if task in found else None for found in by_run]
            rows.append(
                [
                    task,
                    *(
                        NOTHING
                        if one is None
                        else f"{one.accuracy:.1%}\n{100 * one.low:.1f} to {100 * one.high:.1f}"
                        for one in cells
                    ),
                ]
            )
        tables.append(Table("Accuracy after training", ["", *labels], rows, note="With 95 % intervals."))
    return tables


def find_best(figure: Figure) -> int | None:
    """Which run is clearly the best in a figure; None where none is, or the figure is neither good nor bad."""
    known = [(value, index) for index, value in enumerate(figure.values) if value is not None]
    if not figure.better or len(known) < 2:
        return None
    ordered = sorted(known, reverse=figure.better == "higher")
    (first, best), (second, runner_up) = ordered[0], ordered[1]
    apart = abs(first / second - 1) if second else math.inf
    if apart <= NO_DIFFERENCE:
        return None
    # The baseline has no interval of its own: the other's to it tells.
    to_judge = runner_up if best == 0 else best
    ratio = figure.ratios[to_judge]
    return best if ratio is None or ratio.low is None or ratio.is_clear else None


def _cell(figure: Figure, index: int) -> str:
    value, ratio = figure.values[index], figure.ratios[index]
    if value is None:
        return NOTHING
    text = format_figure(figure.key, value)
    return text if index == 0 or ratio is None or value == figure.values[0] else f"{text}\n{ratio}"


def format_figure(key: str, value: float) -> str:
    """Write a figure for a reader."""
    if key in SHARES:
        return format_percent(value)
    if key.endswith("_s") and not key.endswith("_per_s"):
        return format_seconds(value)
    return f"{value:,}" if isinstance(value, int) else format_float(value)


def compare_cards(figures: Sequence[Figure], labels: Sequence[str]) -> list[Card]:
    """The best run of each of the figures that matter most."""
    shown = {
        "eval_loss": "lowest eval loss",
        "samples_per_s": "most samples/s",
        "tokens_per_s": "most tokens/s",
        "peak_memory_gib": "least memory, GiB",
    }
    cards = []
    for figure in figures:
        known = [(value, index) for index, value in enumerate(figure.values) if value is not None]
        if figure.key not in shown or len(known) < 2:
            continue
        value, index = min(known) if figure.better == "lower" else max(known)
        cards.append((figure, index, value))
    return [
        Card(shown[figure.key], format_figure(figure.key, value), _describe_best(figure, index, labels))
        for figure, index, value in cards
    ]


def _describe_best(figure: Figure, index: int, labels: Sequence[str]) -> str:
    if find_best(figure) is None:
        return "no clear difference"
    if index:
        return f"{labels[index]}, {figure.ratios[index]} of {labels[0]}'s"
    others = [
        f"{label} {ratio}"
        for label, ratio in zip(labels[1:], figure.ratios[1:], strict=True)
        if ratio is not None
    ]
    return f"{labels[0]}; {', '.join(others)}"


def to_json(figures: Sequence[Figure], runs: Runs) -> JsonObject:
    """The figures as plain values."""
    return {
        "format_version": 1,
        "runs": [label for label, _ in runs],
        "baseline": runs[0][0],
        "figures": {
            figure.key: [
                {
                    "value": value,
                    "ratio": ratio and ratio.value,
                    "low": ratio and ratio.low,
                    "high": ratio and ratio.high,
                }
                for value, ratio in zip(figure.values, figure.ratios, strict=True)
            ]
            for figure in figures
        },
    }
