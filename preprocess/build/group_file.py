"""Encoded songs on disk between the stages of a build.

    WORK/encode/00003-000017.arrow     the groups of one chunk; a JSON note in its metadata

A group is one song's tree of segments: it goes into one row as it is. The files are not compressed, so a group is
read where it lies. An answer ends its segment, so the mask is a number for each segment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocess.durable import write_whole
from preprocess.errors import DataError
from preprocess.forest import PackedRow
from preprocess.outside_text import parse_json
from preprocess.schema import BoolArray, Int32Array, Int64Array

_NOTE = b"note"
NUMBERS = ("seq_lens", "parents", "tasks", "supervised")
"""What is stored of a segment, one number after another."""

_COLUMNS = (
    pa.field("song_id", pa.string()),
    pa.field("input_ids", pa.list_(pa.int32())),
    pa.field("segments", pa.list_(pa.int32())),
)


def write_groups(path: Path, groups: Sequence[PackedRow], note: Mapping[str, Any]) -> None:
    """Write groups durably; the file stands there only when it is whole.

    Args:
        path: The file.
        groups: Each of one song, with the supervised tokens of a segment in one run up to its end.
        note: JSON values kept with them.

    Raises:
        NoSpaceError: The disk is full.
        DataError: The file cannot be written.
        ValueError: A group holds several songs, or a mask that is no run up to the end of its segment.
    """
    segments = [_segment_numbers(group) for group in groups]
    columns = [
        pa.array([group.song_ids[0] for group in groups], pa.string()),
        _lists([group.input_ids for group in groups]),
        _lists([numbers.ravel() for numbers in segments]),
    ]
    schema = pa.schema(_COLUMNS, metadata={_NOTE: json.dumps(note, ensure_ascii=False).encode()})
    with write_whole(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _lists(values: Sequence[Int32Array]) -> pa.ListArray:
    offsets = np.cumsum([0, *(len(value) for value in values)])
    flat = np.concatenate([np.zeros(0, dtype=np.int32), *values])
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(flat, pa.int32()))


def _segment_numbers(group: PackedRow) -> Int32Array:
    """int32[S, 4]: `NUMBERS` of each segment."""
    if len(set(group.song_ids)) != 1:
        raise ValueError(f"a group is of one song, got {sorted(set(group.song_ids))}")
    starts = np.cumsum(group.seq_lens) - group.seq_lens
    supervised = np.add.reduceat(group.label_mask, starts, dtype=np.int32)
    if not np.array_equal(mask_of(group.seq_lens, supervised), group.label_mask):
        raise ValueError(
            f"supervised tokens of song {group.song_ids[0]} do not run up to the end of a segment"
        )
    return np.stack([group.seq_lens, group.parents, group.tasks, supervised], axis=1).astype(np.int32)


def mask_of(seq_lens: Int32Array, supervised: Int32Array) -> BoolArray:
    """bool[sum of seq_lens]: true in the last `supervised` slots of each segment."""
    runs = np.stack([seq_lens - supervised, supervised], axis=1).ravel()
    return np.repeat(np.tile([False, True], len(seq_lens)), runs)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a flat array lies in a file: its first byte, and the number of its values."""

    offset: int
    size: int

    def read(self, data: np.memmap[Any, Any], dtype: type[np.generic]) -> np.ndarray[Any, Any]:
        """The array, not copied."""
        num_bytes = self.size * np.dtype(dtype).itemsize
        return data[self.offset : self.offset + num_bytes].view(np.ndarray).view(dtype)


class GroupFile:
    """The groups of one file. It is opened when groups are read, so thousands can be kept.

    Args:
        path: A file of `write_groups`.

    Attributes:
        path: The file.
        lengths: int32[N], tokens of each group.
        num_segments: int32[N], its segments.
        num_supervised: int32[N], its supervised tokens.

    Raises:
        DataError: It is missing, cut, or something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as (reader, whole):
            songs, ids, segments = reader.get_batch(0).columns
            names, ids_buffer, numbers = (c.buffers()[-1] for c in (songs, ids, segments))
            self._ids = _find(ids_buffer, whole, len(ids.values))
            self._segments = _find(numbers, whole, len(segments.values))
            self._names = _find(names, whole, 0 if names is None else names.size)
            self._name_ends = _find(songs.buffers()[1], whole, len(songs) + 1)
            self.lengths: Int32Array = np.diff(ids.offsets.to_numpy())
            offsets = segments.offsets.to_numpy() // len(NUMBERS)
            self.num_segments: Int32Array = np.diff(offsets)
            supervised = segments.values.to_numpy().reshape(-1, len(NUMBERS))[:, 3]
            self.num_supervised: Int32Array = np.diff(
                np.concatenate([[0], np.cumsum(supervised, dtype=np.int64)])[offsets]
            ).astype(np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def note(self) -> dict[str, Any]:
        """The JSON values that were kept with the groups, read anew."""
        with _open(self.path) as (reader, _):
            note: dict[str, Any] = parse_json(reader.schema.metadata[_NOTE])
        return note

    def rows(self, indices: Sequence[int] | Int64Array) -> list[PackedRow]:
        """The groups at these indices.

        Raises:
            DataError: The file is gone.
            IndexError: There is no such group.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"{self.path} holds {len(self)} groups")
        slots, segments = np.cumsum(self.lengths[chosen]), np.cumsum(self.num_segments[chosen])
        places = np.stack([slots - self.lengths[chosen], segments - self.num_segments[chosen]])
        ids = np.empty(int(slots[-1]) if len(slots) else 0, dtype=np.int32)
        numbers = np.empty((int(segments[-1]) if len(slots) else 0, len(NUMBERS)), dtype=np.int32)
        songs = self.copy_to(chosen, ids, numbers, places)
        mask = mask_of(numbers[:, 0], numbers[:, 3])
        rows = []
        for i, song in enumerate(songs):
            own = slice(places[0, i], slots[i])
            seq_lens, parents, tasks, _ = numbers[places[1, i] : segments[i]].T
            rows.append(PackedRow(ids[own], mask[own], seq_lens, parents, tasks, (song,) * len(tasks)))
        return rows

    def copy_to(
        self, indices: Int64Array, ids: Int32Array, segments: Int32Array, places: Int64Array
    ) -> list[str]:
        """Copy groups into larger arrays.

        Args:
            indices: int64[K], the groups.
            ids: int32[T], where their ids go.
            segments: int32[S, 4], where the numbers of their segments go.
            places: int64[2, K], the first slot and the first segment of each.

        Returns:
            The groups' songs.

        Raises:
            DataError: The file is gone.
        """
        if not len(indices):
            return []
        data = self._map()
        own_ids, names = self._ids.read(data, np.int32), self._names.read(data, np.uint8)
        own_segments = self._segments.read(data, np.int32).reshape(-1, len(NUMBERS))
        name_ends = self._name_ends.read(data, np.int32)
        limits = [name_ends[indices], name_ends[indices + 1]]
        for sizes in (self.lengths, self.num_segments):
            ends = np.cumsum(sizes, dtype=np.int64)[indices]
            limits += [ends - sizes[indices], ends]
        songs = []
        for first_byte, last_byte, start, end, first, last, slot, segment in zip(
            *(values.tolist() for values in (*limits, *places)), strict=True
        ):
            ids[slot : slot + end - start] = own_ids[start:end]
            segments[segment : segment + last - first] = own_segments[first:last]
            songs.append(names[first_byte:last_byte].tobytes().decode())
        return songs

    def _map(self) -> np.memmap[Any, Any]:
        try:
            return np.memmap(self.path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: cannot be read ({error})") from error


@contextmanager
def _open(path: Path) -> Iterator[tuple[pa.ipc.RecordBatchFileReader, pa.Buffer]]:
    try:
        with pa.memory_map(str(path)) as source:
            whole = source.read_buffer()
            reader = pa.ipc.open_file(whole)
            if list(reader.schema) != list(_COLUMNS):
                raise DataError(f"{path}: not a file of encoded songs")
            yield reader, whole
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as an Arrow file ({error})") from error


def _find(buffer: pa.Buffer | None, whole: pa.Buffer, size: int) -> _Place:
    return _Place(0 if buffer is None else buffer.address - whole.address, size)
