"""The report's tables, as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.evaluation.accuracy import Accuracy
from harness.json_lines import JsonObject
from harness.memory.case import PHASES
from harness.memory.profile import GIB, MemoryRecord
from harness.numbers import format_float
from harness.report.charts import spell, take
from harness.report.records import RunRecords, TaskResult

MAX_ROWS = 40
NOTHING = "-"
CHARACTERS_OF_A_NARROW_TABLE = 38


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        title: Heading, or "".
        columns: Column heads; empty for a list of names and values.
        rows: Cells; as long as `columns` where there are heads.
        shares: For each row the length of its bar, 0 to 1; empty for a table without bars.
        marked: Cells to mark, as (row, column).
        note: A remark below, or "".
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    shares: list[float] = field(default_factory=list)
    marked: frozenset[tuple[int, int]] = frozenset()
    note: str = ""

    @property
    def is_wide(self) -> bool:
        """Whether a third of the page is too narrow for it."""
        longest = [
            max((len(line) for row in self.rows for line in row[i].splitlines()), default=0)
            for i in range(len(self.columns))
        ]
        heads = [len(column) for column in self.columns]
        return sum(max(pair) for pair in zip(longest, heads, strict=True)) > CHARACTERS_OF_A_NARROW_TABLE


def format_value(value: object) -> str:
    """Write a value for a table: thousands separated, four digits of a float, lists joined."""
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return NOTHING
        case int():
            return f"{value:,}"
        case float():
            return format_float(value)
        case list() | tuple():
            return ", ".join(format_value(item) for item in value) or NOTHING
        case Mapping():
            return ", ".join(f"{key}: {format_value(item)}" for key, item in value.items()) or NOTHING
        case _:
            return str(value)


def format_seconds(seconds: float) -> str:
    """Write a duration: 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_percent(share: float | None) -> str:
    """Write a share as a percentage with one digit; None and NaN are a dash."""
    return NOTHING if share is None or not math.isfinite(share) else f"{share:.1%}"


def summarize_throughput(run: RunRecords) -> JsonObject:
    """Return the run's throughput: its own summary, or, for a run that was stopped, from its steps but the first.

    Returns:
        samples_per_s, tokens_per_s, supervised_tokens_per_s, real_slot_share, tokens_per_example and more; {}
        where no step was measured.
    """
    if run.summary is not None:
        return run.summary
    steps = run.train[1:]
    seconds = math.fsum(take(steps, "step_time_s"))
    if not seconds > 0:
        return {}
    sums = {key: math.fsum(take(steps, key)) for key in ("examples", "tokens", "supervised_tokens", "slots")}
    return {
        "num_steps": len(steps),
        "samples_per_s": sums["examples"] / seconds,
        "tokens_per_s": sums["tokens"] / seconds,
        "supervised_tokens_per_s": sums["supervised_tokens"] / seconds,
        "slots_per_s": sums["slots"] / seconds,
        "real_slot_share": sums["tokens"] / sums["slots"] if sums["slots"] else math.nan,
        "tokens_per_example": sums["tokens"] / sums["examples"] if sums["examples"] else math.nan,
        "step_time_median_s": statistics.median(take(steps, "step_time_s")),
    }


RATE_ROWS = {
    "samples_per_s": "samples/s",
    "rows_per_s": "rows/s",
    "tokens_per_s": "tokens/s",
    "supervised_tokens_per_s": "supervised tokens/s",
    "slots_per_s": "slots/s (with padding)",
    "tokens_per_example": "tokens computed an example",
    "real_slot_share": "slots that are real",
}
TIME_ROWS = {
    "num_steps": "steps measured",
    "step_time_median_s": "median step",
    "step_time_p20_s": "step, 20th percentile",
    "step_time_p80_s": "step, 80th percentile",
    "warmup_s": "warm-up, apart",
    "eval_s": "evaluation, apart",
    "save_s": "saving, apart",
    "stalls_s": "between steps, apart",
}


def tabulate_throughput(run: RunRecords) -> list[Table]:
    """Tabulate the share of step time by part, the rates, and the times."""
    speed = summarize_throughput(run)
    shares = {
        part: share for part, share in (speed.get("time_share_by_part") or {}).items() if share is not None
    }
    parts = [[spell(part), format_percent(share)] for part, share in shares.items()]
    tables = [Table("Share of step time", [], parts, list(shares.values()))]
    for title, labels in (("Rates after warm-up", RATE_ROWS), ("Time", TIME_ROWS)):
        known = {key: speed[key] for key in labels if speed.get(key) is not None}
        tables.append(Table(title, [], [[labels[key], _format_speed(key, x)] for key, x in known.items()]))
    return [table for table in tables if table.rows]


def _format_speed(key: str, value: float) -> str:
    if key.endswith("_share"):
        return format_percent(value)
    is_time = key.endswith("_s") and not key.endswith("_per_s")
    return format_seconds(value) if is_time else format_value(value)


def tabulate_memory(records: Sequence[MemoryRecord]) -> list[Table]:
    """Tabulate peaks, phases by ranks in GiB, the highest marked."""
    if not records:
        return []
    ranks = sorted({record.rank for record in records})
    phases = [phase for phase in PHASES if any(record.phase == phase for record in records)]
    peaks = {(record.phase, record.rank): record.peak_bytes for record in records}
    highest = max(peaks.values())
    rows, marked = [], set()
    for r, phase in enumerate(phases):
        cells = [peaks.get((phase, rank)) for rank in ranks]
        rows.append([spell(phase), *(NOTHING if c is None else f"{c / GIB:.2f}" for c in cells)])
        marked |= {(r, c + 1) for c, peak in enumerate(cells) if peak == highest}
    columns = ["GiB", *(f"rank {rank}" for rank in ranks)]
    return [Table("Peak by phase and rank", columns, rows, marked=frozenset(marked))]


def tabulate_accuracy(run: RunRecords) -> list[Table]:
    """Tabulate accuracy by task, and whether the interval is clear of what guessing reaches."""
    if not run.tasks:
        return []
    columns = ["task", "songs", "before", "after", "guessing", "above it"]
    facts = {key: value for key, value in run.evaluation.items() if not _is_nested(value)}
    note = "; ".join(f"{_name(key)}: {format_value(value)}" for key, value in facts.items())
    nested = {key: value for key, value in run.evaluation.items() if key not in facts}
    table = Table("By task", columns, [_accuracy_row(task) for task in run.tasks], note=note)
    return [table, *tabulate_nested("", nested)]


def _accuracy_row(task: TaskResult) -> list[str]:
    shown = task.after or task.before
    return [
        task.task,
        format_value(shown.total if shown else None),
        _format_accuracy(task.before),
        _format_accuracy(task.after),
        f"chance {format_percent(task.chance)}\nmajority {format_percent(task.majority)}",
        _judge(task),
    ]


def _format_accuracy(result: Accuracy | None) -> str:
    if result is None:
        return NOTHING
    return f"{result.accuracy:.1%}\n{100 * result.low:.1f} to {100 * result.high:.1f}"


def _judge(task: TaskResult) -> str:
    levels = [level for level in (task.chance, task.majority) if level is not None]
    if task.after is None or not levels:
        return NOTHING
    return "yes" if task.after.low > max(levels) else "not shown"


def tabulate_nested(title: str, content: Mapping[str, object]) -> list[Table]:
    """Tabulate a nested mapping of any shape: one table for each level that holds values.

    Args:
        title: Heading of the top level.
        content: Keys to values, mappings, or lists of mappings.
    """
    plain = {key: value for key, value in content.items() if not _is_nested(value)}
    tables = [_tabulate_values(title, plain)] if plain else []
    for key, value in content.items():
        name = _name(key) if not title or title == OVERVIEW else f"{title}: {_name(key)}"
        if isinstance(value, Mapping) and value:
            tables += tabulate_nested(name, value)
        elif isinstance(value, list) and _is_nested(value):
            tables.append(_tabulate_list(name, value))
    return tables


OVERVIEW = "Overview"


def _name(key: str) -> str:
    return spell(str(key))


def _is_nested(value: object) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _tabulate_values(title: str, values: Mapping[str, object]) -> Table:
    rows = [[_name(key), format_value(value)] for key, value in values.items()]
    counts = [value for value in values.values() if type(value) is int and value >= 0]
    is_distribution = title != OVERVIEW and len(counts) == len(rows) > 1 and max(counts) > 0
    shares = [count / max(counts) for count in counts] if is_distribution else []
    return _cut(Table(title, [], rows, shares))


def _tabulate_list(title: str, items: list[Mapping[str, object]]) -> Table:
    columns = list(dict.fromkeys(key for item in items for key in item))
    rows = [[format_value(item.get(key)) for key in columns] for item in items]
    return _cut(Table(title, [_name(column) for column in columns], rows))


def _cut(table: Table) -> Table:
    rest = len(table.rows) - MAX_ROWS
    if rest <= 0:
        return table
    return Table(
        table.title, table.columns, table.rows[:MAX_ROWS], table.shares[:MAX_ROWS], note=f"and {rest:,} more"
    )
