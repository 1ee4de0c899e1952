"""Looking at a data set: its summary, a row as a tree of decoded segments, the examples of one song.

Each view comes twice, as a value (`describe_…`, what `--json` prints) and on a console (`print_…`). Lyrics are
somebody else's text: they are never read as markup, and control characters are shown, not sent to the terminal.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from preprocess.errors import ConfigError, DataError
from preprocess.forest import PackedRow, check_row, position_ids, segment_starts
from preprocess.manifest import Manifest, SplitInfo, read_manifest
from preprocess.schema import ROOT, Int32Array
from preprocess.shards import open_split
from preprocess.tokenizer import TextTokenizer, load_tokenizer

CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
"""A visible stand-in for each control character (Unicode's control pictures)."""


def describe_dataset(folder: Path) -> dict[str, Any]:
    """The manifest's counts and the ratios that follow from them.

    Returns:
        A JSON-able value. Shares and fills lie in 0 … 1.

    Raises:
        DataError: The folder is no finished data set.
    """
    manifest = read_manifest(folder)
    return {
        "folder": str(folder),
        "seq_len": manifest.seq_len,
        "prompt_format": manifest.prompt_format,
        "system": manifest.system,
        "stop_token": manifest.stop_token,
        "stop_token_id": manifest.stop_token_id,
        "tokenizer": manifest.tokenizer_source,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "vocab_size": manifest.vocab_size,
        "tasks": list(manifest.tasks),
        "splits": {name: _describe_split(split, manifest.seq_len) for name, split in manifest.splits.items()},
    }


def _describe_split(split: SplitInfo, seq_len: int) -> dict[str, Any]:
    return {
        "num_rows": split.num_rows,
        "num_songs": split.num_songs,
        "num_examples": split.num_examples,
        "num_tokens": split.num_tokens,
        "num_supervised": split.num_supervised,
        "supervised_share": _ratio(split.num_supervised, split.num_tokens),
        "fill": _ratio(split.num_tokens, split.num_rows * seq_len),
        "tokens_per_example": _ratio(split.num_tokens, split.num_examples),
        "unshared_tokens_per_example": _ratio(split.unshared_tokens, split.num_examples),
        "sharing_factor": _ratio(split.unshared_tokens, split.num_tokens),
        "by_task": split.by_task,
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def describe_row(folder: Path, split: str, row_index: int) -> dict[str, Any]:
    """One row, decoded.

    Args:
        folder: The data set.
        split: Name of the split.
        row_index: 0 … number of rows - 1.

    Returns:
        A JSON-able value. Each segment has its song, task, parent, numbers of tokens and supervised tokens, first
        and last position, its text in `runs` of one kind, and for an example the first and last supervised token
        and whether the answer ends in the stop token.

    Raises:
        ConfigError: There is no such row.
        DataError: There is no such data set or split, a shard is damaged, or the row is no forest.
    """
    manifest = read_manifest(folder)
    rows = open_split(folder, split, manifest)
    if not 0 <= row_index < len(rows):
        raise ConfigError(f"row {row_index}: split {split!r} of {folder} has rows 0 … {len(rows) - 1}")
    row = rows[row_index]
    try:
        check_row(row)
    except ValueError as error:
        raise DataError(
            f"{folder}: row {row_index} of split {split!r} is malformed ({error}); build the data set again"
        ) from error
    tokenizer = load_tokenizer(folder / "tokenizer")
    return {
        "split": split,
        "row": row_index,
        "num_rows": len(rows),
        "seq_len": manifest.seq_len,
        "num_tokens": len(row.input_ids),
        "num_supervised": int(row.label_mask.sum()),
        "num_examples": row.num_examples,
        "segments": [_describe_segment(row, i, manifest, tokenizer) for i in range(len(row.seq_lens))],
    }


def _describe_segment(
    row: PackedRow, segment: int, manifest: Manifest, tokenizer: TextTokenizer
) -> dict[str, Any]:
    start = int(segment_starts(row)[segment])
    slots = slice(start, start + int(row.seq_lens[segment]))
    positions, task = position_ids(row)[slots], int(row.tasks[segment])
    supervised = np.flatnonzero(row.label_mask[slots]) + start
    value: dict[str, Any] = {
        "segment": segment,
        "parent": None if row.parents[segment] == ROOT else int(row.parents[segment]),
        "song_id": row.song_ids[segment],
        "task": manifest.tasks[task] if task >= 0 else None,
        "num_tokens": int(row.seq_lens[segment]),
        "first_position": int(positions[0]),
        "last_position": int(positions[-1]),
        "num_supervised": len(supervised),
        "runs": _runs(row, slots, tokenizer),
    }
    if len(supervised):
        first, last = int(row.input_ids[supervised[0]]), int(row.input_ids[supervised[-1]])
        value["first_supervised"] = {"id": first, "text": tokenizer.decode([first])}
        value["last_supervised"] = {"id": last, "text": tokenizer.decode([last])}
        value["ends_in_stop_token"] = bool(row.label_mask[slots][-1]) and last == manifest.stop_token_id
    return value


def _runs(row: PackedRow, slots: slice, tokenizer: TextTokenizer) -> list[dict[str, Any]]:
    """The segment's text in stretches that are alike: supervised or not, one special token or ordinary text."""
    added = tokenizer.backend.get_added_tokens_decoder()
    ids, mask = row.input_ids[slots], row.label_mask[slots]
    is_special = np.isin(ids, [token_id for token_id, token in added.items() if token.special])
    changes = (mask[1:] != mask[:-1]) | is_special[1:] | is_special[:-1]
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(ids)]
    return [
        {
            "text": _decode(tokenizer, ids[start:end]),
            "supervised": bool(mask[start]),
            "special": bool(is_special[start]),
        }
        for start, end in pairwise(edges)
    ]


def _decode(tokenizer: TextTokenizer, ids: Int32Array) -> str:
    return tokenizer.decode(ids.tolist())


def describe_example(folder: Path, song_id_or_example: str) -> dict[str, Any]:
    """The segments of one song, or of one of its examples.

    Args:
        folder: The data set.
        song_id_or_example: A song's id, or `ID/TASK` for one example of it.

    Returns:
        `song_id`, `task` (or None) and `rows`: each row that holds it as in `describe_row`, with the other songs'
        segments left out.

    Raises:
        DataError: No split has such a song, or the song no such example.
    """
    manifest = read_manifest(folder)
    song_id, task = song_id_or_example, None
    places = _find_song(folder, manifest, song_id)
    if not places and "/" in song_id:
        song_id, _, task = song_id.rpartition("/")
        places = _find_song(folder, manifest, song_id)
    rows = [describe_row(folder, split, index) for split, index in places]
    for row in rows:
        row["segments"] = [s for s in row["segments"] if s["song_id"] == song_id]
        if task is not None:
            row["segments"] = _paths_to(row["segments"], task)
    rows = [row for row in rows if row["segments"]]
    if not rows:
        raise DataError(
            f"{folder}: found no example {song_id_or_example!r}; expected a song's id or ID/TASK with a task of "
            f"{', '.join(manifest.tasks)}. Rows and their songs: python -m preprocess inspect {folder} --row 0"
        )
    return {"song_id": song_id, "task": task, "rows": rows}


def _find_song(folder: Path, manifest: Manifest, song_id: str) -> list[tuple[str, int]]:
    return [
        (split, index)
        for split in manifest.splits
        for index in open_split(folder, split, manifest).rows_of_song(song_id)
    ]


def _paths_to(segments: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """The segments of a task, and those that they continue."""
    by_index = {segment["segment"]: segment for segment in segments}
    wanted: set[int] = set()
    for segment in segments:
        index = segment["segment"] if segment["task"] == task else None
        while index is not None:
            wanted.add(index)
            index = by_index[index]["parent"] if index in by_index else None
    return [segment for segment in segments if segment["segment"] in wanted]


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
    for column in ("rows", "songs", "examples", "tokens", "supervised", "fill of slots", "tokens/example"):
        table.add_column(column, justify="right")
    table.add_column("without sharing", justify="right")
    for name, split in splits.items():
        counts = [f"{split[key]:,}" for key in ("num_rows", "num_songs", "num_examples", "num_tokens")]
        shares = [_format(split[key], ".1%") for key in ("supervised_share", "fill")]
        lengths = [
            _format(split[key], ".1f") for key in ("tokens_per_example", "unshared_tokens_per_example")
        ]
        table.add_row(Text(name), *counts, *shares, *lengths)
    return table


def _format(value: float | None, spec: str) -> str:
    return "—" if value is None else format(value, spec)


def _task_table(splits: dict[str, dict[str, Any]]) -> Table:
    table = Table("split", "task")
    for column in ("examples", "supervised tokens", "supervised/example"):
        table.add_column(column, justify="right")
    for name, split in splits.items():
        for task, counts in split["by_task"].items():
            mean = _format(_ratio(counts["supervised_tokens"], counts["examples"]), ".1f")
            table.add_row(
                Text(name), Text(task), f"{counts['examples']:,}", f"{counts['supervised_tokens']:,}", mean
            )
    return table


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
            f"{row['seq_len']} slots, {row['num_examples']} examples, {row['num_supervised']} supervised tokens",
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
    text.append(
        f"[{segment['segment']}] {segment['task'] or 'prefix'} · {_show(segment['song_id'])} · "
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
        text.append(_show(run["text"]), style=f"{style} reverse" if run["special"] else style)
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


def _show(text: str) -> str:
    return text.translate(CONTROL_PICTURES)
