"""The report's first lines: headline figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.memory.profile import GIB
from harness.metering.ceilings import name_ceiling
from harness.numbers import format_float
from harness.report.charts import spell, take
from harness.report.evaluation.records import Scores
from harness.report.records import RunRecords
from harness.report.tables import format_percent, format_seconds, summarize_throughput


@dataclass(frozen=True, slots=True)
class Card:
    """A headline figure."""

    label: str
    value: str
    note: str = ""


def list_cards(run: RunRecords) -> list[Card]:
    """List the headline figures that the run has."""
    return (
        _accuracy_cards(run)
        + _evaluation_cards(run.scores)
        + _loss_cards(run)
        + _speed_cards(run)
        + _memory_cards(run)
    )


def _accuracy_cards(run: RunRecords) -> list[Card]:
    cards = []
    for task in run.tasks:
        notes = [f"before {format_percent(task.before.accuracy)}"] if task.before and task.after else []
        notes += [] if task.chance is None else [f"chance {format_percent(task.chance)}"]
        shown = task.after or task.before
        if shown is not None:
            cards.append(Card(f"{task.task} right", format_percent(shown.accuracy), ", ".join(notes)))
    return cards


def _evaluation_cards(scores: Scores) -> list[Card]:
    cards = []
    measured = [one for one in scores.marks if one.is_reached is not None]
    if measured:
        missed = [one.mark for one in measured if not one.is_reached]
        note = f"not {', '.join(missed)}" if missed else "all that were measured"
        cards.append(Card("goals reached", f"{len(measured) - len(missed)} of {len(measured)}", note))
    rates = {one.system: one.hallucination_rate for one in scores.truth if not one.task}
    shown = rates.get("after", rates.get("before"))
    if shown is not None:
        before = rates.get("before") if "after" in rates else None
        note = "" if before is None else f"before {format_percent(before)}"
        cards.append(Card("claims contradicted", format_percent(shown), note))
    return cards


def _loss_cards(run: RunRecords) -> list[Card]:
    cards = []
    for label, lines in (("eval loss", run.evals), ("train loss", run.train)):
        known = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
        if known:
            (first_step, first), (last_step, last) = known[0], known[-1]
            note = f"{first:.3f} at step {first_step:,}" if len(known) > 1 else f"at step {last_step:,}"
            cards.append(Card(label, f"{last:.3f}", note))
    return cards


def _speed_cards(run: RunRecords) -> list[Card]:
    if not run.train:
        return []
    speed = summarize_throughput(run)
    seconds = format_seconds(math.fsum(take(run.train, "step_time_s")))
    cards = [Card("steps", f"{run.train[-1]['step']:,}", f"{seconds} of step time")]
    if speed.get("samples_per_s") is not None:
        share, per_example = speed.get("real_slot_share"), speed.get("tokens_per_example") or math.nan
        cards += [
            Card("samples/s", format_float(speed["samples_per_s"]), f"{per_example:,.0f} tokens an example"),
            Card(
                "tokens/s", format_float(speed["tokens_per_s"]), f"{format_percent(share)} of slots are real"
            ),
        ]
    if speed.get("mfu") is not None:
        hfu = speed.get("hfu")
        cards.append(Card("MFU", format_percent(speed["mfu"]), f"HFU {format_percent(hfu)}"))
    elif speed.get("mfu_of_ceiling") is not None:
        share_of_ceiling = speed["mfu_of_ceiling"]
        cards.append(Card("MFU", format_percent(share_of_ceiling), name_ceiling(share_of_ceiling)))
    if speed.get("joules_per_example") is not None:
        total = f"{speed['energy_j'] / 3.6e6:.3g} kWh in all" if speed.get("energy_j") else ""
        cards.append(Card("energy", f"{format_float(speed['joules_per_example'])} J", f"an example; {total}"))
    return cards


def _memory_cards(run: RunRecords) -> list[Card]:
    if not run.memory:
        return []
    top = max(run.memory, key=lambda record: record.peak_bytes)
    return [
        Card(
            "peak memory",
            f"{top.peak_bytes / GIB:.1f} GiB",
            f"rank {top.rank}, {spell(top.phase)}",
        )
    ]
