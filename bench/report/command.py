"""`python -m bench report`: write the page, or print Markdown or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench.compare.sides import RESULTS
from bench.report.chosen import name_machine, read_histories
from harness.json_lines import replace_text
from preprocess.errors import ConfigError
from preprocess.terminal import exit_on_user_error

FORMAT_VERSION = 1


@exit_on_user_error
def report(
    output: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("bench-report.html"),
    results: Annotated[Path, typer.Option(help="Folder of record files.")] = RESULTS,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print tables in Markdown, README's first; write no page.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the newest records as one line of JSON; write no page.")
    ] = False,
) -> None:
    """Show every program's newest record on each machine, and how it moved from record to record."""
    if markdown and json_:
        raise ConfigError("--markdown, --json: got both, expected one of them")
    histories = read_histories(results)
    if json_:
        records = [
            {
                **asdict(history.newest),
                "machine_name": name_machine(history.newest),
                "records": len(history.records),
            }
            for history in histories
        ]
        print(json.dumps({"format_version": FORMAT_VERSION, "programs": records}, ensure_ascii=False))
        return
    # matplotlib takes a second, which --json need not wait for.
    if markdown:
        from bench.report.markdown import write_markdown

        print("\n".join(write_markdown(histories)))
        return
    from bench.report.page import render_page

    output.parent.mkdir(parents=True, exist_ok=True)
    replace_text(output, render_page(histories))
    print(f"{output}: {len(histories)} histories of {len({one.newest.name for one in histories})} programs")
