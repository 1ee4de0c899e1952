"""Whether a split is what the manifest says: bytes of shards, every row, a sample rendered again, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from preprocess.check.frame import Frame, rendering_problem
from preprocess.check.report import VerifyReport
from preprocess.check.row_checks import row_problems
from preprocess.errors import DataError
from preprocess.forest import PackedRow, check_row, position_ids, segment_starts, unpack_examples
from preprocess.manifest import Manifest, ShardInfo, SplitInfo, check_hashes
from preprocess.outside_text import parse_json
from preprocess.shards import ShardedRows
from preprocess.split_counts import SongSet

OnRows = Callable[[int], None]

NUM_SAMPLE_ROWS = 64
"""Rows of a split, evenly spaced, whose examples are decoded and rendered again."""


@dataclass(slots=True)
class SplitCounts:
    """Counts of a split as recomputed from its rows, named as in `SplitInfo`."""

    num_rows: int = 0
    num_examples: int = 0
    num_tokens: int = 0
    num_supervised: int = 0
    min_row_supervised: int = 0
    max_row_supervised: int = 0
    unshared_tokens: int = 0
    by_task: Counter[tuple[str, str]] = field(default_factory=Counter)
    songs: SongSet = field(default_factory=SongSet)
    complete: bool = True

    def add(self, row: PackedRow, tasks: tuple[str, ...]) -> None:
        """Count a well-formed row."""
        self.num_rows += 1
        self.num_tokens += len(row.input_ids)
        num_supervised = int(np.count_nonzero(row.label_mask))
        self.num_supervised += num_supervised
        self.min_row_supervised = min(num_supervised, self.min_row_supervised or num_supervised)
        self.max_row_supervised = max(num_supervised, self.max_row_supervised)
        self.songs.add(set(row.song_ids))
        starts = segment_starts(row)
        ends = position_ids(row)[starts + row.seq_lens - 1] + 1  # a path's length is its last position + 1
        supervised = np.add.reduceat(row.label_mask, starts, dtype=np.int64)
        for segment in np.flatnonzero(row.tasks >= 0).tolist():
            task = tasks[row.tasks[segment]]
            self.num_examples += 1
            self.unshared_tokens += int(ends[segment])
            self.by_task[task, "examples"] += 1
            self.by_task[task, "supervised_tokens"] += int(supervised[segment])


def check_split(
    folder: Path,
    split: str,
    manifest: Manifest,
    frame: Frame | None,
    report: VerifyReport,
    on_rows: OnRows | None,
) -> SplitCounts:
    """Check the shards and rows of a split.

    Args:
        folder: The data set.
        split: Its name.
        manifest: Of the data set.
        frame: What prompts begin and end with, where they can be compared.
        report: Takes the findings.
        on_rows: Called with the number of rows just checked.

    Returns:
        The counts of its rows; not `complete` where some could not be counted.
    """
    info, counts = manifest.splits[split], SplitCounts()
    _check_state_file(folder / split, info, report)
    every = max(1, info.num_rows // NUM_SAMPLE_ROWS)
    first = 0
    for shard in info.shards:
        rows = _open_whole_shard(folder, split, shard, manifest, report)
        counts.complete &= rows is not None
        for index, row in enumerate(rows or (), first):
            place = f"{split} row {index}"
            is_well_formed = _check_row(row, place, manifest, frame, report)
            if frame is not None and is_well_formed and index % every == 0:
                _check_rendering(row, place, frame, report)
            if _is_countable(row, manifest):
                counts.add(row, manifest.tasks)
            else:
                counts.complete = False
            if on_rows is not None:
                on_rows(1)
        first += shard.num_rows
    return counts


def _check_row(
    row: PackedRow, place: str, manifest: Manifest, frame: Frame | None, report: VerifyReport
) -> bool:
    report.num_checked["rows"] += 1
    problems = list(row_problems(row, manifest, frame))
    for problem in problems:
        report.add("rows", place, problem)
    return not problems


def _check_rendering(row: PackedRow, place: str, frame: Frame, report: VerifyReport) -> None:
    for number, example in enumerate(unpack_examples(row)):
        report.num_checked["sample"] += 1
        problem = rendering_problem(example, frame)
        if problem is not None:
            report.add("sample", f"{place}, example {number} of song {example.song_ids[0]}", problem)


def _is_countable(row: PackedRow, manifest: Manifest) -> bool:
    try:
        check_row(row)
    except ValueError:
        return False
    return int(row.tasks.max()) < len(manifest.tasks)


def _check_state_file(folder: Path, info: SplitInfo, report: VerifyReport) -> None:
    """`datasets` reads the files that state.json lists: they must be the manifest's."""
    try:
        files = [f["filename"] for f in parse_json((folder / "state.json").read_text("utf-8"))["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.add("shards", f"{folder.name}/state.json", f"cannot be read ({error!r})")
        return
    if files != [shard.file for shard in info.shards]:
        report.add("shards", f"{folder.name}/state.json", f"lists {files}, not the manifest's shards")


def _open_whole_shard(
    folder: Path, split: str, shard: ShardInfo, manifest: Manifest, report: VerifyReport
) -> ShardedRows | None:
    """The rows of one shard, or None when its bytes are not the ones that were written.

    Arrow does not check what it maps, so a damaged file is not read at all.
    """
    report.num_checked["shards"] += 1
    one = replace(manifest.splits[split], shards=(shard,))
    try:
        check_hashes(folder, replace(manifest, splits={split: one}))
        return ShardedRows(folder / split, one)
    except DataError as error:
        report.add("shards", f"{split}/{shard.file}", str(error))
        return None


def check_counts(split: str, counts: SplitCounts, info: SplitInfo, report: VerifyReport) -> None:
    """The manifest's counts must be those of the rows."""
    names = (
        "num_rows",
        "num_examples",
        "num_tokens",
        "num_supervised",
        "unshared_tokens",
        "min_row_supervised",
        "max_row_supervised",
    )
    pairs = [(name, getattr(counts, name), getattr(info, name)) for name in names]
    pairs.append(("num_songs", len(counts.songs), info.num_songs))
    listed = Counter({(task, key): n for task, numbers in info.by_task.items() for key, n in numbers.items()})
    for task, key in sorted(counts.by_task.keys() | listed.keys()):
        pairs.append((f"{key} of task {task}", counts.by_task[task, key], listed[task, key]))
    for name, found, expected in pairs:
        report.num_checked["counts"] += 1
        if found != expected:
            report.add(
                "counts", f"{split} {name}", f"the rows give {found:,}, the manifest says {expected:,}"
            )


def open_whole_shards(folder: Path, split: str, manifest: Manifest) -> Iterator[ShardedRows]:
    """The shards of a split whose bytes are the ones that were written, one after another."""
    for shard in manifest.splits[split].shards:
        rows = _open_whole_shard(folder, split, shard, manifest, VerifyReport(str(folder)))
        if rows is not None:
            yield rows
