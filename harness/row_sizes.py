"""How much work each row of a split is, read from its columns without decoding a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from preprocess.forest import PackedRow
from preprocess.manifest import Manifest
from preprocess.schema import Int32Array, Int64Array
from preprocess.shards import ShardedRows


@dataclass(frozen=True, slots=True, eq=False)
class RowSizes:
    """Sizes of the R rows of a split: 12 bytes a row.

    Attributes:
        examples: int32[R], questions with their answers.
        tokens: int32[R].
        supervised: int32[R], tokens that carry loss.
    """

    examples: Int32Array
    tokens: Int32Array
    supervised: Int32Array

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, rows: Iterable[PackedRow]) -> Self:
        """The sizes of rows at hand."""
        sizes = [(row.num_examples, len(row.input_ids), np.count_nonzero(row.label_mask)) for row in rows]
        examples, tokens, supervised = np.array(sizes, dtype=np.int32).reshape(-1, 3).T
        return cls(examples, tokens, supervised)

    def cost(self, rows: Int64Array) -> Int64Array:
        """int64, one a row: tokens pass the body, supervised tokens the head besides."""
        return self.tokens[rows].astype(np.int64) + self.supervised[rows]


def read_row_sizes(folder: Path, split: str, manifest: Manifest) -> RowSizes:
    """The sizes of a split's rows, in the order in which `preprocess.shards.open_split` gives them.

    Args:
        folder: Of the data set.
        split: One that the manifest holds.
        manifest: Of the data set.

    Raises:
        DataError: A shard is cut, replaced or not Arrow.
    """
    return _Columns(folder / split, manifest.splits[split]).sizes()


class _Columns(ShardedRows):
    """A split's columns instead of its rows."""

    def sizes(self) -> RowSizes:
        return RowSizes(
            examples=self._count("tasks"), tokens=self._lengths(), supervised=self._count("label_mask")
        )

    def _lengths(self) -> Int32Array:
        chunks = self._table.column("input_ids").chunks
        return _join([np.diff(chunk.offsets.to_numpy()) for chunk in chunks])

    def _count(self, name: str) -> Int32Array:
        """Of each row: the values that are true, or not negative."""
        return _join([_count_values(chunk) for chunk in self._table.column(name).chunks])


def _count_values(chunk: pa.ListArray) -> Int32Array:
    offsets = chunk.offsets.to_numpy()
    values = chunk.values[offsets[0] : offsets[-1]].to_numpy(zero_copy_only=False)
    flags = values if values.dtype == np.bool_ else values >= 0
    total: Int32Array = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(flags, dtype=np.int32)])
    counts: Int32Array = np.diff(total[offsets - offsets[0]])
    return counts


def _join(parts: list[Int32Array]) -> Int32Array:
    return np.concatenate([np.zeros(0, dtype=np.int32), *parts]).astype(np.int32)
