"""Work done and how fast: counts of a step, its rates, a run's summary.

Three counts are kept apart everywhere: *tokens* are real tokens that the model computed, *supervised tokens*
are those that carry loss, *slots* are tokens plus padding. Padding is never counted as work; an example (one
question with its answer) is a *sample*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from preprocess.schema import Int64Array


@dataclass(frozen=True, slots=True)
class StepCounts:
    """Work of one optimizer step, summed over all ranks and micro-steps.

    Attributes:
        rows: Packed rows.
        examples: Questions with their answers; the "samples" of samples/s.
        tokens: Real tokens computed. A prefix that several examples share counts once.
        supervised_tokens: Tokens that carry loss.
        slots: Tokens plus padding.
        attention_pairs: Pairs of tokens (query, key) of which the first sees the second, itself included.
    """

    rows: int = 0
    examples: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    slots: int = 0
    attention_pairs: int = 0

    def __post_init__(self) -> None:
        assert self.supervised_tokens <= self.tokens <= self.slots, f"counts contradict each other: {self}"

    def __add__(self, other: StepCounts) -> StepCounts:
        """Sum field by field."""
        return StepCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def to_array(self) -> Int64Array:
        """Return int64[6] in field order, so that one all-reduce sums every count."""
        return np.array(astuple(self), dtype=np.int64)

    @classmethod
    def from_array(cls, array: Int64Array) -> StepCounts:
        """Read what `to_array` gave; `array` is int64[6]."""
        return cls(*(int(count) for count in array))


@dataclass(frozen=True, slots=True)
class TaskStep:
    """One task's part of a step.

    Attributes:
        loss: Mean over its supervised tokens, in nats; NaN without any.
        examples: Questions with their answers.
        supervised_tokens: Tokens that carry loss.
    """

    loss: float
    examples: int
    supervised_tokens: int


def name_tasks(
    names: Sequence[str], by_task: npt.NDArray[np.float64], examples: Int64Array
) -> dict[str, TaskStep]:
    """What a step saw of each task that is in it.

    Args:
        names: Of the K tasks.
        by_task: float64[K, 2], the sum of losses in nats and the supervised tokens of each, over all ranks.
        examples: int64[K], questions with their answers of each, over all ranks.
    """
    return {
        name: TaskStep(divide(loss_sum, supervised), int(number), int(supervised))
        for name, (loss_sum, supervised), number in zip(names, by_task.tolist(), examples, strict=True)
        if number or supervised
    }


@dataclass(frozen=True, slots=True)
class StepRates:
    """Time and rates of one step. Rates are per second of step time, over all ranks.

    Attributes:
        step_time_s: Seconds of the step without evaluation and saving.
        parts_s: Seconds by part; the parts of the step and "other" add up to `step_time_s`, or are not there when the
            step was not timed by parts. "eval" and "save" are there when they happened since the step before.
        stalls_s: Seconds between the step before and this one that went to neither evaluation nor saving: lines
            written, checkpoints looked after.
        samples_per_s: Examples.
        rows_per_s: Packed rows.
        tokens_per_s: Real tokens.
        supervised_tokens_per_s: Tokens that carry loss.
        slots_per_s: Tokens and padding: the speed of the hardware, not of the work.
        tokens_per_example: Real tokens computed for one example; the fewer, the more of them are shared.
        smoothed: Each of these six by its name: the median over the last 20 steps (warm-up steps left out once there
            are others).
        is_warmup: Whether the summary leaves this step out.
    """

    step_time_s: float
    parts_s: dict[str, float]
    stalls_s: float
    samples_per_s: float
    rows_per_s: float
    tokens_per_s: float
    supervised_tokens_per_s: float
    slots_per_s: float
    tokens_per_example: float
    smoothed: dict[str, float]
    is_warmup: bool


@dataclass(frozen=True, slots=True)
class ThroughputSummary:
    """A run's throughput after warm-up: total work over total step time. NaN where no step was measured.

    Attributes:
        num_steps: Steps measured.
        num_warmup_steps: Steps left out at the start.
        warmup_s: Their seconds.
        counts: Work of the measured steps.
        step_time_total_s: Seconds of the measured steps, without evaluation and saving.
        samples_per_s: Examples a second.
        rows_per_s: Packed rows a second.
        tokens_per_s: Real tokens a second.
        supervised_tokens_per_s: Tokens with loss a second.
        slots_per_s: Tokens and padding a second.
        real_slot_share: Tokens / slots, 0 to 1.
        tokens_per_example: Real tokens computed for one example.
        step_time_median_s: Median step.
        step_time_p20_s: 20th percentile.
        step_time_p80_s: 80th percentile.
        time_share_by_part: Share of step time by part, with "other", in the steps that were timed by parts; adds up
            to 1.
        eval_s: Seconds of evaluation in the whole run, outside step time.
        save_s: Seconds of saving in the whole run, outside step time.
        stalls_s: Seconds between steps that went to neither.
    """

    num_steps: int
    num_warmup_steps: int
    warmup_s: float
    counts: StepCounts
    step_time_total_s: float
    samples_per_s: float
    rows_per_s: float
    tokens_per_s: float
    supervised_tokens_per_s: float
    slots_per_s: float
    real_slot_share: float
    tokens_per_example: float
    step_time_median_s: float
    step_time_p20_s: float
    step_time_p80_s: float
    time_share_by_part: dict[str, float]
    eval_s: float
    save_s: float
    stalls_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; the counts are a dictionary too."""
        return asdict(self)


def divide(amount: float, by: float) -> float:
    """Return amount / by, NaN where there is nothing to divide by."""
    return amount / by if by else float("nan")


def divide_counts(counts: StepCounts, seconds: float) -> dict[str, float]:
    """Return every rate of `StepRates` and `ThroughputSummary` by its field name, per second, and tokens an example."""
    return {
        "samples_per_s": divide(counts.examples, seconds),
        "rows_per_s": divide(counts.rows, seconds),
        "tokens_per_s": divide(counts.tokens, seconds),
        "supervised_tokens_per_s": divide(counts.supervised_tokens, seconds),
        "slots_per_s": divide(counts.slots, seconds),
        "tokens_per_example": divide(counts.tokens, counts.examples),
    }


def print_throughput(summary: ThroughputSummary, console: Console) -> None:
    """Print a run's throughput as a table, with the share of time by part below it."""
    if summary.num_steps == 0:
        console.print(f"No step was measured after {summary.num_warmup_steps} warm-up steps.")
        return
    title = f"Throughput over {summary.num_steps:,} steps, after {summary.num_warmup_steps} of warm-up"
    table = Table("measure", title=title)
    table.add_column("value", justify="right")
    for name, value in _describe(summary):
        table.add_row(name, value)
    for part, share in summary.time_share_by_part.items():
        table.add_row(f"time: {part}", f"{share:.1%}")
    console.print(table)


def _describe(summary: ThroughputSummary) -> list[tuple[str, str]]:
    p20, p50, p80 = summary.step_time_p20_s, summary.step_time_median_s, summary.step_time_p80_s
    return [
        ("samples/s", f"{summary.samples_per_s:,.2f}"),
        ("rows/s", f"{summary.rows_per_s:,.2f}"),
        ("tokens/s", f"{summary.tokens_per_s:,.0f}"),
        ("supervised tokens/s", f"{summary.supervised_tokens_per_s:,.0f}"),
        ("slots/s (with padding)", f"{summary.slots_per_s:,.0f}"),
        ("slots that are real", f"{summary.real_slot_share:.1%}"),
        ("tokens computed an example", f"{summary.tokens_per_example:,.1f}"),
        ("step, median (p20 to p80)", f"{p50:.3f} s ({p20:.3f} to {p80:.3f})"),
        ("evaluation, apart", f"{summary.eval_s:,.1f} s"),
        ("saving, apart", f"{summary.save_s:,.1f} s"),
    ]
