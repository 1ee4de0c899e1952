"""Text that somebody else wrote: read within bounds, and shown without anything of it reaching the terminal.

The standard library alone: guardians and keepers, which start without other packages, use it too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VISIBLE = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    | {127: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
    | dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)
)
"""A visible stand-in for each control character but line end and tab, and for those that turn the reading order."""


def visible(text: str) -> str:
    """The text with a visible stand-in for everything that a terminal would obey: escape sequences do nothing."""
    return text.translate(VISIBLE)


def holds_surrogates(text: str) -> bool:
    """Whether UTF-8 cannot hold it: half of a surrogate pair out of JSON, or a command line's bytes in another code."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - what JSON holds
    """Parse JSON as `json.loads` does; too deep nesting is a ValueError too.

    Raises:
        ValueError: It is not JSON, not UTF-8, nested too deep, or holds an integer of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_limited(path: Path, max_bytes: int) -> bytes:
    """The bytes of an ordinary file that is to be small; a pipe or a device would keep the reader for ever.

    Raises:
        ValueError: It is a pipe, a socket or a device, or larger.
        OSError: It cannot be read.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("a pipe, a socket or a device, not an ordinary file; save the text in a file")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes:,} bytes, so it is some other file")
    return content
