"""What `bench.gpu` found, as a record and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.gpu_jobs import Result, Setting
from bench.record import Figure, Outcome, WrongResultError, compare, summarize


def rates_of(result: Result, card: dict[str, Any]) -> dict[str, Figure]:
    """Rates of a measured configuration, over its steps; utilizations where the card's peak is known."""
    amounts = {
        "tokens_per_s": ("tokens/s", float(result.counts["tokens"])),
        "examples_per_s": ("examples/s", float(result.counts["examples"])),
        "supervised_tokens_per_s": ("tokens/s", float(result.counts["supervised_tokens"])),
        "ceiling_share": ("of the ceiling", result.hardware_flops / (card["ceiling_tflops"] * 1e12)),
    }
    if card["peak_tflops"]:
        amounts["mfu"] = ("of the peak", result.model_flops / (card["peak_tflops"] * 1e12))
        amounts["hfu"] = ("of the peak", result.hardware_flops / (card["peak_tflops"] * 1e12))
    return {
        name: summarize([amount / turn for turn in result.seconds], unit)
        for name, (unit, amount) in amounts.items()
    }


def make_outcome(results: Sequence[Result], card: dict[str, Any], setting: Setting) -> Outcome:
    """The record: rates as figures, everything else as facts.

    Raises:
        WrongResultError: No configuration could be measured.
    """
    measured = [result for result in results if result.status == "measured"]
    if not measured:
        reasons = "; ".join(f"{result.name}: {result.status} ({result.note})" for result in results)
        raise WrongResultError(f"no configuration could be measured: {reasons}")
    first = measured[0]
    per_token = {one.name: [turn / one.counts["tokens"] for turn in one.seconds] for one in measured}
    figures = {
        f"{one.name}_{name}": figure for one in measured for name, figure in rates_of(one, card).items()
    }
    facts: dict[str, float | int | str] = {
        **{f"card_{name}": value for name, value in card.items() if value is not None},
        **setting_facts(setting),
    }
    for result in results:
        facts |= facts_of(result)
    return Outcome(
        baseline=first.name,
        figures=figures,
        ratios={one.name: compare(per_token[first.name], per_token[one.name]) for one in measured},
        facts=facts,
    )


def setting_facts(setting: Setting) -> dict[str, float | int | str]:
    """What all configurations shared."""
    return {name: value for name, value in asdict(setting).items() if value is not None}


def facts_of(result: Result) -> dict[str, float | int | str]:
    """Everything of a configuration that is no rate."""
    facts: dict[str, float | int | str] = {"status": result.status}
    if result.note:
        facts["note"] = result.note
    if result.status == "measured":
        facts |= {"rows": result.rows, "build_s": result.build_s}
        facts |= {name: result.counts[name] for name in ("tokens", "examples", "supervised_tokens")}
        facts |= {"model_flops": result.model_flops, "hardware_flops": result.hardware_flops}
        facts |= {f"{part}_s": seconds for part, seconds in result.parts_s.items()}
        facts |= {f"peak_gib_{phase}": peak for phase, peak in result.peak_gib.items()}
        facts |= {f"used_{what}": how for what, how in result.used.items()}
    return {f"{result.name}_{name}": value for name, value in facts.items()}


PHASES = ("load", "forward", "loss", "backward", "optimizer")


def print_results(results: Sequence[Result], card: dict[str, Any], console: Console) -> None:
    """A line for each configuration; those without figures say why."""
    title = f"{card.get('name', 'no card')}: peak {card.get('peak_tflops') or '?'} TFLOP/s"
    table = Table(
        title=f"{title}, one product reaches {card.get('ceiling_tflops', 0):.3g}", title_justify="left"
    )
    table.add_column("configuration")
    columns = ("rows", "tokens/s", "examples/s", "MFU", "HFU", *(f"GiB {phase}" for phase in PHASES))
    for column in columns:
        table.add_column(column, justify="right")
    for result in results:
        if result.status != "measured":
            table.add_row(result.name, f"[dim]{result.status}[/]")
            continue
        table.add_row(result.name, *describe_row(result, card))
    console.print(table)
    for result in results:
        if result.note:
            console.print(f"{result.name}: {result.status}: {result.note}", highlight=False, markup=False)


def describe_row(result: Result, card: dict[str, Any]) -> list[str]:
    """The cells of a measured configuration."""
    rates = rates_of(result, card)
    shares = [f"{rates[name].median:.1%}" if name in rates else "?" for name in ("mfu", "hfu")]
    peaks = [f"{result.peak_gib[phase]:.1f}" if phase in result.peak_gib else "" for phase in PHASES]
    return [
        str(result.rows),
        f"{rates['tokens_per_s'].median:,.0f}",
        f"{rates['examples_per_s'].median:,.1f}",
        *shares,
        *peaks,
    ]
