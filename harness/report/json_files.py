"""Single files of JSON of a run, whose faults are told by the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from harness.json_lines import JsonObject
from preprocess.errors import DataError
from preprocess.outside_text import parse_json

T = TypeVar("T")


def read_json(path: Path) -> Any:  # noqa: ANN401 (what JSON holds)
    """What a file of JSON holds.

    Raises:
        DataError: It is no JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Write it again, or remove it.") from error


def read_object(path: Path) -> JsonObject:
    """The object that a file of JSON holds.

    Raises:
        DataError: It is no JSON, or no object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: got a {type(content).__name__}, expected an object. Write it again.")
    return content


def check_shape(path: Path, parse: Callable[[], T]) -> T:
    """Run a parser; what is missing or of the wrong kind is the file's fault, and the message says which.

    Raises:
        DataError: The parser stumbled.
    """
    try:
        return parse()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path} does not have the expected fields ({type(error).__name__}: {error}). Write it again."
        ) from error
