"""Writing made-up songs to a file, in the shapes that song collections come in, streaming and all or nothing."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from preprocess.corpus.material import load_genres
from preprocess.errors import ConfigError, DataError, NoSpaceError
from preprocess.schema import Song
from preprocess.terminal import make_console

Shape = Literal["genius", "hub", "jsonl"]
Row = dict[str, Any]
RowWriter = Callable[[list[Row]], None]

ROWS_PER_BATCH = 10_000
"""Songs held in memory at once, and rows of a parquet row group."""

_FIELDS: dict[Shape, dict[str, Any]] = {
    "genius": {
        "title": pa.string(),
        "tag": pa.string(),
        "artist": pa.string(),
        "year": pa.int64(),
        "views": pa.int64(),
        "features": pa.string(),
        "lyrics": pa.string(),
        "id": pa.int64(),
        "language_cld3": pa.string(),
        "language_ft": pa.string(),
        "language": pa.string(),
    },
    "hub": {"Instruction": pa.string(), "Label": pa.string()},
    "jsonl": {
        "id": pa.string(),
        "title": pa.string(),
        "artist": pa.string(),
        "genre": pa.string(),
        "year": pa.int64(),
        "album": pa.string(),
        "themes": pa.list_(pa.string()),
        "lyrics": pa.string(),
        "source": pa.string(),
    },
}
_SINGER = re.compile(r"^\[[^\]:\n]+: ([^\]\n]+)\]$", re.MULTILINE)


def _scatter(number: int) -> float:
    """A fixed number in [0, 1) that looks random (Knuth's multiplicative hash, 32 bits)."""
    return (number * 2654435761 % 2**32) / 2**32


def _number_song(song: Song) -> int:
    return int(song.id.rsplit("-", 1)[-1])


def _list_tags() -> dict[str | None, str]:
    return {genre.name: genre.tag for genre in load_genres()}


def format_genius_row(song: Song, tags: dict[str | None, str]) -> Row:
    """The eleven columns of the Genius collection; guests of the section headers make up `features`."""
    number = _number_song(song)
    guests = dict.fromkeys(name for name in _SINGER.findall(song.lyrics) if name != song.artist)
    return {
        "title": song.title,
        "tag": tags[song.genre],
        "artist": song.artist,
        "year": song.year,
        "views": int(10 ** (1 + 5 * _scatter(number + 1))),
        "features": "{" + ",".join(f'"{name}"' if " " in name else name for name in guests) + "}",
        "lyrics": song.lyrics,
        "id": number,
        "language_cld3": "en",
        "language_ft": "en",
        "language": "en",
    }


def format_hub_row(song: Song, tags: dict[str | None, str]) -> Row:
    """The two columns of the hub's instruction set, whose final dot comes and goes."""
    dot = "." if _scatter(_number_song(song) + 7) < 0.5 else ""
    artist = (song.artist or "").lower()
    text = f"Generate a song verse in the style of {artist} in the genre of {tags[song.genre]}{dot}"
    return {"Instruction": text, "Label": song.lyrics}


def format_truth_row(song: Song, tags: dict[str | None, str]) -> Row:
    """Everything that is known of the song."""
    del tags
    row = {name: getattr(song, name) for name in _FIELDS["jsonl"]}
    return row | {"themes": list(song.themes)}


_FORMATS: dict[Shape, Callable[[Song, dict[str | None, str]], Row]] = {
    "genius": format_genius_row,
    "hub": format_hub_row,
    "jsonl": format_truth_row,
}


@contextmanager
def open_csv(path: Path, shape: Shape) -> Iterator[RowWriter]:
    """Open a CSV file for rows; a list is written as JSON."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(_FIELDS[shape]), lineterminator="\n")
        writer.writeheader()

        def write_rows(rows: list[Row]) -> None:
            if "themes" in _FIELDS[shape]:
                rows = [row | {"themes": json.dumps(row["themes"])} for row in rows]
            writer.writerows(rows)

        yield write_rows


@contextmanager
def open_jsonl(path: Path, shape: Shape) -> Iterator[RowWriter]:
    """Open a file of one JSON object a line for rows."""
    del shape
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def open_parquet(path: Path, shape: Shape) -> Iterator[RowWriter]:
    """Open a parquet file for rows; each list of rows becomes a row group."""
    schema = pa.schema(list(_FIELDS[shape].items()))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))


_OPENERS = {".csv": open_csv, ".jsonl": open_jsonl, ".parquet": open_parquet}


def check_target(path: Path, shape: str) -> None:
    """Refuse a shape, an ending or a place that cannot be written, before any song is made.

    Raises:
        ConfigError: One of them cannot be.
    """
    if shape not in get_args(Shape):
        raise ConfigError(f"Got the shape {shape!r}; expected one of {', '.join(get_args(Shape))}.")
    if path.suffix not in _OPENERS:
        raise ConfigError(
            f"Got the output {str(path)!r}; its ending must be one of {', '.join(_OPENERS)}, which says the format."
        )
    if path.is_dir():
        raise ConfigError(f"The output {str(path)!r} is a folder; name a file.")
    if not path.parent.is_dir():
        raise ConfigError(f"The folder {str(path.parent)!r} does not exist; make it first or name another.")


@contextmanager
def show_progress(num_songs: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on the error stream, silent when that is no terminal; yields a call that adds songs."""
    console = make_console(error=True)
    columns = (TextColumn("songs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("songs", total=num_songs)
        yield lambda count: progress.advance(task, count)


def _write_rows(target: Path, path: Path, songs: Iterable[Song], shape: Shape, num_songs: int) -> int:
    tags, format_row, iterator, num_written = _list_tags(), _FORMATS[shape], iter(songs), 0
    with _OPENERS[path.suffix](target, shape) as write_rows, show_progress(num_songs) as advance:
        while rows := [format_row(song, tags) for song in islice(iterator, ROWS_PER_BATCH)]:
            write_rows(rows)
            num_written += len(rows)
            advance(len(rows))
    return num_written


def write_corpus(path: str | Path, songs: Iterable[Song], shape: Shape, num_songs: int) -> int:
    """Write songs to a file, at once or not at all: a temporary file is renamed when it is complete.

    Args:
        path: Output; its ending, .csv, .jsonl or .parquet, says the format.
        songs: The songs, from `generate_songs`; read once, `ROWS_PER_BATCH` at a time.
        shape: Columns: "genius" (eleven), "hub" (Instruction and Label) or "jsonl" (all that is known).
        num_songs: How many songs will come, for the progress bar.

    Returns:
        The number of songs written.

    Raises:
        ConfigError: A shape, an ending or a place that cannot be.
        NoSpaceError: The disk is full.
        DataError: The file cannot be written for another reason.
    """
    path = Path(path)
    check_target(path, shape)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        num_written = _write_rows(partial, path, songs, shape, num_songs)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"The disk is full while writing {str(path)!r}; free space or write fewer songs."
            ) from error
        raise DataError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return num_written
