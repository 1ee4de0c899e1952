"""How examples/s moves with what can be changed: tasks a song, row length, recomputed layers, hosts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.batch_plan import BatchPlan
from harness.planning.levers import list_levers, mean_lengths
from harness.planning.setting import Setting
from harness.planning.speed import compute_seconds, predict_step
from harness.planning.workload import SongLengths, assume_workload
from harness.roofline.collectives import Link
from harness.roofline.scaling import HOSTS, Parts, Scaled, even_rows, simulate_step, slowest_rows
from preprocess.errors import ConfigError

TASKS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
ROW_LENGTHS = (512, 1024, 2048, 4096, 8192)
NOTHING_BETWEEN = Link(0.0, math.inf, source="ranks of one host, whose links are not counted")
STEPS_DEALT = 50
"""Steps of which the slowest rank's share is taken."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One value of what is changed.

    Attributes:
        value: Of it.
        examples_per_s: Predicted, at the setting's efficiency, with its steps: a few rows, dealt out in whole ones.
        even_examples_per_s: The same with steps that give every rank the same rows, as many tokens as now.
        tokens_per_example: Computed for one.
        fits: Whether the card has the memory.
    """

    value: int
    examples_per_s: float
    even_examples_per_s: float
    tokens_per_example: float
    fits: bool


@dataclass(frozen=True, slots=True)
class Lever:
    """A change that would raise the rate, and what it is predicted to give."""

    change: str
    examples_per_s: float


def move_tasks(setting: Setting) -> list[Moved]:
    """Over tasks a song, with the lyrics' prefix computed once."""
    mean = mean_lengths(setting.workload)
    return [_move(setting, tasks, lambda tasks: replace(mean, tasks=tasks)) for tasks in TASKS]


def move_row_length(setting: Setting) -> list[Moved]:
    """Over slots of a row: longer rows are fuller, but a rank has fewer of them, and steps are dealt less evenly."""
    mean = mean_lengths(setting.workload)
    least = mean.lyrics + mean.question + mean.answer
    lengths = [length for length in ROW_LENGTHS if length >= least]
    return [_move(setting, length, lambda length: replace(mean, row_length=length)) for length in lengths]


def move_recompute(setting: Setting) -> list[Moved]:
    """Over decoder layers that run again in the backward pass."""
    layers = setting.case.shape.num_layers
    counts = sorted({0, layers // 4, layers // 2, 3 * layers // 4, layers})
    return [_describe(setting, setting.with_rows(setting.rows, count), count) for count in counts]


def pull_levers(setting: Setting) -> list[Lever]:
    """The planner's levers by what each alone is predicted to give, most first.

    A device that no sheet knows is compared with no card, and its toy model with no real one.
    """
    others = [
        (change, other)
        for change, other in list_levers(setting)
        if setting.memory_bytes or (other.card, other.case.shape) == (setting.card, setting.case.shape)
    ]
    found = [(change, predict_step(other).examples_per_s) for change, other in others]
    levers = [Lever(change, rate) for change, rate in found if rate is not None]
    return sorted(levers, key=lambda lever: -lever.examples_per_s)


def _move(setting: Setting, value: int, lengths: Callable[[int], SongLengths]) -> Moved:
    return _describe(setting, setting.with_workload(assume_workload(lengths(value))), value)


def _describe(now: Setting, then: Setting, value: int) -> Moved:
    tokens = now.rows_of_rank * now.workload.tokens
    rows = max(1, round(tokens / then.workload.tokens)) * then.case.ranks
    rate, even = (predict_step(one).examples_per_s for one in (then, then.with_rows_of_step(rows)))
    if rate is None or even is None:
        raise ConfigError("no speed without a card whose peak is known: pass --gpu")
    fits = then.memory_bytes == 0 or then.fits
    return Moved(value, rate, even, then.workload.tokens_per_example, fits)


def planned_parts(setting: Setting) -> Parts:
    """Seconds a row at the setting's efficiency; nothing is fixed, for it follows from no size."""
    assert setting.card is not None, "the command asks for one"
    step = predict_step(setting)
    seconds = compute_seconds(step.flops, setting.case, setting.card, setting.efficiency)
    efficiency = setting.efficiency
    source = f"a prediction at {efficiency.bf16:.0%} of the peak ({efficiency.source})"
    return Parts(seconds / setting.rows_of_rank, 0.0, source)


def scale_hosts(
    setting: Setting,
    parts: Parts,
    link: Link,
    *,
    plan: BatchPlan | None = None,
    hosts: Sequence[int] = HOSTS,
    grows: bool = False,
) -> list[Scaled]:
    """Simulate steps on so many hosts.

    Args:
        setting: The run's or the plan's.
        parts: Of one rank.
        link: Between hosts.
        plan: Over the run's own rows, whose unevenness then counts; rows that are all alike where it is None.
        hosts: Numbers of them.
        grows: Whether a step grows with the hosts, as many rows on each as now; else its rows stay.
    """
    found = []
    for nodes in hosts:
        there = setting.with_nodes(nodes)
        if grows:
            there = there.with_rows_of_step(setting.rows_of_rank * there.case.ranks)
        rows, ranks = there.rows_of_step, there.case.ranks
        slowest = float(even_rows(rows, ranks))
        if plan is not None and rows <= len(plan.sizes):
            target = there.target if grows else plan.target
            dealt = BatchPlan(plan.sizes, target, setting.rows, ranks, plan.seed)
            # An epoch's last step takes what is left.
            slowest = slowest_rows(dealt, range(max(1, min(STEPS_DEALT, dealt.steps_of_epoch(0) - 1))))
        found.append(
            simulate_step(
                parts,
                there.case,
                link if nodes > 1 or link.within_hosts else NOTHING_BETWEEN,
                rows=rows,
                slowest=slowest,
                micro_steps=there.micro_steps,
                examples=rows * there.workload.examples,
            )
        )
    return found
