"""The first stage: rows become cleaned, judged, counted songs on disk, chunk by chunk, in as many processes as asked.

What a chunk's file holds depends on the chunk alone, so a chunk whose file is there already is passed over.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

from rich.console import Console

from preprocess.build.progress import show_progress
from preprocess.build.spool import Chunk, Spool, open_chunk, write_chunk
from preprocess.build.workers import Workers
from preprocess.choose.columns import SongColumns
from preprocess.choose.describe import NUMBERS, concatenate, describe_songs
from preprocess.clean.song import CleanSettings, clean_song
from preprocess.durable import write_text_durably
from preprocess.errors import DataError
from preprocess.outside_text import parse_json
from preprocess.quality.counts import QualityCounts
from preprocess.read.metadata import MetadataIndex
from preprocess.read.songs import (
    ReadOptions,
    Rejection,
    RowChunk,
    Source,
    check_outcome,
    read_chunks,
    songs_of_chunk,
)
from preprocess.schema import Song, Traits

ROWS_PER_CHUNK = 1000

FILLED_FACTS = ("artist", "title", "genre", "year", "album")
"""Facts that a metadata file may fill in."""
_INDEX = "chunks.json"


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What workers need to know.

    Attributes:
        read: What columns and genres mean.
        clean: How songs are cleaned and judged.
        metadata: Folder of the metadata index, or None.
        max_rejected: Rejected rows kept of one chunk.
    """

    read: ReadOptions
    clean: CleanSettings
    metadata: Path | None
    max_rejected: int


@dataclass(frozen=True, slots=True)
class _Scanner:
    options: ScanOptions
    metadata: MetadataIndex | None


def _make_scanner(options: ScanOptions) -> _Scanner:
    return _Scanner(options, None if options.metadata is None else MetadataIndex.open(options.metadata))


@dataclass(frozen=True, slots=True)
class _Task:
    chunk: RowChunk
    path: Path


def scan_songs(
    sources: Sequence[Source], options: ScanOptions, folder: Path, workers: Workers, console: Console
) -> Spool:
    """Scan all sources into a folder.

    Args:
        sources: In the order in which they were named.
        options: For the workers.
        folder: Where the chunks' files go; those that are there already are kept.
        workers: Processes to share the work out to.
        console: For progress.

    Raises:
        DataError: A source cannot be read, or holds no song.
        NoSpaceError: The disk is full.
    """
    index = folder / _INDEX
    if index.is_file():
        return Spool.of([open_chunk(folder / name) for name in parse_json(index.read_text("utf-8"))])
    paths: list[Path] = []
    with show_progress(console, "reading", None, "rows") as advance:
        tasks = _list_tasks(sources, folder, paths, advance)
        for num_rows in workers.run(_scan_chunk, tasks, partial(_make_scanner, options)):
            advance(num_rows)
    write_text_durably(index, json.dumps([path.name for path in paths]))
    return Spool.of([open_chunk(path) for path in paths])


def _list_tasks(
    sources: Sequence[Source], folder: Path, paths: list[Path], advance: Callable[[int], None]
) -> Iterator[_Task]:
    """The chunks that are still to do; `paths` collects the files of all."""
    for number, source in enumerate(sources):
        for chunk in read_chunks(source, ROWS_PER_CHUNK):
            path = folder / f"{number:05d}-{chunk.number:06d}.arrow"
            paths.append(path)
            if path.is_file():
                advance(chunk.num_rows)
            else:
                yield _Task(chunk, path)


def _scan_chunk(scanner: _Scanner, task: _Task) -> int:
    """Write one chunk's file; the number of rows."""
    counts, rejected, filled = QualityCounts(), [], Counter[str]()
    songs: list[Song] = []
    traits: list[Traits] = []
    num_read = 0
    for item in songs_of_chunk(task.chunk, scanner.options.read):
        if isinstance(item, Rejection):
            counts.reject(item.source, item.line, item.reason, item.row)
            # Where the file lies is the user's business, and would make the bytes depend on it.
            rejected.append(replace(item, source=PurePath(item.source).name).to_json())
            continue
        num_read += 1
        cleaned = clean_song(_fill(item, scanner.metadata, counts, filled), scanner.options.clean)
        if cleaned.reason:
            counts.drop(cleaned.song, cleaned.reason)
            continue
        counts.add(cleaned.song, cleaned.traits)
        songs.append(cleaned.song)
        traits.append(cleaned.traits)
    columns = describe_songs(songs, traits)
    note = {
        "source": task.chunk.source,
        "num_read": num_read,
        "counts": counts.to_state(),
        "rejected": rejected[: scanner.options.max_rejected],
        "filled": filled,
        "genres": columns.genres,
        "languages": columns.languages,
    }
    write_chunk(task.path, songs, {name: getattr(columns, name) for name in NUMBERS}, note)
    return task.chunk.num_rows


def _fill(song: Song, metadata: MetadataIndex | None, counts: QualityCounts, filled: Counter[str]) -> Song:
    if metadata is None:
        return song
    whole, disagreements = metadata.fill(song)
    for found in disagreements:
        counts.disagree(found.fact, found.own, found.other, song)
    filled.update(
        fact for fact in FILLED_FACTS if getattr(song, fact) is None and getattr(whole, fact) is not None
    )
    return whole


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan found.

    Attributes:
        spool: The songs.
        counts: For the quality report.
        rejected: Rows that were no songs, as JSON, the first of them.
        filled: Fact → songs that got it from the metadata files.
    """

    spool: Spool
    counts: QualityCounts
    rejected: tuple[str, ...]
    filled: Counter[str]


def gather_scan(spool: Spool, max_rejected: int, max_bad_fraction: float | None) -> ScanResult:
    """Add up what was counted chunk by chunk.

    Args:
        spool: All chunks.
        max_rejected: Rejected rows to keep.
        max_bad_fraction: See `preprocess.build.config.ReadSettings`.

    Raises:
        DataError: A source without a song, or too many bad rows.
    """
    counts = QualityCounts()
    rejected: list[str] = []
    filled: Counter[str] = Counter()
    num_read: dict[str, int] = {}
    reasons: dict[str, dict[str, int]] = {}
    for chunk in spool.chunks:
        note = chunk.note()
        own = QualityCounts.from_state(note["counts"])
        counts.merge(own)
        rejected += note["rejected"][: max(0, max_rejected - len(rejected))]
        filled.update(note["filled"])
        source = note["source"]
        num_read[source] = num_read.get(source, 0) + note["num_read"]
        for reason, count in own.rejected.tally.counts.items():
            reasons.setdefault(source, {})[reason] = reasons.get(source, {}).get(reason, 0) + count
    for source, num in num_read.items():
        check_outcome(source, num, reasons.get(source, {}))
    _check_bad_fraction(sum(num_read.values()), reasons, max_bad_fraction)
    return ScanResult(spool, counts, tuple(rejected), filled)


def _check_bad_fraction(num_read: int, reasons: dict[str, dict[str, int]], allowed: float | None) -> None:
    num_bad = sum(count for own in reasons.values() for count in own.values())
    num_rows = num_read + num_bad
    if allowed is None or num_bad <= allowed * num_rows:
        return
    worst = max(reasons, key=lambda source: sum(reasons[source].values()))
    told = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(reasons[worst].items())[:3])
    raise DataError(
        f"{num_bad:,} of {num_rows:,} rows are no songs, {num_bad / num_rows:.2%}, more than the allowed "
        f"{allowed:.2%}; most of them in {worst}: {told}. Mend the input, or raise --max-bad-fraction"
    )


def read_columns(spool: Spool) -> SongColumns:
    """The numbers of all songs, without their lyrics."""
    return concatenate((_columns_of(chunk) for chunk in spool.chunks), len(spool))


def _columns_of(chunk: Chunk) -> SongColumns:
    note = chunk.note()
    numbers = chunk.numbers(NUMBERS)
    return SongColumns(**numbers, genres=tuple(note["genres"]), languages=tuple(note["languages"]))
