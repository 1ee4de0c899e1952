"""`python -m preprocess`: made-up songs, the data-quality report, data sets, and ways to look at them."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Annotated, Literal

import typer

from preprocess.build.config import BuildConfig
from preprocess.build.dataset import build_dataset
from preprocess.build.survey import survey_songs
from preprocess.build.workers import count_cores
from preprocess.check.inspect import (
    describe_dataset,
    describe_example,
    describe_row,
    describe_task,
    print_dataset,
    print_example,
    print_row,
    print_task,
)
from preprocess.check.verify import find_damage, print_report, refuse_damage
from preprocess.choose.outcome import print_outcome
from preprocess.corpus import Length, Shape, generate_songs, write_corpus
from preprocess.errors import ConfigError
from preprocess.outside_text import visible
from preprocess.quality.page import write_html
from preprocess.quality.terminal import print_quality
from preprocess.read.columns import parse_columns
from preprocess.settings import find_shipped, load_settings
from preprocess.terminal import exit_on_user_error, make_console, print_json

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Input = Annotated[
    list[str],
    typer.Option("--input", help="Files, folders, glob patterns or hub:OWNER/NAME; may be repeated."),
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns", metavar="FACT=COLUMN", help="What columns mean, as in lyrics=text,artist=singer."
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", help="Table with genre, year, title or album to fill in; may be repeated."),
]
Genres = Annotated[Path | None, typer.Option("--genres", help="YAML file with further spellings of genres.")]
MaxBad = Annotated[
    float | None,
    typer.Option("--max-bad-fraction", min=0, max=1, help="Refuse input of which more rows are no songs."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes. [default: one for each core]")
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Folder that keeps the cleaned songs for the next build.")
]


def _settings(
    config: str | None,
    assignments: list[str] | None,
    columns: list[str] | None,
    metadata: list[str] | None,
    genres: Path | None,
    max_bad_fraction: float | None,
) -> BuildConfig:
    """The settings of a file, with those that have an option of their own put in."""
    path = None if config is None else find_shipped(config, "preprocess.configs")
    overrides = list(assignments or ())
    if columns:
        overrides.append(f"read.columns={json.dumps(dict(parse_columns(columns)))}")
    if metadata:
        overrides.append(f"read.metadata={json.dumps(metadata)}")
    if genres is not None:
        overrides.append(f"read.genres={json.dumps(str(genres))}")
    if max_bad_fraction is not None:
        overrides.append(f"read.max_bad_fraction={max_bad_fraction}")
    return load_settings(BuildConfig, path, overrides)


@app.command()
@exit_on_user_error
def build(
    input_: Input,
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    tokenizer: Annotated[
        str, typer.Option(help="Folder, tokenizer.json, tokenizer.model, .gguf file or hub id.")
    ],
    config: Annotated[
        str | None, typer.Option(help="YAML file with settings, or plan, or quickstart.")
    ] = None,
    set_: Assignments = None,
    columns: Columns = None,
    metadata: Metadata = None,
    genres: Genres = None,
    max_bad_fraction: MaxBad = None,
    workers: Workers = None,
    cache: Cache = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a data set that is already there.")] = False,
    json_: Json = False,
) -> None:
    """Turn songs into a data set: packed Arrow shards with label masks, and two eval splits.

    A build that was stopped goes on where it was when the same command is given again.
    """
    console = make_console(error=json_)
    settings = _settings(config, set_, columns, metadata, genres, max_bad_fraction)
    result = build_dataset(
        input_,
        output,
        tokenizer,
        settings,
        console,
        overwrite=overwrite,
        num_workers=workers or count_cores(),
        cache=cache,
    )
    if json_:
        sample = None if result.outcome is None else result.outcome.to_json()
        print_json({"note": result.note, "sample": sample, **describe_dataset(output)})
        return
    if result.quality is None or result.outcome is None:
        console.print("this very data set is there already: nothing to do", highlight=False)
    else:
        print_quality(result.quality, console)
        print_outcome(result.outcome, console)
    print_dataset(output, console)
    if result.note:
        console.print(result.note, highlight=False)
    console.print(f"data set: {output}; what was in the input: {output / 'quality.html'}", highlight=False)


@app.command()
@exit_on_user_error
def quality(
    input_: Input,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page, too.")] = None,
    set_: Assignments = None,
    columns: Columns = None,
    metadata: Metadata = None,
    genres: Genres = None,
    max_bad_fraction: MaxBad = None,
    workers: Workers = None,
    cache: Cache = None,
    json_: Json = False,
) -> None:
    """Report what the songs of some files are like, after cleaning."""
    console = make_console(error=json_)
    settings = _settings(None, set_, columns, metadata, genres, max_bad_fraction)
    report = survey_songs(input_, settings, console, num_workers=workers or count_cores(), cache=cache)
    if html is not None:
        write_html(report, html, f"Songs of {', '.join(PurePath(name).name for name in input_)}")
    if json_:
        print_json(report.to_json())
        return
    print_quality(report, console)
    if html is not None:
        console.print(f"page: {html}", highlight=False)


@app.command()
@exit_on_user_error
def inspect(
    folder: Path,
    row: Annotated[int | None, typer.Option(help="Show this row.")] = None,
    example: Annotated[
        str | None, typer.Option(help="Show a song's examples: SONG_ID or SONG_ID/TASK.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Show the first examples of this task.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many examples --task shows.")] = 10,
    split: Annotated[
        str | None, typer.Option(help="Which split --row and --task look into. [default: train]")
    ] = None,
    json_: Json = False,
) -> None:
    """Show a data set, or a row decoded as a tree: prompts grey, supervised tokens coloured."""
    if sum(given is not None for given in (row, example, task)) > 1:
        raise ConfigError("got two of --row, --example and --task; give the one that is to be shown")
    if split is not None and row is None and task is None:
        raise ConfigError(f"got --split {split} without --row or --task; give --row N, the row to show")
    console, split = make_console(), split or "train"
    if row is not None:
        print_json(describe_row(folder, split, row)) if json_ else print_row(folder, split, row, console)
    elif example is not None:
        print_json(describe_example(folder, example)) if json_ else print_example(folder, example, console)
    elif task is not None and json_:
        print_json(describe_task(folder, split, task, limit))
    elif task is not None:
        print_task(folder, split, task, console, limit)
    else:
        print_json(describe_dataset(folder)) if json_ else print_dataset(folder, console)


@app.command()
@exit_on_user_error
def verify(folder: Path, json_: Json = False) -> None:
    """Check a data set: hashes, counts, masks, trees, tokenizer, splits."""
    report = find_damage(folder)
    print_json(report.to_dict()) if json_ else print_report(report, make_console())
    refuse_damage(report)


@app.command()
@exit_on_user_error
def corpus(
    songs: Annotated[int, typer.Option(min=1, help="Number of songs.")],
    output: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
    shape: Annotated[
        Literal["genius", "hub", "jsonl"] | None, typer.Option(help="Columns; jsonl holds every fact.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    length: Annotated[Literal["short", "full"], typer.Option(help="Length of a song.")] = "full",
    artists_per_genre: Annotated[
        int | None, typer.Option(min=1, help="Only the first artists of each genre.")
    ] = None,
) -> None:
    """Write made-up songs with ground truth: invented artists of measurable styles, in seven genres."""
    chosen: Shape = shape or ("jsonl" if output.suffix == ".jsonl" else "genius")
    size: Length = length
    made = generate_songs(songs, seed, length=size, artists_per_genre=artists_per_genre)
    print(visible(f"{write_corpus(output, made, chosen, songs):,} made-up songs: {output}"))


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
