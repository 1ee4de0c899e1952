"""Whether a data set is what its manifest says: bytes, rows, masks, trees, prompts, counts, tokenizer, splits.

Every check looks at what is on disk and recomputes; nothing is taken from the code that wrote it but the format.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from preprocess.check.row_checks import Frame, make_frame, row_problems
from preprocess.durable import sha256_of
from preprocess.errors import ConfigError, DataError
from preprocess.forest import PackedRow, check_row, position_ids, segment_starts
from preprocess.manifest import Manifest, ShardInfo, SplitInfo, check_hashes, read_manifest
from preprocess.prompt import find_format
from preprocess.shards import ShardedRows
from preprocess.tokenizer import load_tokenizer

CHECKS = ("tokenizer", "shards", "rows", "counts", "songs", "files")
MAX_FINDINGS_KEPT = 20
"""Findings of one check that are kept in words; further ones are only counted."""

OnRows = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: which check found it, where, and what it is."""

    check: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(slots=True)
class VerifyReport:
    """What was checked and what was found.

    Attributes:
        folder: The data set.
        num_checked: For each check, how many things it looked at (shards, rows, numbers, songs).
        num_found: For each check, how many findings.
        findings: The findings, at most `MAX_FINDINGS_KEPT` of a check.
    """

    folder: str
    num_checked: Counter[str] = field(default_factory=Counter)
    num_found: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.num_found

    def add(self, check: str, place: str, message: str) -> None:
        """Note a finding."""
        self.num_found[check] += 1
        if self.num_found[check] <= MAX_FINDINGS_KEPT:
            self.findings.append(Finding(check, place, message))

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON-able value."""
        checks = {name: {"checked": self.num_checked[name], "found": self.num_found[name]} for name in CHECKS}
        return {
            "folder": self.folder,
            "ok": self.ok,
            "checks": checks,
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass(slots=True)
class SplitCounts:
    """Counts of a split as recomputed from its rows, named as in `SplitInfo`."""

    num_rows: int = 0
    num_examples: int = 0
    num_tokens: int = 0
    num_supervised: int = 0
    unshared_tokens: int = 0
    by_task: Counter[tuple[str, str]] = field(default_factory=Counter)
    songs: set[str] = field(default_factory=set)
    complete: bool = True

    def add(self, row: PackedRow, tasks: tuple[str, ...]) -> None:
        """Count a well-formed row."""
        self.num_rows += 1
        self.num_tokens += len(row.input_ids)
        self.num_supervised += int(np.count_nonzero(row.label_mask))
        self.songs.update(row.song_ids)
        starts = segment_starts(row)
        ends = position_ids(row)[starts + row.seq_lens - 1] + 1  # a path's length is its last position + 1
        supervised = np.add.reduceat(row.label_mask, starts, dtype=np.int64)
        for segment in np.flatnonzero(row.tasks >= 0).tolist():
            task = tasks[row.tasks[segment]]
            self.num_examples += 1
            self.unshared_tokens += int(ends[segment])
            self.by_task[task, "examples"] += 1
            self.by_task[task, "supervised_tokens"] += int(supervised[segment])


def verify_dataset(folder: Path, on_rows: OnRows | None = None) -> VerifyReport:
    """Check a data set and refuse a damaged one.

    Args:
        folder: The data set.
        on_rows: Called with the number of rows just checked, for a progress bar.

    Raises:
        DataError: Something is wrong; the message gives the first findings.
    """
    report = find_damage(folder, on_rows)
    if not report.ok:
        first = "\n".join(f"  {finding}" for finding in report.findings[:5])
        raise DataError(
            f"{folder}: {report.num_found.total()} findings; the data set is not what was built. The first:\n"
            f"{first}\nCopy it again or build it again"
        )
    return report


def find_damage(folder: Path, on_rows: OnRows | None = None) -> VerifyReport:
    """Check a data set and report everything that is wrong.

    Args:
        folder: The data set.
        on_rows: Called with the number of rows just checked, for a progress bar.

    Raises:
        DataError: The folder has no manifest that can be read, so there is nothing to compare with.
    """
    manifest = read_manifest(folder)
    report = VerifyReport(str(folder))
    frame = _check_tokenizer(folder, manifest, report)
    counts = {
        split: _check_split(folder, split, manifest, frame, report, on_rows) for split in manifest.splits
    }
    for split, count in counts.items():
        if count.complete:
            _check_counts(split, count, manifest.splits[split], report)
    _check_songs(counts, report)
    _check_files(folder, manifest, report)
    return report


def _check_tokenizer(folder: Path, manifest: Manifest, report: VerifyReport) -> Frame | None:
    """What prompts begin and end with, or None when prompts cannot be compared."""
    report.num_checked["tokenizer"] += 1
    try:
        tokenizer = load_tokenizer(folder / "tokenizer")
    except ConfigError as error:
        report.add("tokenizer", "tokenizer", str(error))
        return None
    if tokenizer.sha256 != manifest.tokenizer_sha256:
        found, expected = tokenizer.sha256[:12], manifest.tokenizer_sha256[:12]
        report.add("tokenizer", "tokenizer", f"sha256 {found}…, the ids were made with {expected}…")
        return None
    try:
        prompt = find_format(tokenizer, manifest.system)
        found_format = (
            tokenizer.vocab_size,
            prompt.name,
            prompt.stop_token,
            tokenizer.special_id(prompt.stop_token),
        )
    except ConfigError as error:
        report.add("tokenizer", "tokenizer", str(error))
        return None
    wanted = (manifest.vocab_size, manifest.prompt_format, manifest.stop_token, manifest.stop_token_id)
    if found_format != wanted:
        message = f"vocabulary, format, stop token are {found_format}, the manifest says {wanted}"
        report.add("tokenizer", "tokenizer", message)
        return None
    return make_frame(tokenizer, prompt)


def _check_split(
    folder: Path,
    split: str,
    manifest: Manifest,
    frame: Frame | None,
    report: VerifyReport,
    on_rows: OnRows | None,
) -> SplitCounts:
    info, counts = manifest.splits[split], SplitCounts()
    _check_state_file(folder / split, info, report)
    first = 0
    for shard in info.shards:
        rows = _open_whole_shard(folder, split, shard, manifest, report)
        counts.complete &= rows is not None
        for index, row in enumerate(rows or ()):
            problems = list(row_problems(row, manifest, frame))
            for problem in problems:
                report.add("rows", f"{split} row {first + index}", problem)
            if _is_countable(row, manifest):
                counts.add(row, manifest.tasks)
            else:
                counts.complete = False
            report.num_checked["rows"] += 1
            if on_rows is not None:
                on_rows(1)
        first += shard.num_rows
    return counts


def _is_countable(row: PackedRow, manifest: Manifest) -> bool:
    try:
        check_row(row)
    except ValueError:
        return False
    return int(row.tasks.max()) < len(manifest.tasks)


def _check_state_file(folder: Path, info: SplitInfo, report: VerifyReport) -> None:
    """`datasets` reads the files that state.json lists: they must be the manifest's."""
    try:
        files = [f["filename"] for f in json.loads((folder / "state.json").read_text("utf-8"))["_data_files"]]
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


def _check_counts(split: str, counts: SplitCounts, info: SplitInfo, report: VerifyReport) -> None:
    names = ("num_rows", "num_examples", "num_tokens", "num_supervised", "unshared_tokens")
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


def _check_songs(counts: dict[str, SplitCounts], report: VerifyReport) -> None:
    """No song may be in two splits: evaluation would see what was trained on."""
    home: dict[str, str] = {}
    for split, count in counts.items():
        for song_id in sorted(count.songs):
            report.num_checked["songs"] += 1
            if home.setdefault(song_id, split) != split:
                report.add("songs", f"song {song_id}", f"is in split {split} and in split {home[song_id]}")


def _check_files(folder: Path, manifest: Manifest, report: VerifyReport) -> None:
    """The files beside the splits must have the bytes that the manifest names; older manifests name none."""
    listed = manifest.extra.get("files", {})
    if not isinstance(listed, dict):
        report.add("files", "manifest.json", f"lists the side files as {listed!r}, not as names and hashes")
        return
    for name, expected in listed.items():
        report.num_checked["files"] += 1
        path = folder / name
        if not path.is_file():
            report.add("files", name, "missing; the manifest lists it")
        elif sha256_of(path) != expected:
            report.add("files", name, "is not the file that was written (sha256 differs)")


def print_report(report: VerifyReport, console: Console) -> None:
    """Print a table of the checks and a line for each finding."""
    table = Table("check")
    table.add_column("checked", justify="right")
    table.add_column("found", justify="right")
    for name in CHECKS:
        found = report.num_found[name]
        style = "bold red" if found else "green"
        table.add_row(name, f"{report.num_checked[name]:,}", Text(f"{found:,}", style=style))
    console.print(table)
    for finding in report.findings:
        console.print(Text(str(finding), style="red"))
    left_out = report.num_found.total() - len(report.findings)
    if left_out:
        console.print(Text(f"… and {left_out:,} more"))
