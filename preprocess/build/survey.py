"""The quality report alone: songs are scanned, nothing is built."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from preprocess.build.config import BuildConfig
from preprocess.build.inputs import open_inputs, scan_inputs
from preprocess.build.output_folder import Work
from preprocess.build.scan import read_columns
from preprocess.build.workers import Workers
from preprocess.choose.sample import count_near_duplicates
from preprocess.quality.findings import find_all
from preprocess.quality.overview import QualityReport


def survey_songs(
    paths: Sequence[str | Path],
    config: BuildConfig,
    console: Console,
    *,
    num_workers: int = 1,
    cache: Path | None = None,
) -> QualityReport:
    """Report what songs are like, after cleaning.

    Args:
        paths: Files, folders, glob patterns or hub ids with songs.
        config: How they are read and cleaned.
        console: For progress.
        num_workers: Processes.
        cache: Folder that keeps the scanned songs for a build; None: they are removed.

    Raises:
        ConfigError: Bad settings.
        DataError: Bad input.
        NoSpaceError: The disk is full.
    """
    inputs = open_inputs(paths, config)
    for line in inputs.descriptions:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    with (
        tempfile.TemporaryDirectory(prefix="lyrics-quality-") as name,
        Workers(num_workers, Path(name)) as workers,
    ):
        scanned = scan_inputs(inputs, config, Work(Path(name)), cache, workers, console)
        columns = read_columns(scanned.spool)
        num_near = count_near_duplicates(columns, config.sample, config.seed)
        return QualityReport(scanned.counts, find_all(columns, scanned.spool.artists, num_near))
