"""Does a small model learn themes and authors from 280 hymns, against always the most frequent and TF-IDF?

    python -m bench hymns [--input hymns.jsonl] [--quick] [--record]

The hymns' topics were given by people; each stands for themes of the lexicon (`bench.hymn_topics`), which replace the
topics, so that they are the truth that answers are held against. Everything else is `python -m harness evaluate`'s.
With so few songs intervals are wide: a difference whose intervals overlap shows nothing. Most authors have one hymn,
and whoever has one cannot be recognised: the record says how many have more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.hymn_topics import HYMNS, TOPICS
from bench.record import Outcome
from bench.stages import Job
from harness.json_lines import read_json_lines
from preprocess.durable import sha256_of, write_text_durably
from preprocess.errors import DataError
from preprocess.settings import find_shipped
from preprocess.terminal import exit_on_user_error, make_console

CONFIG = "hymns"
BASELINE = "majority"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is learned and asked.

    Attributes:
        folder: Where the job is kept.
        train: Overrides of the run's settings.
        curve_songs: Held-out hymns that each checkpoint is asked about.
        evaluate: Further options of the evaluation.
    """

    folder: str
    train: tuple[str, ...]
    curve_songs: int
    evaluate: tuple[str, ...]


FULL = Size("runs/hymns", (), 40, ("--split", "both", "--few-shot", "3"))
QUICK = Size(
    "runs/hymns-quick",
    ("schedule.max_steps=4", "schedule.save_every_steps=2"),
    4,
    ("--songs", "4", "--generate-songs", "1", "--max-new-tokens", "32"),
)


def measure(*, quick: bool, source: Path = HYMNS) -> Outcome:
    """Go from the hymns to the report, or on from where the job stopped.

    Args:
        quick: A few steps and songs.
        source: The hymns, JSON lines.

    Raises:
        DataError: There are no hymns.
        ConfigError: The job was begun with another plan.
        StageError: A stage failed.
    """
    from bench.learn import MODEL, build_command, train_and_show
    from bench.learn.facts import describe_run

    size = QUICK if quick else FULL
    hymns = read_hymns(source)
    job = Job(Path(size.folder))
    job.begin(make_plan(size, source))
    songs, data, run_dir = job.folder / "songs.jsonl", job.folder / "data", job.folder / "run"
    if not songs.is_file():
        lines = "".join(json.dumps(hymn, ensure_ascii=False) + "\n" for hymn in hymns)
        write_text_durably(songs, lines)
    job.run("data", build_command(songs, data, CONFIG, MODEL, ()), (data / "manifest.json").is_file)
    train_and_show(job, run_dir, data, CONFIG, size.train, size.curve_songs, size.evaluate, demo_songs=2)
    figures, facts = describe_run(run_dir, data)
    return Outcome(BASELINE, figures, {}, {**describe_hymns(hymns), **facts})


def read_hymns(source: Path) -> list[dict[str, Any]]:
    """The hymns as songs, their topics replaced by the themes that these stand for.

    Raises:
        DataError: The file is not there, or a song lacks a field or has one of another type.
    """
    if not source.is_file():
        raise DataError(
            f"no hymns at {source}; pass --input FILE, JSON lines with title, artist, topics, lyrics"
        )
    songs = []
    for number, row in enumerate(read_json_lines(source), start=1):
        try:
            songs.append(to_song(row))
        except (KeyError, TypeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{source}, hymn {number}: {what}; expected title, artist, topics, lyrics"
            ) from error
    return songs


def to_song(row: dict[str, Any]) -> dict[str, Any]:
    """One hymn, as `python -m preprocess build` reads a song.

    Raises:
        KeyError: A field is missing.
        TypeError: A field is of another type.
    """
    for name in ("title", "artist", "lyrics"):
        if not isinstance(row[name], str | None):
            raise TypeError(f"{name} is {row[name]!r}, no text")
    topics = row["topics"] or []
    if not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
        raise TypeError(f"topics is {topics!r}, no list of texts")
    topics = [topic.replace("&amp;", "&") for topic in topics]
    themes = list(dict.fromkeys(theme for topic in topics for theme in TOPICS.get(topic, ())))
    return {
        "title": row["title"],
        "artist": row["artist"],
        "year": row.get("year"),
        "themes": themes,
        "lyrics": row["lyrics"],
    }


def make_plan(size: Size, source: Path) -> dict[str, Any]:
    """What must be the same for a job to be the same job."""
    from bench.learn import MODEL

    files = {
        f"{package}.{CONFIG}": find_shipped(CONFIG, package).read_text(encoding="utf-8")
        for package in ("preprocess.configs", "harness.configs")
    }
    return {
        "train": size.train,
        "curve_songs": size.curve_songs,
        "evaluate": size.evaluate,
        "model": MODEL,
        "hymns": sha256_of(source),
        "topics": TOPICS,
        **files,
    }


def describe_hymns(hymns: Sequence[dict[str, Any]]) -> dict[str, float | int | str]:
    """How many hymns, authors and themes there are: what the figures can show at all."""
    authors = Counter(hymn["artist"] for hymn in hymns if hymn["artist"])
    themes = Counter(theme for hymn in hymns for theme in hymn["themes"])
    return {
        "hymns": len(hymns),
        "authors": len(authors),
        "authors_with_more_than_one_hymn": sum(count > 1 for count in authors.values()),
        "hymns_of_these_authors": sum(count for count in authors.values() if count > 1),
        "most_hymns_of_an_author": max(authors.values(), default=0),
        "themes": len(themes),
        "hymns_without_a_theme": sum(not hymn["themes"] for hymn in hymns),
    }


@exit_on_user_error
def hymns(
    source: Annotated[Path, typer.Option("--input", help="The hymns, JSON lines.")] = HYMNS,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps and songs; for a look.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the JSON line alone.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Add the line to bench/results/hymns.jsonl.")
    ] = False,
) -> None:
    """Tune on hymns, and hold themes and authors against the baselines; goes on where it was stopped."""
    from bench.__main__ import PROGRAMS, RESULTS, print_outcome
    from bench.machine import describe_surroundings
    from bench.record import append_record, make_record, to_line

    surroundings = describe_surroundings()
    command = f"python -m bench hymns --input {source.name}" + (" --quick" if quick else "")
    outcome = measure(quick=quick, source=source)
    result = make_record("hymns", PROGRAMS["hymns"], outcome, command, surroundings)
    if not json_:
        print_outcome(result, make_console())
    if record:
        append_record(RESULTS / "hymns.jsonl", result)
    print(to_line(result))
