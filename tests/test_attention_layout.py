"""A layout holds exactly the pairs that see each other."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from harness.attention.layout import ForestLayout, build_layout, read_blocks
from tests.attention_cases import draw_rows, make_case, make_row


def count_by_blocks(layout: ForestLayout) -> torch.Tensor:
    """int64[N, N]: how often a layout's blocks hold each pair."""
    count = torch.zeros(layout.num_slots, layout.num_slots, dtype=torch.int64)
    for block in read_blocks(layout.spans):
        own = slice(*block.span)
        count[own, own] += torch.ones_like(count[own, own]).tril()
        for span in block.seen:
            count[own, slice(*span)] += 1
    return count


def count_by_levels(layout: ForestLayout) -> torch.Tensor:
    """int64[N, N]: how often the sequences of a layout hold each pair."""
    count = torch.zeros(layout.num_slots, layout.num_slots, dtype=torch.int64)
    bounds = layout.cu_seqlens.tolist()
    for start, stop in pairwise(bounds):
        count[start:stop, start:stop] += torch.ones(stop - start, stop - start, dtype=torch.int64).tril()
    for level in layout.levels:
        for i in range(len(level.cu_q) - 1):
            queries = level.query_slots[level.cu_q[i] : level.cu_q[i + 1]]
            keys = level.key_slots[level.cu_k[i] : level.cu_k[i + 1]]
            count[queries[:, None], keys] += 1
    return count


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_blocks_and_levels_hold_each_visible_pair_once_and_no_other(seed: int, flat: bool) -> None:
    case = make_case(draw_rows(seed), flat=flat)
    rows, _, slots, _ = case.mask.shape
    expected = torch.zeros(rows, slots, rows, slots, dtype=torch.int64)
    expected[torch.arange(rows), :, torch.arange(rows)] = case.mask[:, 0].to(torch.int64)
    expected = expected.view(rows * slots, rows * slots)
    padding = ~case.is_token.flatten()
    for counted in (count_by_blocks(case.layout), count_by_levels(case.layout)):
        assert case.layout.pairs == counted.sum()
        counted[padding[:, None] & padding[None, :]] = 0  # padding may see padding
        expected[padding[:, None] & padding[None, :]] = 0
        assert torch.equal(counted, expected)
    assert case.layout.num_slots == rows * slots


@pytest.mark.parametrize("seed", range(40))
def test_no_slot_is_twice_in_a_level(seed: int) -> None:
    for level in build_layout(draw_rows(seed)).levels:
        for slots in (level.query_slots, level.key_slots):
            assert len(set(slots.tolist())) == len(slots)
        assert level.max_q == level.cu_q.diff().max()
        assert level.max_k == level.cu_k.diff().max()
        assert level.cu_q.dtype == level.cu_k.dtype == torch.int32


def test_a_song_with_branches_is_one_block_and_a_block_for_each_further_branch() -> None:
    layout = build_layout([make_row([4, 3, 2, 3], [-1, 0, 0, -1])])
    assert [(block.span, block.seen) for block in read_blocks(layout.spans)] == [
        ((0, 7), ()),
        ((7, 9), ((0, 4),)),
        ((9, 12), ()),
    ]
    (level,) = layout.levels
    assert level.query_slots.tolist() == [7, 8]
    assert level.key_slots.tolist() == [0, 1, 2, 3]
    assert layout.pairs == 7 * 8 // 2 + 2 * 3 // 2 + 2 * 4 + 3 * 4 // 2
    assert layout.max_seqlen == 7


def test_a_row_without_branches_has_no_levels() -> None:
    chain_and_roots = build_layout([make_row([4, 3, 2, 5], [-1, 0, 1, -1])])
    assert chain_and_roots.levels == ()
    assert chain_and_roots.cu_seqlens.tolist() == [0, 9, 14]


def test_several_songs_need_one_level() -> None:
    row = make_row([4, 2, 2, 2] * 3, [-1, 0, 0, 0, -1, 4, 4, 4, -1, 8, 8, 8])
    assert len(build_layout([row, row]).levels) == 1


def test_no_rows_are_one_slot_of_padding() -> None:
    assert build_layout([]).cu_seqlens.tolist() == [0, 1]
    assert build_layout([], 3).cu_seqlens.tolist() == [0, 3]


def test_a_row_longer_than_its_place_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 7 slots does not fit into 6"):
        build_layout([make_row([4, 3], [-1, 0])], 6)


def test_moving_a_layout_leaves_on_the_cpu_what_is_read_there() -> None:
    moved = make_case(draw_rows(3), flat=True).layout.to(torch.device("meta"))
    assert moved.spans.device.type == moved.header.device.type == "cpu"
    assert moved.cu_seqlens.device.type == moved.no_mask.device.type == "meta"
    assert all(level.query_slots.device.type == "meta" for level in moved.levels)
