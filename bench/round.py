"""`python -m bench all`: every program in its turn, each in a process of its own; then the page of what they found."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.record import append_record
from preprocess.errors import ConfigError
from preprocess.outside_text import parse_json
from preprocess.terminal import exit_on_user_error, make_console

APART = {
    "quickstart": "reads the run of `make quickstart`, and measures nothing itself",
    "sweep": "takes a grid of yours",
    "learn": "trains and evaluates for more than an hour",
    "hymns": "trains and evaluates for half an hour",
}
"""Programs that a round leaves out, and why."""

FAILED = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """One program of a round.

    Attributes:
        name: Of the program.
        seconds: That it took, its start included.
        problem: Why it has no record; None where it has one.
    """

    name: str
    seconds: float
    problem: str | None


@exit_on_user_error
def run_all(
    quick: Annotated[bool, typer.Option("--quick", help="Seconds instead of a minute a program.")] = False,
    results: Annotated[Path, typer.Option(help="Folder that gets a file of records a program.")] = Path(
        "runs/bench"
    ),
    only: Annotated[str | None, typer.Option(metavar="A,B,…", help="These programs alone.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the round as one line of JSON.")] = False,
) -> None:
    """Run every program in turn, whatever becomes of the others, and write a page of their records."""
    from bench.__main__ import PROGRAMS

    names = [name for name in PROGRAMS if name not in APART] if only is None else only.split(",")
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise ConfigError(f"bench all: no program {unknown[0]!r}; there are {', '.join(PROGRAMS)}")
    console = make_console(error=True)
    turns = [take_turn(name, results, console, quick=quick) for name in names]
    if json_:
        print(json.dumps({"results": str(results), "programs": [asdict(turn) for turn in turns]}))
    else:
        print_round(turns, make_console())
    if any(turn.problem is None for turn in turns):
        write_page(results, console)
    if any(turn.problem is not None for turn in turns):
        raise typer.Exit(FAILED)


def take_turn(name: str, results: Path, console: Console, *, quick: bool) -> Turn:
    """Run a program and keep its record in `results`/NAME.jsonl."""
    console.print(f"bench {name} …", highlight=False)
    command = [sys.executable, "-m", "bench", name, "--json", *(["--quick"] if quick else [])]
    started_s = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started_s
    try:
        append_record(results / f"{name}.jsonl", parse_json(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        return Turn(name, seconds, f"ended with {done.returncode}: {said[-1]}")
    return Turn(name, seconds, None)


def print_round(turns: Sequence[Turn], console: Console) -> None:
    """A table of programs, seconds and what went wrong."""
    table = Table("program", title="Benchmarks")
    table.add_column("s", justify="right")
    table.add_column("")
    for turn in turns:
        table.add_row(turn.name, f"{turn.seconds:.0f}", turn.problem or "done")
    console.print(table)
    for name, why in APART.items():
        console.print(f"{name} is left out: it {why}", highlight=False)


def write_page(results: Path, console: Console) -> None:
    """`results`/report.html from every record there."""
    from bench.report.chosen import read_histories
    from bench.report.page import render_page
    from harness.json_lines import replace_text

    replace_text(results / "report.html", render_page(read_histories(results)))
    console.print(f"report: {results / 'report.html'}", highlight=False)
