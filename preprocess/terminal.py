"""What every command line shares: consoles, and user errors that end in one line and their own exit code."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from preprocess.errors import UserError

P = ParamSpec("P")

WIDTH_OFF_TERMINAL = 110


def make_console(*, error: bool = False) -> Console:
    """A console on standard output (or error, to keep the output for JSON); of a fixed width off a terminal."""
    stream = sys.stderr if error else sys.stdout
    return Console(width=None if stream.isatty() else WIDTH_OFF_TERMINAL, stderr=error)


def make_progress(console: Console) -> Progress:
    """A bar with counts and the time that is left; nothing off a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """One JSON document on standard output, and nothing else."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def exit_on_user_error(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with one line on standard error and the error's exit code when the user can mend it."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run
