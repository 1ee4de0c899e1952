"""`python -m harness`: start a run on the hosts of a hostfile, evaluate it, show it, report it."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from harness.config import load_run_config
from harness.hostfile import parse_hostfile
from harness.launch import launch as launch_ranks
from preprocess.settings import dump_settings
from preprocess.shards import write_text_durably
from preprocess.terminal import exit_on_user_error

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")]
RunFolder = Annotated[Path, typer.Option("--run", help="Folder of a finished run; names model, data and adapter.")]


@app.command()
@exit_on_user_error
def launch(
    hostfile: Annotated[Path, typer.Option(help="One `host slots=N` a line.")],
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped config.")],
    set_: Assignments = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    ranks: Annotated[int | None, typer.Option(min=1, help="Refuse to start another number of ranks.")] = None,
    master_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on the first host.")] = None,
) -> None:
    """Train on every slot of a hostfile through DeepSpeed's launcher, and end with a true exit code."""
    overrides = [*(set_ or ()), *(["resume=true"] if resume else [])]
    settings = load_run_config(config, overrides)
    settings.batch.accumulation_steps(parse_hostfile(hostfile).world_size)
    launches = settings.output_dir / "launch"
    launches.mkdir(parents=True, exist_ok=True)
    resolved = launches / "run.yaml"
    write_text_durably(resolved, dump_settings(settings))
    code = launch_ranks(resolved, hostfile, launches, num_ranks=ranks, master_port=master_port)
    if code:
        print(f"error: the run ended with exit code {code}", file=sys.stderr)
        raise typer.Exit(code)


@app.command()
@exit_on_user_error
def report(
    run: Path,
    open_: Annotated[bool, typer.Option("--open", help="Show it in a browser, where there is one.")] = False,
) -> None:
    """Write a run's report: one self-contained HTML file."""
    from harness.report import write_report

    path = write_report(run)
    print(f"report: {path}")
    if open_ and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(path.absolute().as_uri())


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
