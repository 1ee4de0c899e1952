"""What A and B of `bench compare` name: a line of a record file, a program, a commit, or a run folder."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.compare.records import compare_records, compare_ways
from bench.compare.runs import METRICS_FILE, compare_runs, read_run_steps
from bench.compare.several import compare_several
from bench.compare.verdict import MIN_CHANGE, Comparison
from bench.machine import ROOT
from bench.recorded import Record, read_records
from preprocess.errors import ConfigError

RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Line:
    """A record, and the way in it that is meant, if one is."""

    record: Record
    way: str | None


def compare_sides(
    a: str, b: str, min_change: float = MIN_CHANGE, results: Path = RESULTS
) -> list[Comparison]:
    """Compare what two words name.

    Args:
        a: A record file, FILE#n (from 1; from the end if negative), FILE#n:WAY, a program of `results` instead of a
            file, a commit, a run folder, or several with commas between them.
        b: The same; what A is compared with.
        min_change: The least change that matters, 0.02 is 2 %.
        results: Folder of record files.

    Returns:
        One comparison; of commits one for each program that was recorded at both.

    Raises:
        ConfigError: They name nothing, or what cannot be compared.
        DataError: A file is damaged.
    """
    if not min_change >= 0:
        raise ConfigError(f"--min-change: got {min_change:.3%}, expected 0 or more")
    kinds = [find_kind(word, results) for word in (a, b)]
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"{a} is a {kinds[0]}, {b} is a {kinds[1]}: their figures are not the same. Give two of one kind."
        )
    if kinds[0] == "run folder":
        runs = [[read_run_steps(folder) for folder in list_folders(word)] for word in (a, b)]
        if len(runs[0]) == len(runs[1]) == 1:
            return [compare_runs(runs[0][0], runs[1][0], min_change)]
        return [compare_several(runs[0], runs[1], min_change)]
    if kinds[0] == "record":
        return [compare_lines(read_line(a, results), read_line(b, results), min_change)]
    return compare_commits(a, b, min_change, results)


def find_kind(word: str, results: Path) -> str:
    """What kind of thing a word names.

    Raises:
        ConfigError: It names nothing.
    """
    folders = list_folders(word)
    if all(folder.is_dir() for folder in folders):
        for folder in folders:
            if not (folder / METRICS_FILE).is_file():
                raise ConfigError(
                    f"{folder}: a folder without {METRICS_FILE}, so no run. Give a run's output_dir."
                )
        return "run folder"
    if find_file(word, results).is_file():
        return "record"
    if resolve_commit(word) is not None:
        return "commit"
    raise ConfigError(
        f"{word}: no record file, no program of {results}, no run folder, no commit. Give FILE, FILE#n, a program's "
        f"name ({', '.join(sorted(path.stem for path in results.glob('*.jsonl'))) or 'none recorded'}), a commit, or "
        "the output_dir of a run."
    )


def list_folders(word: str) -> list[Path]:
    """The folders that a word names, several with commas between them."""
    return [Path(word)] if Path(word).is_dir() else [Path(part) for part in word.split(",")]


def split_word(word: str) -> tuple[str, int, str | None]:
    """File, line (-1 is the last) and way of FILE#n:WAY."""
    found = re.fullmatch(r"(.*?)(?:#(-?\d+))?(?::([^/\\]+))?", word)
    assert found is not None, "every text matches"
    return found[1], int(found[2] or -1), found[3]


def find_file(word: str, results: Path) -> Path:
    """The file that a word means: itself, or the records of the program of that name."""
    name = split_word(word)[0]
    return Path(name) if "/" in name or name.endswith(".jsonl") else results / f"{name}.jsonl"


def read_line(word: str, results: Path) -> Line:
    """The record that a word means.

    Raises:
        ConfigError: The file has no such line.
    """
    _, number, way = split_word(word)
    path = find_file(word, results)
    records = read_records(path)
    index = number - 1 if number > 0 else number + len(records)
    if number == 0 or not 0 <= index < len(records):
        raise ConfigError(
            f"{word}: no record {number} there; {path} has {len(records)}, counted from 1, or from the end as -1."
        )
    return Line(records[index], way)


def compare_lines(a: Line, b: Line, min_change: float) -> Comparison:
    """Two records; or two ways, where both words name one.

    Raises:
        ConfigError: One alone names a way, or the ways are of two records.
    """
    if a.way is None and b.way is None:
        return compare_records(a.record, b.record, min_change)
    if a.way is None or b.way is None or a.record.origin != b.record.origin:
        raise ConfigError(
            f"{a.record.origin}, {b.record.origin}: two ways (FILE#n:WAY) are compared within one record, whose turns "
            "pair them. Name a way on both sides, of the same line, or on none."
        )
    return compare_ways(a.record, a.way, b.way, min_change)


def resolve_commit(word: str) -> str | None:
    """The hash of a commit, branch or tag; None where git knows no such one."""
    if word.startswith("-"):
        return None
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{word}^{{commit}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def compare_commits(a: str, b: str, min_change: float, results: Path) -> list[Comparison]:
    """Each program that has a record at both commits: the last of each.

    Raises:
        ConfigError: No program has.
    """
    hashes = [resolve_commit(word) or word for word in (a, b)]
    found: list[Comparison] = []
    recorded: list[set[str]] = [set(), set()]
    for path in sorted(results.glob("*.jsonl")):
        records = read_records(path)
        last = [
            next(
                (record for record in reversed(records) if (record.commit or "").rstrip("+") == commit), None
            )
            for commit in hashes
        ]
        for names, record in zip(recorded, last, strict=True):
            names |= {record.name} if record else set()
        if last[0] is not None and last[1] is not None:
            found.append(compare_records(last[0], last[1], min_change))
    if not found:
        sides = "; ".join(
            f"{word} ({commit[:9]}): {', '.join(sorted(names)) or 'none'}"
            for word, commit, names in zip((a, b), hashes, recorded, strict=True)
        )
        raise ConfigError(
            f"no program has a record at both commits. Recorded at {sides}. Check a commit out and run "
            "`python -m bench NAME --record` there."
        )
    return found
