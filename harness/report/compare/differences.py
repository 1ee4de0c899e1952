"""What differs between runs: settings, hashes, versions; what makes their curves incomparable; what got slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import yaml

from harness.report.charts import spell
from harness.report.compare.figures import rate_steps
from harness.report.findings import Finding
from harness.report.ranks import read_rank_times
from harness.report.ratios import compare_rates
from harness.report.records import RunRecords
from harness.report.slowdowns import LEAST_STEPS, find_slowdowns
from harness.report.tables import NOTHING, Table, format_percent, format_value

Runs = Sequence[tuple[str, RunRecords]]

NOT_COMPARED = frozenset({"output_dir", "resume"})
SLOWER = 1.1
"""A run is told to be slower when even the lower end of the interval is so many times the baseline's time."""


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings by their dotted keys, as --set names them."""
    found: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def read_settings(run: RunRecords) -> dict[str, object]:
    """A run's settings by dotted key, with the number of its ranks; {} where its configuration cannot be read."""
    try:
        values = yaml.safe_load(run.config) if run.config else {}
    except yaml.YAMLError:
        values = {}
    settings = flatten(values) if isinstance(values, dict) else {}
    size = count_ranks(run)
    return settings | ({"ranks": size} if size is not None else {})


def count_ranks(run: RunRecords) -> int | None:
    """Ranks that took part, or None where the run does not tell."""
    if run.summary and run.summary.get("world_size"):
        return int(run.summary["world_size"])
    if run.ranks:
        return len(run.ranks[-1]["step_time_s"])
    return len({record.rank for record in run.memory}) or None


def find_differences(tables: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """The keys whose values are not all the same, with the value of each table; None where a table lacks it."""
    keys = dict.fromkeys(key for table in tables for key in table)
    found = {key: [table.get(key) for table in tables] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def tabulate_differences(runs: Runs) -> list[Table]:
    """Tabulate settings, hashes and versions that differ."""
    labels = [label for label, _ in runs]
    settings = find_differences([read_settings(run) for _, run in runs])
    hashes = find_differences(
        [{k: v[:16] for k, v in run.identity.items() if isinstance(v, str)} for _, run in runs]
    )
    versions = find_differences([run.versions for _, run in runs])
    named = (
        ("Settings", {k: v for k, v in settings.items() if k not in NOT_COMPARED}),
        ("Hashes", {k: v for k, v in hashes.items() if not k.startswith("checkpoint-")}),
        ("Versions", versions),
    )
    tables = [
        Table(
            title,
            ["", *labels],
            [[key, *(_spell(value) for value in values)] for key, values in found.items()],
        )
        for title, found in named
    ]
    shown = [table for table in tables if table.rows]
    return shown or [Table("", [], [["settings, hashes and versions", "all the same"]])]


def _spell(value: object) -> str:
    return NOTHING if value is None else format_value(value)


def list_differences(runs: Runs) -> list[Finding]:
    """What must not be overlooked when these runs are compared."""
    return [*_find_incomparable(runs), *_find_slower(runs), *_find_own(runs)]


BASIS = {
    "data": (
        "data.path",
        "Their losses are means over different examples: a lower one does not mean a better model.",
    ),
    "tokenizer": ("", "A loss is per token, and their tokens differ: compare accuracies instead."),
    "prompt": ("", "Their models are asked in different words: compare accuracies instead."),
    "base model (256 sampled weights)": (
        "model.path",
        "They start from different models: their losses start apart.",
    ),
}
"""Hash to the setting that stands for it where a run has none, and what a difference means."""


def _find_incomparable(runs: Runs) -> list[Finding]:
    """Differences that make curves or rates say something else than they seem to."""
    settings = [read_settings(run) for _, run in runs]
    found = []
    for name, (key, meaning) in BASIS.items():
        values = [run.identity.get(name) for _, run in runs]
        if any(value is None for value in values):
            values = [one.get(key) for one in settings]
        if odd := _unlike_first(runs, values):
            what = name.split(" (")[0]
            found.append(Finding(f"The {what} of {odd} is not {runs[0][0]}'s. {meaning}"))
    sizes = [count_ranks(run) for _, run in runs]
    if odd := _unlike_first(runs, sizes):
        counts = ", ".join(f"{label} {size}" for (label, _), size in zip(runs, sizes, strict=True))
        found.append(
            Finding(f"The number of ranks differs ({counts}): rates and wall time are of different hardware.")
        )
    works = [
        [one.get(f"batch.{key}") for key in ("global_batch_size", "examples_per_step", "tokens_per_step")]
        for one in settings
    ]
    if _unlike_first(runs, works) and all(settings):
        found.append(
            Finding("A step takes different amounts of work: compare losses against tokens, not steps.")
        )
    return found


def _unlike_first(runs: Runs, values: Sequence[object]) -> str:
    """The labels of the runs whose value is known and is not the first run's."""
    if values[0] is None:
        return ""
    odd = [
        label
        for (label, _), value in zip(runs, values, strict=True)
        if value is not None and value != values[0]
    ]
    return ", ".join(odd)


def _find_slower(runs: Runs) -> list[Finding]:
    """Runs that take clearly longer than the baseline for the same tokens, and the part that is to blame."""
    (base_label, base), found = runs[0], []
    for label, run in runs[1:]:
        # Seconds a token: of steps that differ in size the times would say nothing.
        tokens, seconds = rate_steps(run, "tokens")
        base_tokens, base_seconds = rate_steps(base, "tokens")
        if not (tokens.any() and base_tokens.any()):
            continue
        ratio = compare_rates((seconds, tokens), (base_seconds, base_tokens))
        if ratio is None or ratio.low is None or ratio.low <= SLOWER:
            continue
        interval = f"({ratio.low:.2f} to {ratio.high:.2f})"
        text = f"{label} takes {ratio.value:.2f} times as long as {base_label} for a token {interval}."
        found.append(
            Finding(text + _blame(run, base), "The tables and the charts by part show where it went.")
        )
    return found


def _blame(run: RunRecords, base: RunRecords) -> str:
    """Which part of a step most of the difference is in, as a sentence; "" where the parts are not known."""
    now, before = _parts_per_token(run), _parts_per_token(base)
    shared = [part for part in now if part in before]
    if not shared:
        return ""
    # What a rank waits for is another rank's work.
    more = {part: now[part] - before[part] for part in shared if part != "wait"}
    total = sum(now.values()) - sum(before.values()) - now.get("wait", 0.0) + before.get("wait", 0.0)
    part = max(more, key=lambda name: more[name])
    if total <= 0 or more[part] <= 0:
        return ""
    times = (
        f", which takes {now[part] / before[part]:.1f} times as long"
        if before[part] > 1e-3 * sum(before.values())
        else ""
    )
    return f" {format_percent(min(1.0, more[part] / total))} of the difference is in {spell(part)}{times}."


def _parts_per_token(run: RunRecords) -> dict[str, float]:
    """Seconds by part for a token, of the rank that takes longest in it."""
    times = read_rank_times(run)
    if times is None or len(times.steps) < LEAST_STEPS:
        return {}
    tokens = {line["step"]: line.get("tokens") or 0 for line in run.train}
    total = sum(tokens.get(int(step), 0) for step in times.steps)
    if not total:
        return {}
    return {part: float(np.max(seconds.sum(axis=0))) / total for part, seconds in times.parts_s.items()}


def _find_own(runs: Runs) -> list[Finding]:
    """Each run's own slow-downs."""
    return [
        replace(one, text=f"{label}: {one.text}")
        for label, run in runs
        for one in find_slowdowns(read_rank_times(run))
    ]
