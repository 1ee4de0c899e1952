"""YAML that somebody else wrote, parsed within bounds into plain values."""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from preprocess.outside_text import read_limited

MAX_YAML_BYTES = 1 << 20
"""Far more than any configuration or table of genres holds."""

MAX_YAML_DEPTH = 200
"""Brackets that are open at a time."""

MAX_YAML_NODES = 200_000
"""Values, keys and containers of a document, each alias counted as all that it stands for."""


class _PlainLoader(yaml.SafeLoader):
    """Reads `10:13` as the text that it is; YAML 1.1 takes it for 613, a number in base 60."""


def _resolve_without_base_60() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's own patterns of plain numbers, each told not to look further where a colon follows a digit."""
    numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    return {
        first: [
            (
                tag,
                re.compile(rf"(?![-+]?[0-9_]+:)(?:{pattern.pattern})", re.VERBOSE)
                if tag in numbers
                else pattern,
            )
            for tag, pattern in resolvers
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_PlainLoader.yaml_implicit_resolvers = _resolve_without_base_60()


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - what YAML holds
    """Read a YAML file that is to be small.

    Raises:
        ValueError: See `parse_yaml`; or it is no ordinary file.
        OSError: It cannot be read.
    """
    return parse_yaml(read_limited(path, MAX_YAML_BYTES).decode("utf-8-sig"))


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
        loader = _PlainLoader(text)
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
