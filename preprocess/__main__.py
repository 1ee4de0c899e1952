"""`python -m preprocess`: made-up songs, the data-quality report, data sets, and ways to look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from preprocess.build.dataset import BuildConfig, CleanSongs, build_dataset
from preprocess.check.inspect import (
    describe_dataset,
    describe_example,
    describe_row,
    print_dataset,
    print_example,
    print_row,
)
from preprocess.check.verify import print_report, verify_dataset
from preprocess.choose.sample import print_outcome
from preprocess.corpus import Length, Shape, generate_songs, write_corpus
from preprocess.errors import ConfigError
from preprocess.quality.report import QualityReport, print_quality
from preprocess.settings import find_shipped, load_settings
from preprocess.terminal import exit_on_user_error, make_console, print_json

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Input = Annotated[
    list[Path], typer.Option("--input", help="Files, folders or glob patterns; may be repeated.")
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")
]


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
    overwrite: Annotated[bool, typer.Option(help="Replace a data set that is already there.")] = False,
    json_: Json = False,
) -> None:
    """Turn songs into a data set: packed Arrow shards with label masks, and an eval split by song."""
    console = make_console(error=json_)
    path = None if config is None else find_shipped(config, "preprocess.configs")
    settings = load_settings(BuildConfig, path, set_ or ())
    result = build_dataset(input_, output, tokenizer, settings, console, overwrite=overwrite)
    if json_:
        print_json({"note": result.note, "sample": result.outcome.to_json(), **describe_dataset(output)})
        return
    print_quality(result.quality, console)
    print_outcome(result.outcome, console)
    print_dataset(output, console)
    if result.note:
        console.print(result.note, highlight=False)
    console.print(f"data set: {output}", highlight=False)


@app.command()
@exit_on_user_error
def quality(input_: Input, set_: Assignments = None, json_: Json = False) -> None:
    """Report what the songs of some files are like, after cleaning."""
    report = QualityReport()
    for _ in CleanSongs(input_, load_settings(BuildConfig, None, set_ or ()), report):
        pass
    if json_:
        print_json(report.to_json())
    else:
        print_quality(report, make_console())


@app.command()
@exit_on_user_error
def inspect(
    folder: Path,
    row: Annotated[int | None, typer.Option(help="Show this row.")] = None,
    example: Annotated[
        str | None, typer.Option(help="Show a song's examples: SONG_ID or SONG_ID/TASK.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split --row counts in. [default: train]")] = None,
    json_: Json = False,
) -> None:
    """Show a data set, or a row decoded as a tree: prompts grey, supervised tokens coloured."""
    if row is not None and example is not None:
        raise ConfigError("got --row and --example; give the one that is to be shown")
    if split is not None and row is None:
        raise ConfigError(f"got --split {split} without --row; give --row N, the row of that split to show")
    console, split = make_console(), split or "train"
    if row is not None:
        print_json(describe_row(folder, split, row)) if json_ else print_row(folder, split, row, console)
    elif example is not None:
        print_json(describe_example(folder, example)) if json_ else print_example(folder, example, console)
    else:
        print_json(describe_dataset(folder)) if json_ else print_dataset(folder, console)


@app.command()
@exit_on_user_error
def verify(folder: Path, json_: Json = False) -> None:
    """Check a data set: hashes, counts, masks, trees, tokenizer, splits."""
    report = verify_dataset(folder)
    if json_:
        print_json(report.to_dict())
    else:
        print_report(report, make_console())


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
    print(f"{write_corpus(output, made, chosen, songs):,} made-up songs: {output}")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
