"""Files of one JSON object a line, as a run leaves them: valid JSON, readable after a kill in mid-line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from preprocess.errors import DataError
from preprocess.outside_text import parse_json

JsonObject = dict[str, Any]


def encode_line(fields: Mapping[str, Any]) -> str:
    """Encode one object as a line of valid JSON, newline included.

    JSON has no NaN and no infinity: such a float becomes null, and its dotted key is listed under
    "non_finite", so that a reader can tell "not a number" from "not measured".

    Args:
        fields: Keys to numbers, strings, None, lists, or mappings of those.

    Returns:
        The line, ending in a newline.
    """
    non_finite: list[str] = []
    clean = {key: _drop_non_finite(value, key, non_finite) for key, value in fields.items()}
    if non_finite:
        clean["non_finite"] = non_finite
    return json.dumps(clean, allow_nan=False, ensure_ascii=False) + "\n"


def _drop_non_finite(value: object, key: str, non_finite: list[str]) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        non_finite.append(key)
        return None
    if isinstance(value, Mapping):
        return {k: _drop_non_finite(v, f"{key}.{k}", non_finite) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_drop_non_finite(v, f"{key}.{i}", non_finite) for i, v in enumerate(value)]
    return value


def read_json_lines(path: Path) -> list[JsonObject]:
    """Read every whole line of a file.

    A last line that a kill cut short is left out: it is one that has no newline and does not parse.

    Args:
        path: File with one JSON object a line.

    Returns:
        The objects in file order; blank lines are skipped.

    Raises:
        DataError: A line other than the last is not a JSON object.
    """
    lines = path.read_bytes().split(b"\n")
    objects: list[JsonObject] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parsed = _parse_object(line)
        if parsed is not None:
            objects.append(parsed)
        elif number < len(lines):
            raise DataError(
                f"{path}, line {number}: got {line[:60]!r}, expected one JSON object a line. "
                "The file is damaged; restore it, or delete that line."
            )
    return objects


def _parse_object(line: bytes) -> JsonObject | None:
    try:
        parsed = parse_json(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def close_last_line(path: Path) -> None:
    """Make a file safe to append to: drop a last line that a kill cut short, give a whole one its newline."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        head, newline, tail = content.rpartition(b"\n")
        if not tail:
            return
        if _parse_object(tail) is None:
            file.truncate(len(head) + len(newline))
        else:
            file.write(b"\n")


def write_json_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file by these objects, in one step: a reader sees the old file or the new one, whole."""
    replace_text(path, "".join(encode_line(fields) for fields in objects))


def replace_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one step (temporary file beside it, fsync, rename)."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
