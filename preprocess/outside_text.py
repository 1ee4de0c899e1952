"""Text that somebody else wrote: parsed within bounds, and shown without anything of it reaching the terminal."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

MAX_YAML_BYTES = 1 << 20
"""Far more than any configuration or table of genres holds."""

MAX_YAML_DEPTH = 200
"""Brackets that are open at a time."""

MAX_YAML_NODES = 200_000
"""Values, keys and containers of a document, each alias counted as all that it stands for."""

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


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - what JSON holds
    """Parse JSON as `json.loads` does; too deep nesting is a ValueError too.

    Raises:
        ValueError: It is not JSON, not UTF-8, nested too deep, or holds an integer of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - what YAML holds
    """Read a YAML file that is to be small.

    Raises:
        ValueError: See `parse_yaml`; or it is no ordinary file.
        OSError: It cannot be read.
    """
    return parse_yaml(read_limited(path, MAX_YAML_BYTES).decode("utf-8-sig"))


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


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - what YAML holds
    """Parse YAML with plain values only: no Python objects, no document that its aliases blow up.

    Raises:
        ValueError: It is not YAML, too large, nested too deep, holds itself, or holds a value that cannot be (a date of
            the 99th month, an integer of thousands of digits).
    """
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"more than {MAX_YAML_BYTES:,} characters")
    depth = accumulate(1 if sign in "[{" else -1 for sign in re.findall(r"[\[\]{}]", text))
    if max(depth, default=0) > MAX_YAML_DEPTH:  # the parser would take seconds to find out
        raise ValueError("nested too deep")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _check_size(root: yaml.Node) -> None:
    """Count the nodes with every alias written out, each shared node once ("billion laughs" stays cheap to see).

    Raises:
        ValueError: They are too many, or a node holds itself.
    """
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()
    pending = [(root, False)]
    while pending:
        node, is_done = pending.pop()
        parts = _parts(node)
        if is_done:
            open_nodes.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            if sizes[id(node)] > MAX_YAML_NODES:
                raise ValueError(f"more than {MAX_YAML_NODES:,} values, its aliases written out")
        elif id(node) in open_nodes:
            raise ValueError("an alias stands inside of what it stands for")
        elif id(node) not in sizes:
            open_nodes.add(id(node))
            pending.append((node, True))
            pending += [(part, False) for part in parts]


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
