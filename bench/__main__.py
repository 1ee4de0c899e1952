"""`python -m bench`: list the benchmark programs, run one (its last line is one line of JSON), compare, report."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from bench.compare.command import compare
from bench.hymns import hymns
from bench.machine import describe_surroundings
from bench.record import Outcome, WrongResultError, append_record, make_record, to_line
from bench.report.command import report
from bench.round import run_all
from bench.sweep import sweep
from harness.numbers import format_float
from preprocess.errors import ConfigError
from preprocess.terminal import exit_on_user_error, make_console

PROGRAMS = {
    "build": "How many songs a second does the whole build make, against TRL's preparation of the same examples?",
    "stream": "Does the memory of a build stay flat while its input grows?",
    "tokenizer": "How fast are lyrics tokenized, against the tokenizer's own batch encoding?",
    "themes": "Are the themes found in hymns those that people found in them?",
    "truth": "Does the truth check tell true statements from false ones, in our own answers and in free text?",
    "exactness": "Do packed, shared, accumulated, multi-rank steps compute what every example alone computes?",
    "prefix": "What does sharing the lyrics' prefix save, over tasks and lyrics' length, against separate examples?",
    "pack": "How fast and how full does packing by counts pack, against packing item by item?",
    "loader": "What does reading a packed row and laying out a micro-batch cost, against datasets?",
    "trl": "How many examples a second does a step take in, against TRL's SFTTrainer at its best, on a small Llama?",
    "trl_smollm2": "How many examples a second does a step take in, against TRL's SFTTrainer, on SmolLM2-135M?",
    "step": "How fast is a whole optimizer step, part by part, against a plain PyTorch loop with peft?",
    "bare": "What does a whole step cost beside a bare DeepSpeed engine that is fed the same ready tensors?",
    "zero": "What does each ZeRO stage cost in time and hold in memory, over one to three ranks, against stage 0?",
    "flops": "Do the FLOPs that the harness predicts from sizes agree with what torch counts operator by operator?",
    "activations": "How many bytes a token does training keep for backward, with peft's layers and with lean ones?",
    "memory": "Is the memory that is planned from sizes the memory that torch counts, tensor by tensor?",
    "gpu": "How fast does a card train Llama-3.2-3B's real shape with LoRA, and how near its peak is that?",
    "growth": "How does the cost grow with row length, tasks a song, ranks, and memory with the micro-batch?",
    "scaling": "Does the simulated step time of one to three hosts agree with the measured one, on slow links?",
    "fit": "Does the search for rows and recomputed layers end near its memory target, as fast as the best of a sweep?",
    "profile": "What does profiling a run's memory cost: its phases in every step, the timeline in one of twenty?",
    "meter": "What does the meter cost: clock by parts, FLOPs, times of ranks, lines and TensorBoard?",
    "sweep": "How do a run's settings move its speed, point by point of a grid, against the run as it is?",
    "loss": "What do logits only where a label is, chunk by chunk, save against transformers' full logits?",
    "recompute": "What does recomputing k of L layers cost and free, against transformers' all-or-nothing?",
    "generate": "How many questions a second are answered and ranked, all of a song's at once, against one at a time?",
    "link": "How long does a sum over three ranks take, size by size, against a sum through rank 0?",
    "end": "How long does the way from a songs file to an evaluated adapter take, against separate examples?",
    "profiler": "What does profiling steps operator by operator cost, and what does it cost where none is profiled?",
    "checkpoint": "How long does training stand still for a checkpoint that is written beside it, or waited for?",
    "faults": "Is every kill, full disk, flipped byte, cut cable and frozen rank noticed, named, and resumed exactly?",
    "learn": "Does SmolLM2-135M learn made-up lyrics, task by task, against chance, majority and TF-IDF?",
    "strangers": "From what can the genre of an unseen artist be told: words, or a small model's hidden states?",
    "hymns": "Does it learn themes and authors from 280 hymns, against the most frequent ones and TF-IDF?",
    "quickstart": "What did the last `make quickstart` reach: speed, and accuracy before and after?",
}
"""Names and questions. Program NAME is the module `bench.NAME`, which is imported only when it runs."""

RESULTS = Path(__file__).parent / "results"

PROGRAM = "program"
"""Name of the command that a first word stands for that is no other command's."""


class Commands(TyperGroup):
    """`bench compare` and `bench report` by name; `bench NAME` runs the program NAME, `bench` lists them."""

    # The context's class is in another package in each version of typer.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - see above
        """Read a command line."""
        return super().parse_args(ctx, self.name_command(args))

    def name_command(self, args: list[str]) -> list[str]:
        """The words with the name of the default command where they give none."""
        if args and (args[0] == "--help" or args[0] in self.commands):
            return args
        return [PROGRAM, *args]


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)
app.command("compare")(compare)
app.command("report")(report)
app.command("sweep")(sweep)
app.command("hymns")(hymns)
app.command("all")(run_all)


@app.command(PROGRAM)
@exit_on_user_error
def bench(
    name: Annotated[str | None, typer.Argument(help="Which program; without it, list them.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds instead of a minute; for a look.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the JSON line alone.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Add the line to bench/results/NAME.jsonl.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="KIND", help="One part of a program that has parts (faults).")
    ] = None,
) -> None:
    """Answer a question by measuring, against a baseline in the same run; or list the questions."""
    if name is None:
        list_programs(as_json=json_)
        return
    result = run_program(name, quick=quick, only=only)
    if not json_:
        print_outcome(result, make_console())
    if record:
        append_record(RESULTS / f"{name}.jsonl", result)
    print(to_line(result))


def list_programs(*, as_json: bool) -> None:
    """Print the programs with their questions."""
    if as_json:
        print(json.dumps(PROGRAMS))
        return
    for name, question in PROGRAMS.items():
        print(f"{name:11} {question}")


def run_program(name: str, *, quick: bool, only: str | None = None) -> dict[str, Any]:
    """Run one program, or the part of it that `only` names.

    Returns:
        Its record.

    Raises:
        ConfigError: There is no such program, or it has no such part.
    """
    if name not in PROGRAMS:
        raise ConfigError(f"bench: no program {name!r}; there are {', '.join(PROGRAMS)}")
    program = import_module(f"bench.{name}")
    if only is not None and only not in getattr(program, "PARTS", ()):
        parts = ", ".join(getattr(program, "PARTS", ())) or "none"
        raise ConfigError(f"bench {name}: no part {only!r}; its parts: {parts}")
    part = {} if only is None else {"only": only}
    surroundings = describe_surroundings()
    outcome: Outcome = program.measure(quick=quick, **part)
    command = f"python -m bench {name}" + (" --quick" if quick else "") + (f" --only {only}" if only else "")
    return make_record(name, PROGRAMS[name], outcome, command, surroundings)


def print_outcome(record: dict[str, Any], console: Console) -> None:
    """A run as a table."""
    table = Table(title=record["question"], title_justify="left")
    table.add_column("figure")
    for title in ("median", "p20", "p80", "n"):
        table.add_column(title, justify="right")
    ratios = {f"{way} / {record['baseline']}": ratio for way, ratio in record["ratios"].items()}
    for title, figure in [*record["figures"].items(), *ratios.items()]:
        unit = " times as fast" if figure["unit"] == "x" else f" {figure['unit']}"
        values = [format_float(figure[key]) for key in ("median", "p20", "p80")]
        table.add_row(title + unit, *values, str(figure["n"]))
    console.print(table)
    for title, value in record["facts"].items():
        console.print(
            f"{title}: {value:,.6g}" if isinstance(value, float) else f"{title}: {value}", highlight=False
        )


def main() -> None:
    """Entry point."""
    try:
        app()
    except WrongResultError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
