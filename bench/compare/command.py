"""`python -m bench compare A B`: the options, the table, the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.compare.sides import compare_sides
from bench.compare.verdict import CONFIDENCE, MIN_CHANGE, Comparison, Finding, Verdict
from harness.numbers import format_float
from preprocess.terminal import exit_on_user_error, make_console

FORMAT_VERSION = 1
WORSE = 1
"""Exit code with --fail-if-worse."""

STYLES = {"better": "green", "worse": "bold red", "changed": "yellow", "noise": "dim", "unknown": "dim"}


@exit_on_user_error
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A record file (its last line), FILE#n, FILE#n:WAY, a program, a commit, a run folder, or "
            "several (RUN,RUN,RUN).",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same kind of thing, judged against A.")],
    min_change: Annotated[float, typer.Option(metavar="PERCENT", help="The least change that matters.")] = 100
    * MIN_CHANGE,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help=f"End with exit code {WORSE} where a quantity is worse.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one line of JSON alone.")] = False,
) -> None:
    """Say better, worse or noise of each quantity of two measurements, with a confidence interval."""
    found = compare_sides(a, b, min_change / 100)
    if json_:
        print(json.dumps(to_json(found), ensure_ascii=False, allow_nan=False))
    else:
        for comparison in found:
            print_comparison(comparison, make_console())
    if fail_if_worse and any(comparison.names("worse") for comparison in found):
        raise typer.Exit(WORSE)


def to_json(found: Sequence[Comparison]) -> dict[str, object]:
    """What --json prints: format_version, and the comparisons with the names of what is better and worse."""
    return {
        "format_version": FORMAT_VERSION,
        "confidence": CONFIDENCE,
        "comparisons": [
            {**asdict(one), "better": one.names("better"), "worse": one.names("worse")} for one in found
        ],
    }


def print_comparison(found: Comparison, console: Console) -> None:
    """A table of findings, what differs, and a last line that names better and worse."""
    table = Table(title=f"{found.title}\nA  {found.a}\nB  {found.b}", title_justify="left")
    table.add_column("quantity", overflow="fold")
    for title in ("A", "B", "B against A", "interval"):
        table.add_column(title, justify="right")
    table.add_column("verdict")
    for finding in found.findings:
        table.add_row(*describe_finding(finding))
    console.print(table)
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
    for remark in found.remarks:
        console.print(remark, highlight=False, soft_wrap=True)
    console.print(summarize(found), highlight=False, soft_wrap=True)


def describe_finding(finding: Finding) -> list[str]:
    """The cells of its row."""
    interval = "" if finding.low is None else f"{finding.low:+.1%} to {finding.high:+.1%}"
    note = f"{finding.verdict} ({finding.note})" if finding.note else finding.verdict
    return [
        f"{finding.name} [{finding.unit}]" if finding.unit else finding.name,
        format_float(finding.a),
        format_float(finding.b),
        f"{finding.change:+.1%}",
        interval,
        note,
    ]


def summarize(found: Comparison) -> str:
    """The verdicts in one sentence, with what they rest on."""
    verdicts: tuple[Verdict, ...] = ("worse", "better", "changed")
    named = [f"{verdict}: {', '.join(names)}" for verdict in verdicts if (names := found.names(verdict))]
    methods = ", ".join(dict.fromkeys(finding.method for finding in found.findings))
    return (
        f"{'; '.join(named) or 'No quantity changed beyond noise'}. Intervals hold together at {CONFIDENCE:.0%} for "
        f"the noise within the two measurements ({methods}); a change under {found.min_change:.1%} counts as none."
    )
