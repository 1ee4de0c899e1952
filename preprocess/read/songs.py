"""Songs read from files and data sets: recognised, cut into chunks of rows, and made of rows.

    paths ── open_sources ── Source ── read_chunks ── RowChunk ── songs_of_chunk ── Song | Rejection
             main process              main process               worker processes

A bad row is reported and passed over; a file that is missing, empty, damaged or without one song is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from preprocess.errors import DataError
from preprocess.read.chunks import RowChunk
from preprocess.read.columns import Schema, recognise_schema
from preprocess.read.files import find_files
from preprocess.read.rejections import Rejection
from preprocess.read.rows import ReadOptions, songs_of_chunk
from preprocess.read.sources import Source, fingerprint, open_sources, read_chunks
from preprocess.schema import Song

__all__ = [
    "ReadOptions",
    "Rejection",
    "RowChunk",
    "Schema",
    "Source",
    "check_outcome",
    "find_files",
    "fingerprint",
    "open_sources",
    "read_chunks",
    "read_songs",
    "recognise_schema",
    "songs_of_chunk",
]

OnReject = Callable[[str, int, str], None]
"""Called with the source, the line or row number (from 1) and the reason."""

_ROWS_PER_CHUNK = 500


def read_songs(
    paths: Iterable[str | Path], *, on_reject: OnReject, options: ReadOptions | None = None
) -> Iterator[Song]:
    """Read songs one after the other, in the order of the paths, holding one chunk in memory.

    Args:
        paths: Files, folders (searched through, in sorted order), glob patterns, hub ids.
        on_reject: Told of every row that is no song.
        options: How to read; None for the defaults.

    Raises:
        DataError: A path matches nothing, a file has an unknown format or unknown columns, is empty or
            damaged, or none of its rows is a song.
    """
    options = options or ReadOptions()
    for source in open_sources(paths, options):
        num_songs, reasons = 0, Counter[str]()
        for chunk in read_chunks(source, _ROWS_PER_CHUNK):
            for item in songs_of_chunk(chunk, options):
                if isinstance(item, Song):
                    num_songs += 1
                    yield item
                else:
                    reasons[item.reason] += 1
                    on_reject(item.source, item.line, item.reason)
        check_outcome(source.name, num_songs, reasons)


def check_outcome(source: str, num_songs: int, reasons: Mapping[str, int]) -> None:
    """Refuse a source in which no row was a song.

    Args:
        source: Name of the source.
        num_songs: Songs that it gave.
        reasons: Reason → number of rows rejected for it.

    Raises:
        DataError: There were none.
    """
    if num_songs:
        return
    if not reasons:
        raise DataError(f"{source} has no rows. Give a file with songs.")
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{reason} ({count:,} rows)" for reason, count in ordered[:3])
    advice = "Look at the file's first rows."
    if ordered[0][0] == "invalid UTF-8":
        advice = "Convert the file to UTF-8 (it may be Latin-1)."
    raise DataError(f"{source}: none of its {sum(reasons.values()):,} rows is a song: {told}. {advice}")
