"""Two training runs compared by metrics.jsonl: the time of a step after warm-up, and which part of it changed.

Where each step did the same work in both runs (same rows, tokens, supervised tokens), step s of A is paired with step
s of B, so that what long and short songs cost does not count as noise. Otherwise times a token are compared. A
part's change is told against the whole step: data that takes 2 ms instead of 1 in a step of 2 s does not matter.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.compare.intervals import Floats, Interval, block, locate, shift
from bench.compare.verdict import (
    CONFIDENCE,
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
from harness.json_lines import JsonObject, read_json_lines
from preprocess.errors import ConfigError, DataError

METRICS_FILE = "metrics.jsonl"
MIN_STEPS = 8
"""Steps after warm-up that a verdict needs; below it nothing is said."""
FEW_STEPS = 30
"""Below it, an interval of steps that depend on each other is too narrow."""
WORK = ("rows", "examples", "tokens", "supervised_tokens", "slots")
APART = ("eval", "save")
"""What happens between steps; it is no part of a step's time."""


@dataclass(frozen=True, slots=True)
class RunSteps:
    """What a run folder tells.

    Attributes:
        origin: The folder.
        steps: "train" lines after warm-up, by step.
        ranks: "ranks" lines after warm-up: seconds of each part on each rank.
        config: Settings by dotted name; {} where there is no config.yaml.
        versions: Of software and hardware, and the hosts; {} where there is no versions.json.
    """

    origin: str
    steps: list[JsonObject]
    ranks: list[JsonObject]
    config: Mapping[str, object]
    versions: Mapping[str, object]


def read_run_steps(folder: Path) -> RunSteps:
    """Read a run folder.

    Raises:
        DataError: It has no metrics.jsonl, or a damaged one.
        ConfigError: It has fewer than `MIN_STEPS` steps after warm-up.
    """
    path = folder / METRICS_FILE
    if not path.is_file():
        raise DataError(f"{folder}: no {METRICS_FILE} there. Give the folder that a run wrote (output_dir).")
    lines = read_json_lines(path)
    train = sorted((x for x in lines if x.get("kind") == "train"), key=lambda line: int(line["step"]))
    # A run of an older version does not say which steps are warm-up: its first is.
    steps = [
        line
        for index, line in enumerate(train)
        if not line.get("is_warmup", index == 0) and line.get("step_time_s")
    ]
    if len(steps) < MIN_STEPS:
        raise ConfigError(
            f"{folder}: got {len(steps)} steps after warm-up, expected {MIN_STEPS} or more to tell a change from "
            "noise. Train longer (schedule.max_steps)."
        )
    known = {int(line["step"]) for line in steps}
    ranks = [line for line in lines if line.get("kind") == "ranks" and int(line["step"]) in known]
    hosts = next((line["hosts"] for line in reversed(lines) if line.get("hosts")), None)
    versions = read_versions(folder) | ({"hosts": hosts} if hosts else {})
    return RunSteps(str(folder), steps, ranks, read_config(folder), versions)


def read_config(folder: Path) -> dict[str, object]:
    """A run's settings by dotted name, without those that name its places."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    settings = dict(flatten(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
    return {name: value for name, value in settings.items() if name != "output_dir"}


def read_versions(folder: Path) -> dict[str, object]:
    """What versions.json of a run says, by dotted name."""
    path = folder / "versions.json"
    return dict(flatten(json.loads(path.read_text(encoding="utf-8")))) if path.is_file() else {}


def flatten(values: object, name: str = "") -> list[tuple[str, object]]:
    """Nested mappings as pairs of dotted names and values."""
    if not isinstance(values, Mapping):
        return [(name, values)]
    return [
        pair
        for key, value in values.items()
        for pair in flatten(value, f"{name}.{key}" if name else str(key))
    ]


def compare_runs(a: RunSteps, b: RunSteps, min_change: float = MIN_CHANGE) -> Comparison:
    """Compare two runs: first the step, then its parts as a family of their own."""
    title = "time of a training step and its parts"
    found = Comparison(title, a.origin, b.origin, min_change, warnings=list_warnings(a, b))
    pairs = pair_steps(a.steps, b.steps)
    if pairs:
        sides, unit, weight = pairs, "s/step", None
    else:
        sides, unit, weight = (a.steps, b.steps), "us/token", "tokens"
        found.warnings.append(
            "work differs from step to step: times a token are compared, and steps are not paired"
        )
    step = take(sides, lambda line: line["step_time_s"], weight)
    found.findings.append(
        judge_times(
            "step", unit, step, step, is_paired=bool(pairs), confidence=CONFIDENCE, min_change=min_change
        )
    )
    if not pairs:
        rates = take(sides, lambda line: line["step_time_s"], "examples", scale_by=1.0)
        found.findings.append(judge_rates(rates, min_change))
    parts = compare_parts(sides, unit, weight, step, is_paired=bool(pairs), min_change=min_change)
    found.findings += parts
    found.findings += compare_apart(a.steps, b.steps, min_change)
    found.remarks = explain(found.findings[0], parts, a, b)
    return found


Sides = tuple[list[JsonObject], list[JsonObject]]
Times = tuple[Floats, Floats]


def pair_steps(a: Sequence[JsonObject], b: Sequence[JsonObject]) -> Sides | None:
    """The steps that both have, side by side; None where one of them did other work, or too few are common."""
    others = {int(line["step"]): line for line in b}
    common = [(line, others[int(line["step"])]) for line in a if int(line["step"]) in others]
    if len(common) < max(MIN_STEPS, min(len(a), len(b)) // 2):
        return None
    if any(line.get(key) != other.get(key) for line, other in common for key in WORK):
        return None
    return [line for line, _ in common], [other for _, other in common]


def take(sides: Sides, read: Any, weight: str | None, scale_by: float = 1e6) -> Times:  # noqa: ANN401 - a callable
    """Seconds of each step of both sides, or, by `weight`, microseconds for each of what was worked on."""
    times = [
        np.array([read(line) * (scale_by / max(1, line[weight]) if weight else 1.0) for line in side])
        for side in sides
    ]
    return times[0], times[1]


def judge_times(
    name: str, unit: str, times: Times, step: Times, *, is_paired: bool, confidence: float, min_change: float
) -> Finding:
    """The step's time as a ratio; a part's as a difference against A's median step."""
    a, b = times
    if times is step:
        interval = to_ratio(find_interval(np.log(a), np.log(b), confidence, is_paired=is_paired))
    else:
        interval = find_interval(a, b, confidence, is_paired=is_paired)
        interval = scale(interval, 1 / float(np.median(step[0])))
    medians = (float(np.median(a)), float(np.median(b)))
    return find_quantity(name, unit, medians, interval, confidence, -1, min_change)


def judge_rates(seconds_an_example: Times, min_change: float) -> Finding:
    """Examples a second, where the runs do other work in a step."""
    a, b = seconds_an_example
    interval = to_ratio(find_interval(-np.log(a), -np.log(b), CONFIDENCE, is_paired=False))
    medians = (1 / float(np.median(a)), 1 / float(np.median(b)))
    return find_quantity("examples_per_s", "examples/s", medians, interval, CONFIDENCE, 1, min_change)


def find_interval(a: Floats, b: Floats, confidence: float, *, is_paired: bool) -> Interval:
    """Of how much higher B lies, from medians over blocks of neighbouring steps."""
    if is_paired:
        return locate(block(b - a), confidence)
    return shift(block(a), block(b), confidence)


def compare_parts(
    sides: Sides, unit: str, weight: str | None, step: Times, *, is_paired: bool, min_change: float
) -> list[Finding]:
    """The parts of the steps that both runs timed by parts."""
    if is_paired:
        both = [(x, y) for x, y in zip(*sides, strict=True) if x.get("parts_s") and y.get("parts_s")]
        sides = [x for x, _ in both], [y for _, y in both]
    else:
        sides = [x for x in sides[0] if x.get("parts_s")], [y for y in sides[1] if y.get("parts_s")]
    if min(len(side) for side in sides) < MIN_STEPS:
        return []
    seen = [set[str]().union(*(line["parts_s"] for line in side)) for side in sides]
    names = [name for name in dict.fromkeys(sides[0][0]["parts_s"]) if name in seen[1] and name not in APART]
    found = []
    for name in names:
        times = take(sides, lambda line, name=name: line["parts_s"].get(name) or 0.0, weight)
        confidence = family_confidence(len(names))
        found.append(
            judge_times(
                f"part: {name}",
                unit,
                times,
                step,
                is_paired=is_paired,
                confidence=confidence,
                min_change=min_change,
            )
        )
    return found


def compare_apart(a: Sequence[JsonObject], b: Sequence[JsonObject], min_change: float) -> list[Finding]:
    """Seconds of an evaluation and of a save, where both runs have some."""
    found = []
    for name in APART:
        x, y = (
            [math.log(line["parts_s"][name]) for line in side if (line.get("parts_s") or {}).get(name)]
            for side in (a, b)
        )
        if x and y:
            confidence = family_confidence(len(APART))
            medians = (math.exp(statistics.median(x)), math.exp(statistics.median(y)))
            interval = to_ratio(shift(x, y, confidence))
            found.append(find_quantity(f"apart: {name}", "s", medians, interval, confidence, -1, min_change))
    return found


def explain(step: Finding, parts: Sequence[Finding], a: RunSteps, b: RunSteps) -> list[str]:
    """Which parts a step's change lies in, the largest first, and the rank where that part grew most."""
    if step.verdict not in ("better", "worse"):
        return []
    moved = sorted((p for p in parts if p.verdict == step.verdict), key=lambda part: -abs(part.change))
    if not moved:
        return [
            "No single part changed by as much: the change is spread over the step, or parts were not timed."
        ]
    total = step.b - step.a
    sentences = []
    for part in moved:
        name = part.name.removeprefix("part: ")
        share = (part.b - part.a) / total if total else math.nan
        sentences.append(
            f"{name}: {part.change:+.1%} of a step, {share:.0%} of the step's change{name_rank(name, a, b)}"
        )
    return sentences


def name_rank(part: str, a: RunSteps, b: RunSteps) -> str:
    """Where ranks were timed in both runs: on which of several a part grew by most, if it stands out."""
    medians = [part_by_rank(run.ranks, part) for run in (a, b)]
    if len(medians[0]) != len(medians[1]) or len(medians[0]) < 2:
        return ""
    grown = [after - before for before, after in zip(*medians, strict=True)]
    rank = int(np.argmax(np.abs(grown)))
    others = [abs(value) for index, value in enumerate(grown) if index != rank]
    return f", most on rank {rank} ({grown[rank]:+.3g} s)" if abs(grown[rank]) > 2 * max(others) else ""


def part_by_rank(lines: Sequence[JsonObject], part: str) -> list[float]:
    """Median seconds of a part on each rank; [] where it was not timed by ranks."""
    rows = [line["parts_s"][part] for line in lines if part in (line.get("parts_s") or {})]
    return [statistics.median(column) for column in zip(*rows, strict=True)] if rows else []


def list_warnings(a: RunSteps, b: RunSteps) -> list[str]:
    """What differs besides times: versions, settings; and how few steps there are."""
    warnings = shorten(list_differences("versions", dict(a.versions), dict(b.versions)))
    warnings += shorten(list_differences("settings", dict(a.config), dict(b.config)))
    for side, run in (("A", a), ("B", b)):
        if len(run.steps) < FEW_STEPS:
            warnings.append(
                f"{side} has {len(run.steps)} steps after warm-up: with fewer than {FEW_STEPS} the interval may be "
                "too narrow"
            )
    return warnings
