"""FlexAttention under the block mask of a forest.

Its kernels need a GPU. Here torch's dense stand-in computes, which reads the rule of the mask and not its blocks; these
are held against those that torch derives from the rule. What only a GPU can show: the compiled kernels' own numbers.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from harness.attention.choice import forest_attention_forward
from harness.attention.flex import BLOCK, attend_blocks, build_block_mask
from tests.attention_cases import (
    SCALE,
    Attend,
    Case,
    dense,
    draw_rows,
    draw_tensors,
    largest_difference,
    make_case,
    make_row,
    run,
)

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make_long_case() -> Case:
    """Songs over several blocks of 128 slots, some of which are seen whole; the last block is not full."""
    row = make_row([300, 60, 150, 40, 140, 30], [-1, 0, 0, 2, -1, 4])
    return make_case([row, make_row([500, 100], [-1, 0])], flat=False)


def flex(case: Case) -> Attend:
    return partial(attend_blocks, mask=build_block_mask(case.entry, case.exit), scale=SCALE)


@pytest.mark.parametrize("seed", range(4))
def test_the_output_is_that_of_the_dense_mask(seed: int) -> None:
    case = make_case(draw_rows(seed), flat=seed % 2 == 0)
    tensors = draw_tensors(case)
    found = flex(case)(*tensors)
    assert largest_difference([found], [dense(case.mask)(*tensors)]) < 1e-10
    assert found.is_contiguous()


@pytest.mark.parametrize("seed", range(3))
def test_the_gradients_of_torchs_dense_stand_in_are_those_of_the_dense_mask(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch refuses gradients on the CPU only because its compiled CPU kernel has none; the stand-in has."""
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    case = make_case(draw_rows(seed), flat=seed % 2 == 0)
    tensors = draw_tensors(case)
    found = run(flex(case), tensors, case.is_token)
    assert largest_difference(found, run(dense(case.mask), tensors, case.is_token)) < 1e-10


def test_a_mask_of_another_forest_gives_another_output() -> None:
    case = make_case([make_row([5, 3, 2], [-1, 0, 0])], flat=True)
    other = make_case([make_row([5, 3, 2], [-1, 0, 1])], flat=True)
    tensors = draw_tensors(case)
    found = flex(other)(*tensors)
    assert largest_difference([found], [dense(case.mask)(*tensors)]) > 1e-3


def test_the_block_mask_is_the_one_torch_derives_from_every_pair() -> None:
    case = make_long_case()
    rows, slots = case.entry.shape
    mask = build_block_mask(case.entry, case.exit)
    assert mask.mask_mod is not None
    expected = create_block_mask(mask.mask_mod, rows, None, slots, slots, device="cpu", BLOCK_SIZE=BLOCK)
    assert mask.shape == expected.shape
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(mask, name), getattr(expected, name))
    for counts, indices in (
        ("kv_num_blocks", "kv_indices"),
        ("full_kv_num_blocks", "full_kv_indices"),
        ("q_num_blocks", "q_indices"),
        ("full_q_num_blocks", "full_q_indices"),
    ):
        used = torch.arange(getattr(mask, indices).shape[-1]) < getattr(mask, counts)[..., None]
        assert torch.equal(getattr(mask, indices)[used], getattr(expected, indices)[used])
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_num_blocks.sum() > 0
    assert mask.sparsity() > 0


def test_the_rule_of_the_mask_is_that_of_the_dense_mask() -> None:
    case = make_long_case()
    mask = build_block_mask(case.entry, case.exit)
    rows, slots = case.entry.shape
    row, q, k = torch.meshgrid(torch.arange(rows), torch.arange(slots), torch.arange(slots), indexing="ij")
    assert mask.mask_mod is not None
    assert torch.equal(mask.mask_mod(row, torch.zeros_like(row), q, k), case.mask[:, 0])


def test_a_model_hands_a_block_mask_to_flex_attention() -> None:
    case = make_case(draw_rows(1), flat=True)
    tensors = draw_tensors(case)
    attend = partial(forest_attention_forward, torch.nn.Module(), attention_mask=None, scaling=SCALE)
    found, _ = attend(*tensors, forest=build_block_mask(case.entry, case.exit))
    assert largest_difference([found], [dense(case.mask)(*tensors)]) < 1e-10
