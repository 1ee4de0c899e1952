"""What went wrong in a run, or nearly: steps left out, ranks found slow, memory that ran out, restarts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import groupby

from harness.json_lines import JsonObject
from harness.report.charts import spell
from harness.report.evaluation.findings import find_in_scores
from harness.report.findings import Finding
from harness.report.ranks import read_rank_times
from harness.report.records import RunRecords
from harness.report.slowdowns import find_slowdowns
from harness.report.tables import NOTHING, Table, format_seconds, format_value

MAX_ROWS = 20


def list_warnings(run: RunRecords) -> list[Finding]:
    """List what a reader must not overlook: wrong numbers first, then what cost time, then what was mended."""
    wrong = [*_find_non_finite(run), *_find_divergence(run)]
    slow = find_slowdowns(read_rank_times(run))
    told = {rank for finding in slow for rank in finding.ranks}
    events = [*_find_slow_events(run, told), *_find_memory_events(run)]
    of_scores = find_in_scores(run.scores) + find_in_scores(run.unseen, ", artists that training never saw")
    return wrong + slow + events + of_scores + _find_restarts(run) + _find_end(run)


def join_steps(steps: Sequence[int], at_most: int = 10) -> str:
    """The first steps as text, and how many more there are."""
    shown = ", ".join(str(step) for step in steps[:at_most])
    return shown + (f" and {len(steps) - at_most:,} more" if len(steps) > at_most else "")


def _find_non_finite(run: RunRecords) -> list[Finding]:
    found = []
    for kind, lines in (("Training", run.train), ("Evaluation", run.evals)):
        skipped = [line for line in lines if line.get("skipped")]
        bad = [line["step"] for line in lines if line.get("non_finite") and not line.get("skipped")]
        if bad:
            text = f"{kind}: the loss or another figure was not a finite number at step {join_steps(bad)}."
            found.append(Finding(text, cost=math.inf))
        if skipped:
            found.append(_tell_of_skipped(skipped, len(lines)))
    return found


def _tell_of_skipped(skipped: Sequence[JsonObject], num_steps: int) -> Finding:
    steps = [line["step"] for line in skipped]
    reason, _ = Counter(str(line["skipped"]) for line in skipped).most_common(1)[0]
    several = f"{len(steps):,} of {num_steps:,} steps were" if len(steps) > 1 else "One step was"
    text = f"{several} left out, at step {join_steps(steps)}: {reason}."
    if all("overflow" in str(line["skipped"]) for line in skipped):
        advice = "In fp16 the first ones are usual. Use bf16 if they go on."
    else:
        advice = "Look at the rows that the log names; lower optimizer.learning_rate if it goes on."
    return Finding(text, advice, cost=math.inf)


def _find_divergence(run: RunRecords) -> list[Finding]:
    """An eval loss whose last value is well above its lowest."""
    losses = [(line["loss"], line["step"]) for line in run.evals if line.get("loss") is not None]
    if len(losses) < 2:
        return []
    (best, best_step), (last, last_step) = min(losses), losses[-1]
    if last - best <= max(0.02, 0.05 * best):
        return []
    text = (
        f"The eval loss was lowest at step {best_step:,} ({best:.3f}) and {last:.3f} at step {last_step:,}."
    )
    advice = (
        "The published adapter is the best checkpoint's. Fewer epochs or a lower "
        "optimizer.learning_rate would save the rest."
    )
    return [Finding(text, advice)]


def _find_slow_events(run: RunRecords, told: Collection[int]) -> list[Finding]:
    """Ranks that the run's guardians found slow, once for each rank and kind, with the worst factor.

    Args:
        run: The run.
        told: Ranks whose own work is told to be slow already.
    """

    def subject(event: JsonObject) -> tuple[int, str]:
        return int(event["rank"]), str(event["what"])

    found = []
    slow = sorted((event for event in run.events if event.get("event") == "slow rank"), key=subject)
    for (rank, what), group in groupby(slow, key=subject):
        events = list(group)
        if what == "work" and rank in told:
            continue
        worst = max(events, key=lambda event: float(event["factor"]))
        where = f"rank {rank} on {worst['host']}"
        steps = join_steps([event["step"] for event in events], at_most=4)
        if what == "link":
            text = (
                f"The link or the host of {where} is slow: a round trip to rank 0 took "
                f"{worst['seconds'] * 1e3:.1f} ms, "
                f"{worst['factor']:.0f} times the ranks' median (told at step {steps})."
            )
            advice = "Measure it: harness bench-link. Look at cable, switch port and interface of that host."
        else:
            text = (
                f"While the run went on, its guardians found {where} slow: its own work of a step took "
                f"{format_seconds(worst['seconds'])}, {worst['factor']:.1f} times the ranks' median "
                f"(told at step {steps})."
            )
            advice = "It did not last, or the run has no times of every rank."
        found.append(Finding(text, advice, is_note=what != "link"))
    return found


def _find_memory_events(run: RunRecords) -> list[Finding]:
    events = [event for event in run.events if event.get("event") == "out of memory"]
    if not events:
        return []
    steps = join_steps([event["step"] for event in events])
    last = events[-1].get("taken") or {}
    taken = ", ".join(f"{spell(str(key))} {format_value(value)}" for key, value in last.items())
    ranks = ", ".join(map(str, sorted({rank for event in events for rank in event.get("ranks", [])})))
    text = f"Memory ran out at step {steps} on rank {ranks}; the step was taken again" + (
        f" with {taken}." if taken else " with less."
    )
    advice = "No sample was lost. A lower memory.target, or these values from the start, saves the search."
    return [Finding(text, advice, is_note=True)]


def _find_restarts(run: RunRecords) -> list[Finding]:
    failed = [one for one in run.attempts if one.get("exit_code") != 0]
    if not failed:
        return []
    lost = sum(int(one.get("steps_lost") or 0) for one in failed)
    ended = (
        "and it ended well" if run.attempts[-1].get("exit_code") == 0 else "and the last attempt failed too"
    )
    several = f"{len(failed)} attempts" if len(failed) > 1 else "One attempt"
    text = (
        f"{several} of {len(run.attempts)} to run this failed, {ended}; {lost:,} steps were taken again. "
        f"The last failure: {failed[-1].get('why')}."
    )
    ended_well = run.attempts[-1].get("exit_code") == 0
    return [Finding(text, "The attempts are listed under Events.", is_note=ended_well)]


def _find_end(run: RunRecords) -> list[Finding]:
    if not run.train or run.summary is not None:
        return []
    step = run.train[-1]["step"]
    text = f"The run has not come to its end: its last step so far is {step:,}."
    advice = "A run that was stopped goes on with --resume; figures are of the steps so far."
    return [Finding(text, advice, is_note=True)]


def tabulate_incidents(run: RunRecords) -> list[Table]:
    """Tabulate the attempts, the events and the steps left out."""
    skipped = [line for line in run.train if line.get("skipped")]
    tables = [
        _tabulate("Attempts", ATTEMPT_COLUMNS, run.attempts),
        _tabulate("Events", EVENT_COLUMNS, run.events),
        _tabulate("Steps left out", {"step": _step, "because": lambda line: str(line["skipped"])}, skipped),
    ]
    return [table for table in tables if table.rows]


def _step(line: JsonObject) -> str:
    return f"{line['step']:,}"


def _describe_event(event: JsonObject) -> str:
    text = event.get("message") or event.get("reason") or event.get("event")
    return str(text).splitlines()[0] if text else NOTHING


ATTEMPT_COLUMNS: dict[str, Callable[[JsonObject], str]] = {
    "took": lambda one: format_seconds(float(one.get("ended", 0)) - float(one.get("began", 0))),
    "exit code": lambda one: format_value(one.get("exit_code")),
    "to step": lambda one: format_value(one.get("step")),
    "ranks": lambda one: format_value(one.get("world_size")),
    "why": lambda one: "done" if one.get("exit_code") == 0 else str(one.get("why")),
}
EVENT_COLUMNS: dict[str, Callable[[JsonObject], str]] = {
    "step": _step,
    "event": lambda event: str(event.get("event")),
    "what": _describe_event,
}


def _tabulate(
    title: str, columns: dict[str, Callable[[JsonObject], str]], lines: Sequence[JsonObject]
) -> Table:
    rows = [[cell(line) for cell in columns.values()] for line in lines[-MAX_ROWS:]]
    rest = len(lines) - MAX_ROWS
    note = f"The last {MAX_ROWS} of {len(lines):,}." if rest > 0 else ""
    return Table(title, list(columns), rows, note=note)
