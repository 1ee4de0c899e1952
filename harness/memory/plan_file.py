"""memory_plan.json: what was predicted for each rank of a run, beside what it measures.

{"format_version": 1, "ranks": {"0": {"phases": [{"phase": "loss", "parts": {"logits": 123}}], "host": {}}}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.json_lines import replace_text
from harness.memory.case import PARTS, PHASES, MemoryPlan, PhaseMemory
from preprocess.errors import DataError
from preprocess.outside_text import parse_json

PLAN_FILE = "memory_plan.json"
FORMAT_VERSION = 1

Name = TypeVar("Name", bound=str)


def write_plan(path: Path, plans: Sequence[MemoryPlan]) -> None:
    """Write the plans of all ranks, in rank order, in one step; a plan for all of them may be there as often."""
    ranks = {
        str(rank): {
            "phases": [{"phase": one.phase, "parts": dict(one.parts)} for one in plan.phases],
            "host": dict(plan.host),
        }
        for rank, plan in enumerate(plans)
    }
    replace_text(path, json.dumps({"format_version": FORMAT_VERSION, "ranks": ranks}, indent=1) + "\n")


def read_plan(path: Path) -> list[MemoryPlan]:
    """Read what `write_plan` wrote, in rank order.

    Raises:
        DataError: The file is damaged, or of another format.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {content['format_version']!r}, expected {FORMAT_VERSION}")
        ranks = content["ranks"]
        return [_parse(ranks[str(rank)]) for rank in range(len(ranks))]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path} is not a plan of memory ({type(error).__name__}: {error}). Write it again, or remove it."
        ) from error


def _parse(plan: Mapping[str, Any]) -> MemoryPlan:
    phases = tuple(
        PhaseMemory(
            _known(one["phase"], PHASES),
            {_known(part, PARTS): int(num_bytes) for part, num_bytes in one["parts"].items()},
        )
        for one in plan["phases"]
    )
    return MemoryPlan(phases, {str(what): int(num_bytes) for what, num_bytes in plan["host"].items()})


def _known(name: str, names: Sequence[Name]) -> Name:
    """A name as one of those there are.

    Raises:
        ValueError: It is none.
    """
    for known in names:
        if known == name:
            return known
    raise ValueError(f"{name!r} is none of {', '.join(names)}")
