"""What can be wrong with a packed row: its tree, its masks, its ids, the prompts that it holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from preprocess.check.frame import Frame
from preprocess.forest import PackedRow, check_row, segment_starts
from preprocess.manifest import Manifest
from preprocess.schema import ROOT, BoolArray, Int32Array


def row_problems(row: PackedRow, manifest: Manifest, frame: Frame | None = None) -> Iterator[str]:
    """What is wrong with a row, one message each.

    Args:
        row: Any four arrays.
        manifest: Of its data set.
        frame: What prompts begin and end with, where they can be compared.
    """
    try:
        check_row(row, manifest.vocab_size)
    except ValueError as error:
        yield str(error)
        return
    if len(row.input_ids) > manifest.seq_len:
        yield f"{len(row.input_ids)} tokens, more than seq_len {manifest.seq_len}"
    if not -1 <= int(row.tasks.min()) <= int(row.tasks.max()) < len(manifest.tasks):
        yield f"a task's index lies outside 0 … {len(manifest.tasks) - 1}"
        return
    yield from _tree_problems(row)
    yield from _segment_problems(row, manifest, frame)


def _tree_problems(row: PackedRow) -> Iterator[str]:
    """A prefix has continuations, an example has none, and both belong to one song."""
    continued = set(row.parents.tolist())
    for segment, (parent, task) in enumerate(zip(row.parents.tolist(), row.tasks.tolist(), strict=True)):
        if parent != ROOT and row.tasks[parent] >= 0:
            yield f"segment {segment} continues segment {parent}, which holds an answer"
        if parent != ROOT and row.song_ids[parent] != row.song_ids[segment]:
            songs = f"{row.song_ids[segment]!r} continues song {row.song_ids[parent]!r}"
            yield f"segment {segment} of song {songs}"
        if task < 0 and segment not in continued:
            yield f"segment {segment} is a prefix that no example continues"


def _segment_problems(row: PackedRow, manifest: Manifest, frame: Frame | None) -> Iterator[str]:
    starts = segment_starts(row)
    for segment, (start, length) in enumerate(zip(starts.tolist(), row.seq_lens.tolist(), strict=True)):
        ids, mask = row.input_ids[start : start + length], row.label_mask[start : start + length]
        num_supervised = int(np.count_nonzero(mask))
        if row.tasks[segment] < 0:
            problem = "is a prefix, yet holds supervised tokens" if num_supervised else None
        else:
            problem = _answer_problem(ids, mask, num_supervised, manifest.stop_token_id)
        if problem is None and frame is not None:
            question = ids[: length - num_supervised]
            problem = _prompt_problem(question, row, segment, frame)
        if problem is not None:
            yield f"segment {segment} {problem}"


def _answer_problem(ids: Int32Array, mask: BoolArray, num_supervised: int, stop_id: int) -> str | None:
    if num_supervised == 0:
        return "holds an example without a supervised token"
    if not bool(mask[-num_supervised:].all()):
        return "has supervised tokens that are not one run up to its end"
    if int(ids[-1]) != stop_id:
        return f"ends in id {int(ids[-1])}, not in the stop token {stop_id}"
    if bool(np.any(ids[-num_supervised:-1] == stop_id)):
        return "has the stop token in the middle of its answer"
    return None


def _prompt_problem(ids: Int32Array, row: PackedRow, segment: int, frame: Frame) -> str | None:
    """`ids`: the unsupervised part of the segment. A token covers a byte or more, which bounds what to decode."""
    if row.parents[segment] == ROOT:
        text = frame.decode(ids[: len(frame.opening.encode())])
        starts_well = np.array_equal(ids[: len(frame.opening_ids)], frame.opening_ids)
        if not text.startswith(frame.opening):
            starts_well &= row.tasks[segment] >= 0 and _asks_without_lyrics(ids, frame)
        if not starts_well:
            return f"does not begin with the format's opening, but with {text[:60]!r}"
    if row.tasks[segment] >= 0:
        text = frame.decode(ids[-len(frame.header.encode()) :])
        num_header = len(frame.header_ids)
        ends_well = num_header == 0 or np.array_equal(ids[-num_header:], frame.header_ids)
        if not ends_well or not text.endswith(frame.header):
            return f"has a question that does not end with {frame.header!r}, but with {text[-60:]!r}"
    return None


def _asks_without_lyrics(ids: Int32Array, frame: Frame) -> bool:
    text = frame.decode(ids)
    return text.startswith(frame.bare_opening) and frame.seam not in text
