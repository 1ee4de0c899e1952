"""What an evaluation leaves: evaluation.json, a line a result, and a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.evaluation.figures import count_artists, describe_task
from harness.evaluation.marks import hold_against_marks
from harness.evaluation.material import Material, limit_answers
from harness.evaluation.questions import Question
from harness.evaluation.rates import describe_overlap, describe_truth
from harness.evaluation.reference import Guess
from harness.evaluation.results import Result
from harness.evaluation.settings import EvaluationSettings
from harness.evaluation.truth import Knowledge
from harness.hashes import collect_hashes
from harness.json_lines import encode_line
from harness.lora import ADAPTER_WEIGHTS
from preprocess.durable import make_folder, sha256_of, write_text_durably

FORMAT_VERSION = 2
EVALUATION_FILE = "evaluation.json"
SAMPLES_FILE = "evaluation_samples.jsonl"
"""Both for the eval split; the files of another one carry its name besides."""


@dataclass(frozen=True, slots=True)
class Record:
    """An evaluation of one split.

    Attributes:
        summary: The content of `evaluation.json`.
        results: Every single result.
        material: What was asked.
        shots: Task → the examples that the few-shot system was shown; without the tasks that it was not asked.
    """

    summary: dict[str, Any]
    results: list[Result]
    material: Material
    shots: Mapping[str, Sequence[Question]]


def make_record(
    settings: EvaluationSettings,
    split: str,
    material: Material,
    knowledge: Knowledge,
    results: list[Result],
    guesses: Sequence[Guess],
    times: Sequence[dict[str, Any]],
    shots: Mapping[str, Sequence[Question]],
) -> Record:
    """Put the figures together.

    Args:
        settings: What was done.
        split: Of which songs.
        material: What was asked.
        knowledge: Of the training songs.
        results: Of all ranks, in order.
        guesses: The baselines'.
        times: Seconds of the parts, by rank.
        shots: Examples in front of questions, by task.
    """
    artists = material.labels.get("artist")
    frequency = count_artists(knowledge) if artists is None else artists.train_counts
    answered = {result.task for result in results}
    tasks = {
        task: describe_task(task, material, results, guesses, frequency, settings.seed)
        for task in material.held_out.manifest.tasks
        if task in answered
    }
    seconds = max(sum(part.values()) for part in times)
    summary = {
        "format_version": FORMAT_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": settings.model.path,
        "adapter": None if settings.adapter is None else str(settings.adapter),
        "split": split,
        "num_songs": len(material.song_ids),
        "seconds": seconds,
        "num_ranks": len(times),
        "few_shot": settings.few_shot,
        "num_shots": {task: len(shown) for task, shown in shots.items()},
        "seed": settings.seed,
        "hashes": find_hashes(settings, material),
        "leakage": material.audit.to_json(),
        "tasks": tasks,
        "truth": describe_truth(results, settings.seed),
        "overlap": describe_overlap(results),
        "marks": hold_against_marks(tasks, "before" if settings.adapter is None else "after"),
        "generation": {
            **describe_speed(results, times),
            "max_new_tokens": limit_answers(settings, material),
            "unfinished": describe_unfinished(results),
        },
    }
    return Record(summary, results, material, shots)


def find_hashes(settings: EvaluationSettings, material: Material) -> dict[str, str]:
    """SHA-256 sums of the code, the data and the adapter."""
    found = {k: v for k, v in collect_hashes(material.held_out.manifest).items() if isinstance(v, str)}
    weights = None if settings.adapter is None else settings.adapter / ADAPTER_WEIGHTS
    return found | ({} if weights is None or not weights.is_file() else {"adapter": sha256_of(weights)})


def describe_speed(results: Sequence[Result], times: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How fast answers were written, over all ranks and systems; None where nothing was."""
    written = [result for result in results if result.method == "generate"]
    seconds = max(part["generate"] for part in times)
    tokens = sum(result.num_tokens for result in written)
    return {
        "questions": len(written),
        "tokens": tokens,
        "seconds": seconds,
        "questions_per_s": len(written) / seconds if written else None,
        "tokens_per_s": tokens / seconds if written else None,
    }


def describe_unfinished(results: Iterable[Result]) -> dict[str, dict[str, float]]:
    """The share of each task's written answers that did not end by themselves, by system."""
    ends: dict[str, dict[str, list[bool]]] = {}
    for result in results:
        if result.method == "generate":
            ends.setdefault(result.system, {}).setdefault(result.task, []).append(result.is_finished)
    return {
        system: {task: found.count(False) / len(found) for task, found in tasks.items()}
        for system, tasks in ends.items()
    }


def write_record(folder: Path, record: Record) -> None:
    """Write the summary and a line for each result into a folder, made if it is missing.

    Those of another split than "eval" go into evaluation_<split>.json and evaluation_samples_<split>.jsonl.

    Raises:
        DataError: The folder cannot be written to.
        NoSpaceError: The disk is full.
    """
    make_folder(folder)
    split = record.summary["split"]
    lines = "".join(encode_line(result.to_sample()) for result in record.results)
    write_text_durably(folder / name_of(SAMPLES_FILE, split), lines)
    text = json.dumps(record.summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_durably(folder / name_of(EVALUATION_FILE, split), text + "\n")


def name_of(file: str, split: str) -> str:
    """A file's name for a split."""
    path = Path(file)
    return file if split == "eval" else f"{path.stem}_{split}{path.suffix}"


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Tables of the tasks and of what was made up, and what the reader must know to read them.

    Args:
        summary: The content of `evaluation.json`.
        console: Where to.
    """
    who = "held-out songs" if summary["split"] == "eval" else "songs by artists that training never saw"
    console.print(_table_of_metrics(summary, f"{summary['num_songs']:,} {who}"))
    for task, found in summary["tasks"].items():
        for count, what in (
            (found.get("unseen", 0), "a name that training never saw"),
            (found.get("not_asked", 0), "no question"),
        ):
            if count:
                _say(console, f"{task}: {count:,} more songs with {what}, not counted")
        taught = [
            f"{row['metric']} {row['value']:.1%}" for row in found["metrics"] if row["system"] == "expected"
        ]
        if taught:
            _say(console, f"{task}: the taught answers themselves reach {', '.join(taught)}")
    for system, found in summary["truth"].items():
        if found["hallucination_rate"] is not None:
            _say(
                console,
                f"{system}: of {found['supported'] + found['contradicted']:,} checkable claims "
                f"{found['hallucination_rate']:.1%} [{100 * found['low']:.1f}, {100 * found['high']:.1f}] are "
                f"contradicted; {found['not_checkable']:,} cannot be checked",
            )
    for system, found in summary["overlap"].items():
        _say(console, f"{system}: longest run of words as in a training song: {found['longest_words']}")
    for system, unfinished in summary["generation"]["unfinished"].items():
        cut = [f"{task} {share:.0%}" for task, share in unfinished.items() if share]
        if cut:
            limit = summary["generation"]["max_new_tokens"]
            _say(console, f"{system}: answers that were cut at {limit:,} tokens: {', '.join(cut)}")
    for mark in summary["marks"]:
        if mark["value"] is not None:
            reached = "reached" if mark["reached"] else "not reached"
            _say(
                console, f"mark {mark['mark']}: {mark['value']:.1%} of {mark['wanted']:.0%} wanted, {reached}"
            )
    _say(console, "In percent, above their 95 % intervals (songs drawn anew). " + _spell_speed(summary))


SHOWN = ("chance", "majority", "tfidf", "before", "few_shot", "after")
"""Columns of the table, those that there are."""

APART = frozenset({"refused", "empty"})
"""Metrics that are shown only where they are not 0 throughout."""


def _table_of_metrics(summary: dict[str, Any], title: str) -> Table:
    rows = [(task, row) for task, found in summary["tasks"].items() for row in found["metrics"]]
    systems = [system for system in SHOWN if any(row["system"] == system for _, row in rows)]
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for column in ("task", "metric", "method", "songs", *systems):
        table.add_column(
            column, justify="left" if column in ("task", "metric", "method") else "right", no_wrap=True
        )
    for (task, metric, method), cells in _lines(rows).items():
        if metric not in APART or any(row["value"] for row in cells.values()):
            asked = [row["n"] for row in cells.values() if row["method"] == method]
            num_songs = max(asked or [row["n"] for row in cells.values()])
            spelt = [_spell(cells.get(system), num_songs) for system in systems]
            table.add_row(*map(Text, (task, metric, method, f"{num_songs:,}", *spelt)))
    return table


def _lines(
    rows: Sequence[tuple[str, dict[str, Any]]],
) -> dict[tuple[str, str, str], dict[str, dict[str, Any]]]:
    """System to figures, by task, metric and method; what needs no model stands in the first line of its metric."""
    lines: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for task, row in rows:
        if row["method"] != "baseline":
            lines.setdefault((task, row["metric"], row["method"]), {})[row["system"]] = row
    for task, row in rows:
        if row["method"] == "baseline":
            place = next(
                (key for key in lines if key[:2] == (task, row["metric"])), (task, row["metric"], "")
            )
            lines.setdefault(place, {})[row["system"]] = row
    return lines


def _spell(row: dict[str, Any] | None, num_songs: int) -> str:
    """As in "41.5" over "38-45", in percent; with its own number of songs where the line's is another one."""
    if row is None:
        return "-"
    if row["system"] == "chance":
        return f"{100 * row['value']:.1f}"
    others = "" if row["n"] == num_songs else f"\nof {row['n']:,}"
    return f"{100 * row['value']:.1f}\n{100 * row['low']:.0f}-{100 * row['high']:.0f}{others}"


def _spell_speed(summary: dict[str, Any]) -> str:
    speed = summary["generation"]
    written = f" {speed['questions_per_s']:.2f} answers/s." if speed["questions"] else ""
    return f"{summary['seconds']:.1f} s of asking and judging.{written}"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
