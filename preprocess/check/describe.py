"""A data set as values: its summary, a row as a tree of decoded segments, the examples of a song or of a task."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from preprocess.check.frame import Frame, make_frame, take_apart
from preprocess.errors import ConfigError, DataError
from preprocess.forest import PackedRow, check_row, position_ids, segment_starts, unpack_examples
from preprocess.manifest import Manifest, SplitInfo, read_manifest
from preprocess.prompt import FormatName, find_format
from preprocess.schema import ROOT
from preprocess.shards import open_split
from preprocess.tokenizer import TextTokenizer, load_tokenizer


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
        "supervised_per_row": {
            "min": split.min_row_supervised,
            "mean": _ratio(split.num_supervised, split.num_rows),
            "max": split.max_row_supervised,
        },
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
    return _describe_row(folder, split, row_index, manifest, _read_frame(folder, manifest))


def _read_frame(folder: Path, manifest: Manifest) -> Frame:
    tokenizer = load_tokenizer(folder / "tokenizer")
    name = cast("FormatName", manifest.prompt_format)
    return make_frame(tokenizer, find_format(tokenizer, manifest.system, name))


def _describe_row(
    folder: Path, split: str, row_index: int, manifest: Manifest, frame: Frame
) -> dict[str, Any]:
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
    return {
        "split": split,
        "row": row_index,
        "num_rows": len(rows),
        "seq_len": manifest.seq_len,
        "num_tokens": len(row.input_ids),
        "num_supervised": int(row.label_mask.sum()),
        "supervised_share": _ratio(int(row.label_mask.sum()), len(row.input_ids)),
        "num_examples": row.num_examples,
        "segments": [_describe_segment(row, i, manifest, frame) for i in range(len(row.seq_lens))],
    }


def _describe_segment(row: PackedRow, segment: int, manifest: Manifest, frame: Frame) -> dict[str, Any]:
    tokenizer = frame.tokenizer
    start = int(segment_starts(row)[segment])
    slots = slice(start, start + int(row.seq_lens[segment]))
    positions, task = position_ids(row)[slots], int(row.tasks[segment])
    supervised = np.flatnonzero(row.label_mask[slots]) + start
    value: dict[str, Any] = {
        "segment": segment,
        "parent": None if row.parents[segment] == ROOT else int(row.parents[segment]),
        "song_id": row.song_ids[segment],
        "task": manifest.tasks[task] if task >= 0 else None,
        "with_lyrics": _has_lyrics(row, segment, frame),
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


def _has_lyrics(row: PackedRow, segment: int, frame: Frame) -> bool:
    """Whether the tree that a segment belongs to begins with lyrics."""
    while row.parents[segment] != ROOT:
        segment = int(row.parents[segment])
    start = int(segment_starts(row)[segment])
    slots = slice(start, start + int(row.seq_lens[segment]))
    text = frame.decode(row.input_ids[slots][~row.label_mask[slots]])
    return text.startswith(frame.opening) and frame.prompt.after_lyrics in text


def _runs(row: PackedRow, slots: slice, tokenizer: TextTokenizer) -> list[dict[str, Any]]:
    """The segment's text in stretches that are alike: supervised or not, one special token or ordinary text."""
    added = tokenizer.backend.get_added_tokens_decoder()
    ids, mask = row.input_ids[slots], row.label_mask[slots]
    is_special = np.isin(ids, [token_id for token_id, token in added.items() if token.special])
    changes = (mask[1:] != mask[:-1]) | is_special[1:] | is_special[:-1]
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(ids)]
    return [
        {
            "text": tokenizer.decode(ids[start:end].tolist()),
            "supervised": bool(mask[start]),
            "special": bool(is_special[start]),
        }
        for start, end in pairwise(edges)
    ]


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
    frame = _read_frame(folder, manifest)
    rows = [_describe_row(folder, split, index, manifest, frame) for split, index in places]
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


def describe_task(folder: Path, split: str, task: str, limit: int = 10) -> dict[str, Any]:
    """The first examples of a task.

    Args:
        folder: The data set.
        split: Name of the split.
        task: Name of the task.
        limit: At most so many.

    Returns:
        `split`, `task`, the manifest's counts of it, and `examples`: song, row, question, answer, whether the question
        follows lyrics, number of supervised tokens.

    Raises:
        ConfigError: There is no such task.
        DataError: There is no such data set or split, or a shard is damaged.
    """
    manifest = read_manifest(folder)
    if task not in manifest.tasks:
        raise ConfigError(f"task {task!r}: the tasks of {folder} are {', '.join(manifest.tasks)}")
    found = _list_examples(folder, split, manifest.tasks.index(task), manifest)
    counts = manifest.splits[split].by_task if split in manifest.splits else {}
    return {"split": split, "task": task, **counts.get(task, {}), "listed": list(islice(found, limit))}


def _list_examples(folder: Path, split: str, task: int, manifest: Manifest) -> Iterator[dict[str, Any]]:
    frame = _read_frame(folder, manifest)
    for index, row in enumerate(open_split(folder, split, manifest)):
        if task not in row.tasks:
            continue
        for example in unpack_examples(row):
            if example.tasks[0] != task:
                continue
            mask = example.label_mask
            lyrics, question = take_apart(frame.decode(example.input_ids[~mask]), frame)
            yield {
                "song_id": example.song_ids[0],
                "row": index,
                "with_lyrics": lyrics is not None,
                "question": question,
                "answer": frame.decode(example.input_ids[mask][:-1]),
                "num_supervised": int(np.count_nonzero(mask)),
            }
