"""Looking at a data set on a console: its summary, a row as a tree, the examples of a song or of a task.

Each view comes twice, as a value (`describe_…`, what `--json` prints) and drawn (`print_…`). Lyrics are somebody
else's text: they are never read as markup, and control characters are shown, not sent to the terminal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from preprocess.check.describe import describe_dataset, describe_example, describe_row, describe_task
from preprocess.outside_text import visible

__all__ = [
    "describe_dataset",
    "describe_example",
    "describe_row",
    "describe_task",
    "print_dataset",
    "print_example",
    "print_row",
    "print_task",
]


def print_dataset(folder: Path, console: Console) -> None:
    """Print the summary of `describe_dataset` as two tables, splits and tasks."""
    value = describe_dataset(folder)
    console.print(
        Text(
            f"{folder}: rows of {value['seq_len']} slots, {value['prompt_format']} format, answers end in "
            f"{value['stop_token']} ({value['stop_token_id']}), tokenizer {value['tokenizer']} "
            f"with {value['vocab_size']:,} ids"
        )
    )
    console.print(_split_table(value["splits"]))
    console.print(_task_table(value["splits"]))


def _split_table(splits: dict[str, dict[str, Any]]) -> Table:
    table = Table("split")
    for column in (
        "rows",
        "songs",
        "examples",
        "tokens",
        "supervised",
        "a row (least to most)",
        "fill of slots",
    ):
        table.add_column(column, justify="right")
    for column in ("tokens/example", "without sharing", "factor"):
        table.add_column(column, justify="right")
    for name, split in splits.items():
        counts = [f"{split[key]:,}" for key in ("num_rows", "num_songs", "num_examples", "num_tokens")]
        row = split["supervised_per_row"]
        spread = f"{_format(row['mean'], '.0f')} ({row['min']:,} to {row['max']:,})"
        lengths = [
            _format(split[key], ".1f") for key in ("tokens_per_example", "unshared_tokens_per_example")
        ]
        table.add_row(
            Text(name),
            *counts,
            _format(split["supervised_share"], ".1%"),
            spread,
            _format(split["fill"], ".2%"),
            *lengths,
            _format(split["sharing_factor"], ".2f"),
        )
    return table


def _format(value: float | None, spec: str) -> str:
    return "—" if value is None else format(value, spec)


def _task_table(splits: dict[str, dict[str, Any]]) -> Table:
    table = Table("split", "task")
    for column in ("examples", "supervised tokens", "share", "supervised/example"):
        table.add_column(column, justify="right")
    for name, split in splits.items():
        for task, counts in split["by_task"].items():
            tokens = counts["supervised_tokens"]
            share = tokens / split["num_supervised"] if split["num_supervised"] else None
            mean = tokens / counts["examples"] if counts["examples"] else None
            numbers = [f"{counts['examples']:,}", f"{tokens:,}", _format(share, ".1%"), _format(mean, ".1f")]
            table.add_row(Text(name), Text(task), *numbers)
    return table


def print_task(folder: Path, split: str, task: str, console: Console, limit: int = 10) -> None:
    """Print the first examples of a task: song, question, answer.

    Raises:
        ConfigError: There is no such task.
        DataError: There is no such data set or split, or a shard is damaged.
    """
    for example in describe_task(folder, split, task, limit)["listed"]:
        place = f"{split} row {example['row']} · {visible(example['song_id'])}"
        without = "" if example["with_lyrics"] else " · without lyrics"
        console.print(Text(f"{place}{without} · {example['num_supervised']} supervised", style="cyan"))
        console.print(Text(visible(example["question"]), style="dim"))
        console.print(Text(visible(example["answer"]), style="bold green"))


def print_row(folder: Path, split: str, row_index: int, console: Console) -> None:
    """Print a row as a tree: prompts grey, supervised text green, special tokens visible.

    Raises:
        ConfigError: There is no such row.
        DataError: There is no such data set or split, or a shard is damaged.
    """
    console.print(_draw_row(describe_row(folder, split, row_index), console))


def print_example(folder: Path, song_id_or_example: str, console: Console) -> None:
    """Print the segments of a song, or of one of its examples (`ID/TASK`), row by row.

    Raises:
        DataError: No split has such a song, or the song no such example.
    """
    for row in describe_example(folder, song_id_or_example)["rows"]:
        console.print(_draw_row(row, console))


def _draw_row(row: dict[str, Any], console: Console) -> Tree:
    marked = not console.is_terminal or console.no_color  # without colours, brackets show what is supervised
    fill = row["num_tokens"] / row["seq_len"]
    tree = Tree(
        Text(
            f"{row['split']} row {row['row']} of {row['num_rows']}: {row['num_tokens']} tokens, {fill:.1%} of "
            f"{row['seq_len']} slots, {row['num_examples']} examples, {row['num_supervised']} supervised tokens "
            f"({_format(row['supervised_share'], '.1%')})",
            style="bold",
        )
    )
    nodes: dict[int | None, Tree] = {None: tree}
    for segment in row["segments"]:
        nodes[segment["segment"]] = nodes.get(segment["parent"], tree).add(
            _draw_segment(segment, marked=marked)
        )
    return tree


def _draw_segment(segment: dict[str, Any], *, marked: bool) -> Text:
    text = Text()
    without = "" if segment["with_lyrics"] else " (without lyrics)"
    text.append(
        f"[{segment['segment']}] {segment['task'] or 'prefix'}{without} · {visible(segment['song_id'])} · "
        f"{segment['num_tokens']} tokens, positions {segment['first_position']}..{segment['last_position']}, "
        f"{segment['num_supervised']} supervised\n",
        style="cyan",
    )
    opened = False
    for run in segment["runs"]:
        if marked and run["supervised"] != opened:
            text.append("⟧" if opened else "⟦")
        opened = run["supervised"]
        style = "bold green" if opened else "dim"
        text.append(visible(run["text"]), style=f"{style} reverse" if run["special"] else style)
    if marked and opened:
        text.append("⟧")
    if segment["num_supervised"]:
        text.append(_line_of_ends(segment))
    return text


def _line_of_ends(segment: dict[str, Any]) -> Text:
    first, last = segment["first_supervised"], segment["last_supervised"]
    line = Text(
        f"\nsupervised from {first['id']} {first['text']!r} to {last['id']} {last['text']!r}: ", style="cyan"
    )
    if segment["ends_in_stop_token"]:
        return line.append("ends in the stop token")
    return line.append("DOES NOT END IN THE STOP TOKEN", style="bold red")
