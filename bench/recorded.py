"""Reading records back: files of JSON lines of this format version or an older one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.record import FORMAT_VERSION, Figure
from harness.json_lines import JsonObject, read_json_lines
from preprocess.errors import DataError


@dataclass(frozen=True, slots=True)
class Record:
    """One run of a program.

    Attributes:
        origin: Where it stands, as in "bench/results/loader.jsonl#2".
        format_version: As it was written.
        name: Of the program.
        question: What it answers.
        command: What repeats it.
        commit: Hash, with "+" where tracked files differed; None outside git.
        versions: Of Python and packages.
        machine: See `bench.machine.describe_machine`.
        load_average: Over 1, 5, 15 minutes, at the start.
        load_average_at_end: The same at the end; () in a record of version 1.
        recorded_at: UTC, ISO 8601; "" in a record of version 1.
        baseline: The way that `ratios` compare with.
        figures: Measured quantities.
        ratios: How many times as fast as the baseline.
        facts: Counts and settings.
    """

    origin: str
    format_version: int
    name: str
    question: str
    command: str
    commit: str | None
    versions: Mapping[str, str | None]
    machine: Mapping[str, Any]
    load_average: tuple[float, ...]
    load_average_at_end: tuple[float, ...]
    recorded_at: str
    baseline: str
    figures: Mapping[str, Figure]
    ratios: Mapping[str, Figure]
    facts: Mapping[str, Any]


def read_records(path: Path) -> list[Record]:
    """Every record of a file, in the order in which they were appended.

    Raises:
        DataError: There is no such file, it holds something else, or a record is of a later format version.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a file that `python -m bench NAME --record` wrote.")
    lines = read_json_lines(path)
    return [parse_record(line, f"{path}#{number}") for number, line in enumerate(lines, start=1)]


def parse_record(line: JsonObject, origin: str) -> Record:
    """A record out of its JSON object.

    Version 1 lacks the values of figures, the load at the end and the time.

    Raises:
        DataError: It is no record, or of a later format version.
    """
    version = line.get("format_version")
    if not isinstance(version, int):
        raise DataError(f"{origin}: got no format_version, expected a record of `python -m bench NAME`.")
    if version > FORMAT_VERSION:
        raise DataError(
            f"{origin}: got format version {version}, expected {FORMAT_VERSION} or less. "
            "A later version of this project wrote it; read it with that one."
        )
    try:
        return Record(
            origin=origin,
            format_version=version,
            name=line["name"],
            question=line["question"],
            command=line["command"],
            commit=line["commit"],
            versions=line["versions"],
            machine=line["machine"],
            load_average=tuple(line["load_average"]),
            load_average_at_end=tuple(line.get("load_average_at_end", ())),
            recorded_at=line.get("recorded_at", ""),
            baseline=line["baseline"],
            figures={name: parse_figure(figure) for name, figure in line["figures"].items()},
            ratios={name: parse_figure(figure) for name, figure in line["ratios"].items()},
            facts=line["facts"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{origin}: not a benchmark's record ({type(error).__name__}: {error}).") from error


def parse_figure(fields: JsonObject) -> Figure:
    """A figure; without values where an old record kept none."""
    known = {key: fields[key] for key in ("unit", "median", "p20", "p80", "n")}
    return Figure(**known, values=tuple(fields.get("values", ())))
