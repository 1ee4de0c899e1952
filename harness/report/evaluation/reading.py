"""Reading what version 2 of evaluation.json adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.json_lines import JsonObject
from harness.report.evaluation.records import (
    Lead,
    LeakageFindings,
    Mark,
    Measurement,
    Reliability,
    ReliabilityBin,
    Scores,
    TruthRates,
    VerbatimOverlap,
)


def take_scores(content: JsonObject, tasks: Mapping[str, JsonObject]) -> Scores:
    """Read what version 2 adds, and take it out of `content`; a file of version 1 gives empty scores.

    Args:
        content: The file's object without its tasks.
        tasks: Its tasks.

    Raises:
        KeyError: A field is missing.
        TypeError: A value is of the wrong kind.
        AttributeError: A value is of the wrong kind.
        ValueError: A value is no number.
    """
    leakage = content.pop("leakage", None)
    return Scores(
        measurements=[_read_measurement(t, line) for t, f in tasks.items() for line in f.get("metrics", ())],
        slices=[_read_measurement(t, line) for t, f in tasks.items() for line in f.get("slices", ())],
        leads=[_read_lead(t, line) for t, f in tasks.items() for line in f.get("differences", ())],
        reliability=[
            _read_reliability(t, system, found)
            for t, f in tasks.items()
            for system, found in (f.get("calibration") or {}).items()
        ],
        confusion={t: found for t, f in tasks.items() if (found := _read_confusion(f.get("confusion")))},
        truth=[
            rates
            for system, found in (content.pop("truth", None) or {}).items()
            for rates in _read_truth(system, found)
        ],
        overlap=[
            _read_overlap(system, found)
            for system, found in (content.pop("overlap", None) or {}).items()
            if found is not None
        ],
        marks=[_read_mark(line) for line in content.pop("marks", None) or ()],
        leakage=None if leakage is None else _read_leakage(leakage),
    )


def _read_measurement(task: str, line: JsonObject) -> Measurement:
    return Measurement(
        task=task,
        metric=str(line["metric"]),
        method=str(line["method"]),
        system=str(line["system"]),
        value=_number(line["value"]),
        low=_number(line.get("low")),
        high=_number(line.get("high")),
        n=int(line["n"]),
        by=str(line.get("by", "")),
        slice=str(line.get("slice", "")),
    )


def _read_lead(task: str, line: JsonObject) -> Lead:
    return Lead(
        task=task,
        metric=str(line["metric"]),
        method=str(line["method"]),
        against=str(line["against"]),
        value=float(line["value"]),
        low=float(line["low"]),
        high=float(line["high"]),
        n=int(line["n"]),
    )


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"got {value!r}, expected a number")
    return float(value)


def _read_reliability(task: str, system: str, found: JsonObject) -> Reliability:
    bins = tuple(
        ReliabilityBin(float(line["confidence"]), float(line["accuracy"]), int(line["n"]))
        for line in found["bins"]
        if line["n"]
    )
    return Reliability(task, system, float(found["ece"]), float(found["brier"]), bins)


def _read_confusion(
    found: Mapping[str, Mapping[str, Mapping[str, int]]] | None,
) -> dict[str, dict[str, dict[str, int]]]:
    return {
        system: {truth: {name: int(n) for name, n in row.items()} for truth, row in table.items()}
        for system, table in (found or {}).items()
        if table
    }


def _read_truth(system: str, found: JsonObject) -> Iterable[TruthRates]:
    yield _read_rates(system, "", found)
    for task, rates in (found.get("by_task") or {}).items():
        yield _read_rates(system, task, rates)


def _read_rates(system: str, task: str, found: JsonObject) -> TruthRates:
    return TruthRates(
        system=system,
        task=task,
        supported=int(found["supported"]),
        contradicted=int(found["contradicted"]),
        not_checkable=int(found["not_checkable"]),
        hallucination_rate=_number(found.get("hallucination_rate")),
        low=_number(found.get("low")),
        high=_number(found.get("high")),
    )


def _read_overlap(system: str, found: JsonObject) -> VerbatimOverlap:
    song_id = found.get("song_id")
    return VerbatimOverlap(
        system,
        int(found["longest_words"]),
        str(found["text"]),
        None if song_id is None else str(song_id),
        float(found["median_words"]),
    )


def _read_mark(line: JsonObject) -> Mark:
    reached = line["reached"]
    return Mark(
        str(line["mark"]),
        float(line["wanted"]),
        _number(line["value"]),
        None if reached is None else bool(reached),
    )


def _read_leakage(found: JsonObject) -> LeakageFindings:
    findings: Sequence[JsonObject] = found["findings"]
    return LeakageFindings(
        int(found["num_checked"]), int(found["num_excluded"]), tuple(dict(one) for one in findings)
    )
