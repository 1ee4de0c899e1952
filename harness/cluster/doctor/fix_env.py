"""Write a `.deepspeed_env` that DeepSpeed reads as it is meant: for runs that are started by its own launcher."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.cluster.doctor.variables import PYTHON_PATH, read_lines, user_files
from harness.cluster.environment import format_environment, select_travelling, withhold_secrets
from preprocess.durable import write_text_durably


@dataclass(frozen=True, slots=True)
class Fixed:
    """What was written.

    Attributes:
        path: The file.
        backup: Where the old one is, or None when there was none.
        names: Variables in it.
        left_out: Names that look secret, which are not.
        dropped: Numbers of lines that were no NAME=VALUE.
    """

    path: Path
    backup: Path | None
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    dropped: tuple[int, ...]


def fix_user_file(environment: Mapping[str, str], home: Path, folder: Path) -> Fixed:
    """Write the file in the home folder: what travels of this environment, and the good lines of the old file.

    A variable that is set here has the value that it has here. The old file is kept beside it, readable for its owner
    alone.

    Raises:
        ConfigError: A value has a line break or another character that the file cannot hold.
    """
    path = user_files(environment, home, folder)[0]
    kept, withheld = withhold_secrets(environment)
    # Paths and launches are this shell's; DeepSpeed sends PYTHONPATH by itself.
    travelling = {
        name: value
        for name, value in select_travelling(kept).items()
        if name != PYTHON_PATH and not name.startswith("LYRICS_")
    }
    old = list(read_lines(path))
    lines = {line.name: line.text for line in old if line.text and line.name not in travelling}
    text = format_environment(travelling, lines.values())
    backup = _back_up(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_durably(path, text)
    return Fixed(
        path,
        backup,
        tuple(sorted({*travelling, *lines})),
        tuple(sorted({*withheld, *(line.name for line in old if line.kind == "secret")})),
        tuple(line.number for line in old if line.kind == "malformed"),
    )


def _back_up(path: Path) -> Path | None:
    """Copy a file to a name that is free; None where there is none."""
    if not path.is_file():
        return None
    number = 1
    while (backup := path.with_name(f"{path.name}.backup{number}")).exists():
        number += 1
    descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(path.read_bytes())
    return backup
