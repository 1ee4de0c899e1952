"""An exported folder: there whole or not at all, never over another one, and only where it fits on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from preprocess.durable import make_folder, sync_folder
from preprocess.errors import ConfigError, NoSpaceError

SPARE_BYTES = 64 * 2**20
"""For the tokenizer and the configuration beside the weights."""


@contextmanager
def write_folder(output: Path, num_bytes: int) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its name when the block ends well; else nothing is left.

    Args:
        output: The folder to be; its parents are made.
        num_bytes: How much will be written, about.

    Raises:
        ConfigError: `output` is there already, or cannot be.
        NoSpaceError: It would not fit, or did not.
    """
    check_output(output)
    make_folder(output.absolute().parent)
    _check_space(output, num_bytes)
    temporary = output.with_name(f"{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary)
    try:
        yield temporary
        temporary.rename(output)
        sync_folder(output.absolute().parent)
    except SafetensorError as error:  # its writer wraps the system's error in a text
        if "No space left" in str(error) or "quota" in str(error):
            raise NoSpaceError(f"no space left while writing {output}; free some and run it again") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_output(output: Path) -> None:
    """Refuse a folder that is there, or that cannot be made.

    Raises:
        ConfigError: It is there already, or a part of its path is a file.
    """
    if output.exists():
        raise ConfigError(f"--output {output}: already there; choose another folder or remove it")
    if blocking := next((parent for parent in output.parents if parent.is_file()), None):
        raise ConfigError(
            f"--output {output}: {blocking} is a file, so nothing can be in it; choose another folder"
        )


def _check_space(output: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(output.absolute().parent).free
    needed = num_bytes + SPARE_BYTES
    if free < needed:
        raise NoSpaceError(
            f"--output {output}: {needed / 2**30:.2f} GiB are needed and {free / 2**30:.2f} GiB free; free some, or "
            "write elsewhere"
        )
