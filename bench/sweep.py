"""How do a run's settings move its speed? Every point of a grid beside the run as it is, in a table that goes on.

    python -m bench sweep --grid batch.micro_batch_size=1,2,4 --grid model.recompute_layers=0,2,4 [--config run.yaml]

Each point has a process of its own, in which the run with the point's settings and the run without them take turns,
step by step. A point that is in the table already is not measured again; one that failed is there with its error.
Without `--config` a toy model is trained on made-up songs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from bench.machine import describe_surroundings
from bench.rank_group import run_module
from bench.record import (
    Figure,
    Outcome,
    WrongResultError,
    append_record,
    compare,
    make_record,
    summarize,
    to_line,
)
from harness.json_lines import read_json_lines
from harness.numbers import format_float
from preprocess.errors import ConfigError
from preprocess.terminal import exit_on_user_error, make_console

QUESTION = "How do a run's settings move its speed, point by point of a grid, against the run as it is?"
OUTPUT = Path(__file__).parent / "results" / "sweep.jsonl"
DEFAULT_GRID = ("batch.micro_batch_size=1,2", "model.recompute_layers=0,1")
QUICK_GRID = ("batch.micro_batch_size=1",)
FULL_TURNS, QUICK_TURNS = 8, 3
BASE, POINT = "base", "point"

Point = dict[str, str]
"""Settings by name, as texts that YAML reads."""


def parse_grid(axes: Sequence[str]) -> list[Point]:
    """Every point of a grid, the last axis fastest.

    Args:
        axes: As in "batch.micro_batch_size=1,2,4", each setting once.

    Raises:
        ConfigError: An axis has no name or no value, a setting occurs twice, or a value does.
    """
    found: dict[str, list[str]] = {}
    for axis in axes:
        name, _, text = axis.partition("=")
        values = [value.strip() for value in text.split(",")]
        if not name.strip() or not all(values):
            raise ConfigError(
                f"--grid {axis}: expected a setting and values, as in batch.micro_batch_size=1,2,4"
            )
        if name.strip() in found or len(set(values)) != len(values):
            raise ConfigError(f"--grid {axis}: a setting or a value occurs twice; name each once")
        found[name.strip()] = values
    return [dict(zip(found, values, strict=True)) for values in product(*found.values())]


def key_of(point: Mapping[str, str], base: str, num_turns: int) -> str:
    """What tells whether a point of the table is this one: the settings, the run that they change, and the turns."""
    text = json.dumps([dict(sorted(point.items())), base, num_turns])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identify_base(config: Path | None, *, quick: bool) -> str:
    """What tells the run that the points change from another.

    Raises:
        ConfigError: There is no such file.
    """
    if config is None:
        return "quick toy" if quick else "toy"
    if not config.is_file():
        raise ConfigError(f"--config {config}: no such file")
    return config.read_text(encoding="utf-8")


@contextmanager
def open_base(config: Path | None, *, quick: bool) -> Iterator[Path]:
    """The file of the run that the points change; a toy's is made, with its model and data, and removed."""
    if config is not None:
        yield config
        return
    from bench.material import FIVE_TASKS
    from bench.training import TINY, Scale, build_data, make_config, open_folder, write_model

    scale = replace(TINY if quick else Scale(), precision="fp32")
    with open_folder() as folder:
        model = write_model(folder / "model", scale)
        data = build_data(folder / "data", str(model), FIVE_TASKS, scale)
        values = make_config(folder / "run", data, model, scale, 1).model_dump(mode="json")
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        yield path


def measure_point(config: Path, point: Mapping[str, str], num_turns: int) -> dict[str, Any]:
    """What a process found of one point; `{"error": …}` where it failed, whatever the reason."""
    with TemporaryDirectory(prefix="bench-") as folder:
        order = {
            "config": str(config),
            "set": [f"{name}={value}" for name, value in point.items()],
            "num_turns": num_turns,
            "folder": folder,
        }
        try:
            return run_module("bench.sweep_point", [json.dumps(order)], 1)[0]
        except WrongResultError as error:
            return {"error": str(error)}


def describe_point(found: Mapping[str, Any], point: Mapping[str, str]) -> Outcome:
    """A point as figures against the run as it is; without any where it failed."""
    facts: dict[str, float | int | str] = dict(point)
    if "error" in found:
        return Outcome(BASE, {}, {}, facts | {"error": found["error"]})
    costs_s = {
        name: [s / n for s, n in zip(found[name]["seconds"], found[name]["examples"], strict=True)]
        for name in (BASE, POINT)
    }
    figures: dict[str, Figure] = {
        f"{name}_examples_per_s": summarize([1 / cost for cost in values], "examples/s")
        for name, values in costs_s.items()
    }
    facts |= {"losses_compared": str(found["losses_compared"]), "last_loss": found[POINT]["losses"][-1]}
    return Outcome(BASE, figures, {POINT: compare(costs_s[BASE], costs_s[POINT])}, facts)


def read_table(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a table by key, the last one of each; what a kill left of a last line is cut off the file."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:  # or the next record would go on in the middle of it
        path.write_bytes(whole)
    return {line["key"]: line for line in read_json_lines(path) if "key" in line}


def sweep_grid(
    points: Sequence[Point],
    config: Path | None,
    output: Path,
    console: Console,
    *,
    quick: bool,
    retry_failed: bool = False,
    command: str = "python -m bench sweep",
) -> list[dict[str, Any]]:
    """Measure the points that the table lacks, adding each as soon as it is done.

    Args:
        points: Of the grid.
        config: Of the run that they change, or None for a toy.
        output: The table, JSON lines.
        console: Gets a line a point.
        quick: A smaller toy and fewer turns.
        retry_failed: Measure again what failed before.
        command: For the records.

    Returns:
        The records of all points, in the grid's order.
    """
    num_turns = QUICK_TURNS if quick else FULL_TURNS
    known = read_table(output)
    records = []
    base = identify_base(config, quick=quick)
    with ExitStack() as stack:
        path: Path | None = None
        for point in points:
            key = key_of(point, base, num_turns)
            words = ", ".join(f"{name}={value}" for name, value in point.items())
            if key in known and not (retry_failed and known[key]["facts"].get("error")):
                console.print(f"{words}: in the table already", highlight=False)
                records.append(known[key])
                continue
            path = path or stack.enter_context(open_base(config, quick=quick))
            surroundings = describe_surroundings()
            outcome = describe_point(measure_point(path, point, num_turns), point)
            record = {"key": key, **make_record("sweep", QUESTION, outcome, command, surroundings)}
            append_record(output, record)
            console.print(f"{words}: {outcome.facts.get('error', 'done')}", highlight=False)
            records.append(record)
    return records


def measure(*, quick: bool) -> Outcome:
    """Sweep a small grid on a toy, in a table that is thrown away: the program as one of the others.

    Raises:
        WrongResultError: A point failed.
    """
    points = parse_grid(QUICK_GRID if quick else DEFAULT_GRID)
    with TemporaryDirectory(prefix="bench-") as folder:
        records = sweep_grid(points, None, Path(folder) / "sweep.jsonl", Console(quiet=True), quick=quick)
    figures: dict[str, Figure] = {}
    ratios: dict[str, Figure] = {}
    for point, record in zip(points, records, strict=True):
        if error := record["facts"].get("error"):
            raise WrongResultError(f"{point}: {error}")
        name = ", ".join(f"{setting.rpartition('.')[2]} {value}" for setting, value in point.items())
        for way, figure in record["figures"].items():
            figures[f"{name}: {way}"] = figure if isinstance(figure, Figure) else Figure(**figure)
        ratios[name] = Figure(**record["ratios"][POINT])
    return Outcome(
        BASE, figures, ratios, {"model": "a toy: random Llama, made-up songs", "points": len(points)}
    )


@exit_on_user_error
def sweep(
    grid: Annotated[
        list[str], typer.Option(metavar="A.B=C,D", help="A setting and its values; once an axis.")
    ] = list(DEFAULT_GRID),  # noqa: B006 - typer reads it, nobody changes it
    config: Annotated[
        Path | None, typer.Option(help="The run that the points change; a toy without it.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The table, to which points are added.")] = OUTPUT,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps, and a smaller toy.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure again what is in the table with an error.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the records alone, one line each.")] = False,
) -> None:
    """Measure every point of a grid that the table lacks, against the run as it is."""
    console = make_console(error=json_)
    console.quiet = json_
    words = [f"--grid {axis}" for axis in grid] + ([f"--config {config}"] if config else [])
    command = " ".join(["python -m bench sweep", *words, *(["--quick"] if quick else [])])
    records = sweep_grid(
        parse_grid(grid), config, output, console, quick=quick, retry_failed=retry_failed, command=command
    )
    if not json_:
        print_table(records, console)
    for record in records:
        print(to_line(record))


def print_table(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A line a point: its settings, its speed, and how many times as fast as the run as it is."""
    names = list(dict.fromkeys(name for record in records for name in record["facts"] if "." in name))
    table = Table(*names, "examples/s", "times as fast", "p20 to p80", title_justify="left")
    for record in records:
        settings = [str(record["facts"].get(name, "")) for name in names]
        if error := record["facts"].get("error"):
            table.add_row(*settings, "failed", str(error)[:80], "")
            continue
        ratio = record["ratios"][POINT]
        speed = record["figures"][f"{POINT}_examples_per_s"]["median"]
        table.add_row(
            *settings,
            format_float(speed),
            f"{ratio['median']:.3f}",
            f"{ratio['p20']:.3f} to {ratio['p80']:.3f}",
        )
    console.print(table)
