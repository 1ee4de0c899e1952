from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.forest import (
    PackedRow,
    check_row,
    concatenate,
    euler_intervals,
    example_paths,
    labels,
    position_ids,
    segment_of_slot,
    segment_starts,
    unpack_examples,
)
from preprocess.schema import IGNORE_INDEX, ROOT, BoolArray
from tests.toys import encode_songs, make_songs, make_tokenizer


def make_row(seq_lens: list[int], parents: list[int], supervised: set[int] | None = None) -> PackedRow:
    """A row whose ids are 100, 101, …; every segment whose index is in `supervised` has its last slot trained."""
    num_slots = sum(seq_lens)
    mask = np.zeros(num_slots, dtype=np.bool_)
    ends = np.cumsum(seq_lens)
    for segment in supervised or set():
        mask[ends[segment] - 1] = True
    return PackedRow(
        input_ids=np.arange(100, 100 + num_slots, dtype=np.int32),
        label_mask=mask,
        seq_lens=np.array(seq_lens, dtype=np.int32),
        parents=np.array(parents, dtype=np.int32),
        tasks=np.array(
            [0 if i in (supervised or set()) else -1 for i in range(len(seq_lens))], dtype=np.int32
        ),
        song_ids=tuple(f"song-{i}" for i in range(len(seq_lens))),
    )


DRAWN = make_row([4, 3, 2, 2], [-1, 0, 0, -1], {1, 2, 3})
"""The row that the module's docstring draws."""


@st.composite
def rows(draw: st.DrawFn) -> PackedRow:
    seq_lens = draw(st.lists(st.integers(2, 5), min_size=1, max_size=9))
    parents = [draw(st.integers(ROOT, i - 1)) for i in range(len(seq_lens))]
    leaves = set(range(len(seq_lens))) - set(parents)
    return make_row(seq_lens, parents, leaves)


def sees_by_walking(row: PackedRow) -> BoolArray:
    """bool[T, T]: whether slot q may see slot k, by climbing from q's segment to its root."""
    of = segment_of_slot(row)
    sees = np.zeros((len(of), len(of)), dtype=np.bool_)
    for q in range(len(of)):
        segment = int(of[q])
        while segment != ROOT:
            sees[q] |= of == segment
            segment = int(row.parents[segment])
        sees[q, q + 1 :] = False
    return sees


def sees_by_intervals(row: PackedRow) -> BoolArray:
    entry, exit_ = euler_intervals(row)
    of, slots = segment_of_slot(row), np.arange(len(row.input_ids))
    q, k = entry[of][:, None], entry[of][None, :]
    sees: BoolArray = (k <= q) & (q < exit_[of][None, :]) & (slots[None, :] <= slots[:, None])
    return sees


def test_the_drawn_row_has_the_positions_and_starts_of_the_drawing() -> None:
    assert position_ids(DRAWN).tolist() == [0, 1, 2, 3, 4, 5, 6, 4, 5, 0, 1]
    assert position_ids(DRAWN).dtype == np.int32
    assert segment_starts(DRAWN).tolist() == [0, 4, 7, 9]
    assert segment_of_slot(DRAWN).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert example_paths(DRAWN) == [[0, 1], [0, 2], [3]]
    assert DRAWN.num_examples == 3


def test_positions_of_a_deeper_tree_go_on_from_each_parent() -> None:
    row = make_row([2, 3, 2, 2, 1], [-1, 0, 1, 0, 3])
    assert position_ids(row).tolist() == [0, 1, 2, 3, 4, 5, 6, 2, 3, 4]


def test_labels_are_the_ids_where_supervised() -> None:
    row = make_row([3, 2], [-1, 0], {1})
    assert labels(row).tolist() == [IGNORE_INDEX] * 4 + [104]
    assert labels(row).dtype == np.int32


@given(row=rows())
def test_euler_intervals_see_what_a_walk_to_the_root_sees(row: PackedRow) -> None:
    check_row(row, vocab_size=1000)
    assert np.array_equal(sees_by_intervals(row), sees_by_walking(row))


@given(row=rows())
def test_intervals_alone_tell_ancestors_from_all_others(row: PackedRow) -> None:
    entry, exit_ = euler_intervals(row)
    for q in range(len(row.parents)):
        ancestors, segment = set(), q
        while segment != ROOT:
            ancestors.add(segment)
            segment = int(row.parents[segment])
        assert set(np.flatnonzero((entry <= entry[q]) & (entry[q] < exit_)).tolist()) == ancestors


def test_the_comparison_with_the_walk_would_see_a_wrong_parent() -> None:
    wrong = replace(DRAWN, parents=np.array([-1, 0, 1, -1], dtype=np.int32))
    assert not np.array_equal(sees_by_intervals(DRAWN), sees_by_walking(wrong))
    assert sees_by_walking(wrong)[8, 6]
    assert not sees_by_intervals(DRAWN)[8, 6]


@given(row=rows())
def test_each_slot_sees_as_many_slots_as_its_position_says(row: PackedRow) -> None:
    assert np.array_equal(sees_by_intervals(row).sum(axis=1), position_ids(row) + 1)


@given(row=rows())
def test_an_unpacked_example_is_what_its_last_slot_sees(row: PackedRow) -> None:
    sees, starts = sees_by_walking(row), segment_starts(row)
    examples = unpack_examples(row)
    assert len(examples) == row.num_examples
    for example, path in zip(examples, example_paths(row), strict=True):
        last_slot = starts[path[-1]] + row.seq_lens[path[-1]] - 1
        assert example.input_ids.tolist() == row.input_ids[sees[last_slot]].tolist()
        assert position_ids(example).tolist() == position_ids(row)[sees[last_slot]].tolist()
        assert example.song_ids == (row.song_ids[path[-1]],)
        check_row(example)


def test_an_unpacked_example_keeps_only_its_own_supervision() -> None:
    row = make_row([3, 3, 2], [-1, 0, 1], {1, 2})
    deepest = unpack_examples(row)[1]
    assert deepest.input_ids.tolist() == row.input_ids.tolist()
    assert deepest.label_mask.tolist() == [False] * 7 + [True]


def test_unpacked_examples_are_the_examples_encoded_one_by_one() -> None:
    tokenizer, songs = make_tokenizer("chatml"), make_songs(6)
    shared = encode_songs(songs, tokenizer, 512)
    separate = encode_songs(songs, tokenizer, 512, share_prefix=False)
    assert any(row.parents.max() >= 0 for row in shared)
    assert all(row.parents.max() == ROOT for row in separate)
    assert examples_of(shared) == examples_of(separate)


def examples_of(packed: list[PackedRow]) -> list[Any]:
    return sorted(
        (e.song_ids, int(e.tasks[0]), e.input_ids.tolist(), labels(e).tolist(), position_ids(e).tolist())
        for row in packed
        for e in unpack_examples(row)
    )


@given(first=rows(), second=rows())
def test_concatenated_rows_do_not_see_each_other(first: PackedRow, second: PackedRow) -> None:
    both = concatenate([first, second])
    check_row(both)
    cut = len(first.input_ids)
    sees = sees_by_intervals(both)
    assert np.array_equal(sees[:cut, :cut], sees_by_walking(first))
    assert np.array_equal(sees[cut:, cut:], sees_by_walking(second))
    assert not sees[cut:, :cut].any()
    assert not sees[:cut, cut:].any()
    assert position_ids(both).tolist() == position_ids(first).tolist() + position_ids(second).tolist()
    assert both.parents.dtype == np.int32


def test_a_well_formed_row_passes_its_check() -> None:
    check_row(DRAWN)
    check_row(DRAWN, vocab_size=111)


def ints(*values: int) -> Any:
    return np.array(values, dtype=np.int32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_lens": ints(4, 3, 2, 3)}, "11 ids"),
        ({"label_mask": DRAWN.label_mask[:-1]}, "10 mask values"),
        ({"parents": ints(-1, 0, 0)}, "4 segments, but 3 parents"),
        ({"tasks": ints(-1, 0, 0)}, "3 tasks"),
        ({"song_ids": ("a", "b", "c")}, "4 segments"),
        ({"seq_lens": ints(4, 3, 4, 0)}, "each segment a token"),
        ({"seq_lens": ints(4, 3, 6, -2)}, "each segment a token"),
        ({"parents": ints(-1, 1, 0, -1)}, "parent must come before"),
        ({"parents": ints(-1, 2, 0, -1)}, "parent must come before"),
        ({"parents": ints(-1, 0, 0, 4)}, "parent must come before"),
        ({"parents": ints(-1, 0, -2, -1)}, "parent must come before"),
        ({"label_mask": np.arange(11) == 4}, "first token of a segment is supervised"),
        ({"input_ids": DRAWN.input_ids + 1}, "outside the vocabulary of 111"),
        ({"input_ids": DRAWN.input_ids - 101}, "outside the vocabulary of 111"),
    ],
)
def test_the_check_catches_each_malformation(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_row(replace(DRAWN, **changes), vocab_size=111)


def test_the_check_refuses_an_empty_row() -> None:
    empty = PackedRow(ints(), np.zeros(0, dtype=np.bool_), ints(), ints(), ints(), ())
    with pytest.raises(ValueError, match="a row needs a segment"):
        check_row(empty)
