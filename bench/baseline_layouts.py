"""How the finished examples of the harness's steps are laid out for another trainer.

As someone who knows it would try: padded in batches of like length, or packed by TRL's own best-fit packing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import datasets
from trl import pack_dataset

from preprocess.forest import PackedRow, labels
from preprocess.schema import IGNORE_INDEX

Adapter = Literal["bf16", "fp32"]
Micro = list[int]
FILLER: Micro = [-1]
"""A micro-batch of the last feature alone, which has no label."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How a step's examples are laid out.

    Attributes:
        kind: "padded": batches of so many examples of like length; "packed": rows of at most so many slots.
        size: Examples at a time, or slots in a row.
        adapter: "bf16": adapters in the base's precision; "fp32": peft's default, with autocast.
    """

    kind: Literal["padded", "packed"]
    size: int
    adapter: Adapter = "bf16"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "padded 4" or "packed 1024"."""
        kind, size = text.split()
        return cls(cast("Any", kind), int(size))

    def __str__(self) -> str:
        return f"{self.kind} {self.size}" + (", fp32 adapters" if self.adapter == "fp32" else "")


def lay_out(steps: Sequence[Sequence[PackedRow]], batching: Batching) -> list[list[Micro]]:
    """Micro-batches of every step, as many in each: numbers of examples, counted through all steps.

    Trainers accumulate over the same number of micro-batches in every step. Where a step needs fewer, its largest
    ones are halved, which costs nothing: less padding, or less attention. Where it has too few examples for that,
    fillers are put in front, which the trainers here pass over.
    """
    plans, first = [], 0
    for step in steps:
        lengths = [len(example.input_ids) for example in step]
        parts = _pad(lengths, batching.size) if batching.kind == "padded" else _pack(lengths, batching.size)
        plans.append([[first + index for index in part] for part in parts])
        first += len(step)
    most = max(len(plan) for plan in plans)
    return [_split_until(plan, most) for plan in plans]


def _pad(lengths: Sequence[int], size: int) -> list[Micro]:
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    return [by_length[start : start + size] for start in range(0, len(by_length), size)]


def _pack(lengths: Sequence[int], num_slots: int) -> list[Micro]:
    """By TRL's own packing: a column that says of each token whose it is comes out in the rows."""
    owners = [[index] * length for index, length in enumerate(lengths)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = pack_dataset(datasets.Dataset.from_dict({"owners": owners}), num_slots, "bfd")
    return [list(dict.fromkeys(row)) for row in packed["owners"]]


def _split_until(plan: list[Micro], num_parts: int) -> list[Micro]:
    parts = sorted(plan, key=len)
    while len(parts) < num_parts and len(parts[-1]) > 1:
        whole = parts.pop()
        middle = (len(whole) + 1) // 2
        parts = sorted([*parts, whole[:middle], whole[middle:]], key=len)
    return [FILLER] * (num_parts - len(parts)) + parts


def to_features(examples: Sequence[PackedRow]) -> list[dict[str, list[int]]]:
    """Examples as TRL and transformers take finished ones (labels are not shifted), and the filler."""
    features = [
        {"input_ids": example.input_ids.tolist(), "labels": labels(example).tolist()} for example in examples
    ]
    return [*features, {"input_ids": [0, 0], "labels": [IGNORE_INDEX, IGNORE_INDEX]}]
