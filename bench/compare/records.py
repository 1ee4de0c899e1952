"""Two records of one program compared, or two ways of one record, turn by turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from bench.compare.intervals import Interval, locate, shift, shift_of_summaries
from bench.compare.verdict import (
    MIN_CHANGE,
    Comparison,
    Finding,
    family_confidence,
    find_quantity,
    list_differences,
    scale,
    shorten,
    to_ratio,
)
from bench.record import Figure
from bench.recorded import Record
from preprocess.errors import ConfigError

Direction = Literal[-1, 0, 1]

MORE_IS_BETTER = ("x", "of the best", "of the ceiling", "of the peak")
LESS_IS_BETTER = ("s", "ms", "us", "bytes", "MB", "MiB", "GiB", "points", "relative error")
LESS_BY_NAME = ("slower", "error", "share_of_step", "predicted - counted")


def find_direction(name: str, unit: str) -> Direction:
    """1 where more of a figure is better, -1 where less is, 0 where its name and unit do not tell."""
    if unit.endswith("/s") or unit in MORE_IS_BETTER:
        return 1
    if unit.split("/")[0] in LESS_IS_BETTER or any(word in name for word in LESS_BY_NAME):
        return -1
    return 0


def compare_records(a: Record, b: Record, min_change: float = MIN_CHANGE) -> Comparison:
    """Compare the figures and ratios that both records have.

    Ratios to a baseline that ran turn by turn, in the same process, stand apart from figures: a machine that
    is slower today moves figures and leaves ratios. Each of both is a family of its own.

    Raises:
        ConfigError: They are of different programs, or have nothing in common.
    """
    if a.name != b.name:
        raise ConfigError(
            f"{a.origin} is of program {a.name!r}, {b.origin} of {b.name!r}: their figures answer different "
            "questions. Give two records of one program."
        )
    found = Comparison(
        f"{a.name}: {a.question}", a.origin, b.origin, min_change, warnings=list_warnings(a, b)
    )
    found.findings = compare_figures(a.figures, b.figures, min_change)
    if a.baseline == b.baseline:
        ratios = [
            {f"{way} / {record.baseline}": ratio for way, ratio in record.ratios.items()} for record in (a, b)
        ]
        found.findings += compare_figures(ratios[0], ratios[1], min_change)
    else:
        found.warnings.append(f"ratios are left out: the baseline is {a.baseline} in A, {b.baseline} in B")
    if not found.findings:
        raise ConfigError(
            f"{a.origin} and {b.origin} have no figure in common. "
            f"A has {', '.join(a.figures) or 'none'}; B has {', '.join(b.figures) or 'none'}."
        )
    found.remarks = describe_baseline(a, found)
    return found


def compare_figures(
    a: Mapping[str, Figure], b: Mapping[str, Figure], min_change: float, *, paired: bool = False
) -> list[Finding]:
    """One family: the figures that both have, in A's order."""
    common = [name for name in a if name in b and a[name].unit == b[name].unit]
    confidence = family_confidence(sum(min(a[name].n, b[name].n) > 1 for name in common))
    return [compare_figure(name, a[name], b[name], confidence, min_change, paired=paired) for name in common]


def compare_figure(
    name: str, a: Figure, b: Figure, confidence: float, min_change: float, *, paired: bool = False
) -> Finding:
    """One figure: the ratio of B to A, or, for percentages and what is not always positive, the difference."""
    is_ratio = a.unit != "%" and min(a.p20, b.p20, *a.values, *b.values) > 0
    interval = find_interval(a, b, confidence, log=is_ratio, paired=paired)
    if is_ratio:
        interval = to_ratio(interval)
    else:
        interval = scale(interval, 1 / (100 if a.unit == "%" else max(abs(a.median), 1e-300)))
    direction = find_direction(name, a.unit)
    return find_quantity(name, a.unit, (a.median, b.median), interval, confidence, direction, min_change)


def find_interval(a: Figure, b: Figure, confidence: float, *, log: bool, paired: bool) -> Interval:
    """From the values where both records keep them, or else from the percentiles."""
    if not (a.values and b.values):
        return shift_of_summaries(a, b, confidence, log=log)
    x, y = ([math.log(value) if log else value for value in figure.values] for figure in (a, b))
    if paired:
        return locate([after - before for before, after in zip(x, y, strict=True)], confidence)
    return shift(x, y, confidence)


def compare_ways(record: Record, way_a: str, way_b: str, min_change: float = MIN_CHANGE) -> Comparison:
    """Compare two ways of one record, turn by turn: figures that are named after them.

    Raises:
        ConfigError: A way has no figure, or they have none in common.
    """
    a, b = (
        {rest: record.figures[name] for name, rest in figures_of(record, way).items()}
        for way in (way_a, way_b)
    )
    for way, figures in ((way_a, a), (way_b, b)):
        if not figures:
            raise ConfigError(
                f"{record.origin}: no figure begins with {way!r}; there are {', '.join(record.figures)}."
            )
    is_paired = all(a[name].n == len(a[name].values) == b[name].n for name in a if name in b)
    title = f"{record.name}: {way_b} against {way_a}"
    found = Comparison(title, f"{record.origin}:{way_a}", f"{record.origin}:{way_b}", min_change)
    found.findings = compare_figures(a, b, min_change, paired=is_paired)
    if not found.findings:
        raise ConfigError(f"{record.origin}: {way_a!r} and {way_b!r} have no figure of one name in common.")
    return found


def figures_of(record: Record, way: str) -> dict[str, str]:
    """Names of the figures of a way, and what is left of them without it."""
    return {
        name: name[len(way) :].lstrip("_: ")
        for name in record.figures
        if name.startswith((f"{way}_", f"{way}:"))
    }


def list_warnings(a: Record, b: Record) -> list[str]:
    """What differs between two records besides their figures: machine, versions, settings, work, load."""
    warnings = list_differences("machines", dict(a.machine), dict(b.machine))
    warnings += list_differences("versions", dict(a.versions), dict(b.versions))
    if a.command != b.command:
        warnings.append(f"settings differ: A is {a.command!r}, B is {b.command!r}")
    warnings += shorten(
        [
            f"work or settings differ: {name} is {a.facts[name]} in A, {b.facts[name]} in B"
            for name in a.facts
            if name in b.facts and a.facts[name] != b.facts[name] and is_setting(a.facts[name])
        ]
    )
    for side, record in (("A", a), ("B", b)):
        cores = record.machine.get("usable_threads") or record.machine.get("threads") or math.inf
        load = max(record.load_average[:1] + record.load_average_at_end[:1], default=0.0)
        if load > cores * 1.5:
            warnings.append(f"{side} ran beside other work: a load of {load:.1f} on {cores} threads")
        if record.commit is None or record.commit.endswith("+"):
            warnings.append(f"{side} is of files that no commit holds ({record.commit or 'no git'})")
    return warnings


def is_setting(value: object) -> bool:
    """Whether a fact is a count or a text, not a measured number: those differ from run to run."""
    return isinstance(value, int | str)


def describe_baseline(record: Record, found: Comparison) -> list[str]:
    """Say where the baseline itself moved: machine or load differ then, and ratios alone tell."""
    moved = [
        finding
        for finding in found.findings
        if finding.name in figures_of(record, record.baseline)
        and finding.verdict in ("better", "worse", "changed")
    ]
    return [
        f"The baseline's own {finding.name} changed by {finding.change:+.1%}: the machine, its load or the "
        "baseline's version differ; judge by the ratios."
        for finding in moved
    ]
