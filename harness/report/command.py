"""`python -m harness report RUN…`: the page of one run, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.json_lines import JsonObject, replace_text
from harness.report import REPORT_FILE, make_page, read_whole_run
from harness.report.compare import write_comparison
from harness.report.page import render_page
from preprocess.errors import ConfigError, DataError


def write_page(run_dirs: Sequence[Path], output: Path | None = None) -> tuple[Path, JsonObject]:
    """Write the page of one run, or of several.

    Args:
        run_dirs: Folders of the runs; of several the first is the baseline.
        output: The file, or None for report.html (comparison.html) in the first folder.

    Returns:
        Path of the file, and its cards, warnings and tables as plain values.

    Raises:
        ConfigError: `output` is a folder; a run is given twice; too many are.
        DataError: A folder is missing, is no run's, or holds a damaged file; or `output` cannot be written.
    """
    if output is not None and output.is_dir():
        raise ConfigError(
            f"--output {output} is a folder; pass the name of a file, as in {output / REPORT_FILE}"
        )
    runs = [read_whole_run(run_dir) for run_dir in run_dirs]
    try:
        if len(runs) > 1:
            return write_comparison(run_dirs, runs, output)
        page, path = make_page(runs[0]), output or run_dirs[0] / REPORT_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, render_page(page))
    except OSError as error:
        raise DataError(
            f"{error.filename}: {error.strerror}; pass --output FILE in a folder that can be written"
        ) from error
    return path, page.to_json()
