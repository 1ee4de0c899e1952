"""What every command line shares: consoles, and user errors that end in one line and their own exit code."""

from __future__ import annotations

import errno
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from preprocess.errors import DataError, NoSpaceError, UserError
from preprocess.outside_text import visible

P = ParamSpec("P")

WIDTH_OFF_TERMINAL = 110

_CONTROLS = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal may obey and JSON need not escape; inside of strings, where alone they stand, `\\u` says the same."""


class PlainConsole(Console):
    """A console that takes texts as they are: no markup, no emoji codes, control characters as pictures.

    Titles, artists, lyrics, host names and paths come from elsewhere; colours are given by styles alone.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As rich renders; what it moves the cursor with stays, what stands in texts is made visible."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def make_console(*, error: bool = False) -> Console:
    """A console on standard output (or error, to keep the output for JSON); of a fixed width off a terminal.

    It stays on the stream of now, where a caller redirects `sys.stdout` later.
    """
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else WIDTH_OFF_TERMINAL
    return PlainConsole(file=stream, width=width, markup=False, emoji=False)


def make_progress(console: Console) -> Progress:
    """A bar with counts and the time that is left; nothing off a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """One JSON document on standard output, and nothing else."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _describe_os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{error.filename}: {reason}"


def exit_on_user_error(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with one line on standard error and the error's exit code when the user can mend it."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            print(visible(f"error: {error}"), file=sys.stderr, flush=True)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            raise  # the reader of the output has left; typer ends quietly
        except OSError as error:
            print(visible(f"error: {_describe_os_error(error)}"), file=sys.stderr, flush=True)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise typer.Exit((NoSpaceError if full else DataError).exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run
