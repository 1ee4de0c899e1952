"""Attention of forests without a mask equals attention under the dense mask: outputs and gradients, on every path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from harness.attention.flash import (
    attend_forest,
    attend_on_gpu,
    attend_on_gpu_backward,
    choose_tensors,
    forest_attention,
)
from harness.attention.layout import Block, ForestLayout, assemble_layout, build_layout, read_blocks
from harness.attention.parts import join_parts
from harness.attention.plain import plain_forest_attention
from harness.attention.tiles import TILE
from tests.attention_cases import (
    SCALE,
    Attend,
    Case,
    LoopKernels,
    dense,
    draw_rows,
    draw_tensors,
    largest_difference,
    make_case,
    make_row,
    run,
)

EXACT = 1e-10


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def flash(layout: ForestLayout) -> Attend:
    """The operator, by the CPU's kernel."""
    return partial(attend_forest, layout=layout, scale=SCALE)


def plain(layout: ForestLayout) -> Attend:
    return partial(plain_forest_attention, layout=layout, scale=SCALE)


class Varlen(torch.autograd.Function):
    """The path of a GPU, over kernels that loop over their sequences."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> torch.Tensor:
        ctx.rest = (*given[3:], SCALE, LoopKernels())
        out, lse = attend_on_gpu(*given[:3], *ctx.rest)
        ctx.save_for_backward(*given[:3], out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return *attend_on_gpu_backward(*grads, *ctx.saved_tensors, *ctx.rest), None, None


def varlen(layout: ForestLayout) -> Attend:
    given = choose_tensors(layout, torch.device("cuda"))
    return lambda *tensors: cast("torch.Tensor", Varlen.apply(*tensors, *given))  # type: ignore[no-untyped-call]


PATHS = {"flash": flash, "varlen": varlen, "plain": plain}
HEADS = [(6, 2, 8), (4, 4, 8), (3, 1, 16)]


def reference(case: Case, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return run(dense(case.mask), tensors, case.is_token)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_random_forests_give_what_the_dense_mask_gives(seed: int, flat: bool, path: str) -> None:
    case = make_case(draw_rows(seed, plain=seed % 4 == 3), flat=flat)
    tensors = draw_tensors(case, HEADS[seed % 3])
    found = run(PATHS[path](case.layout), tensors, case.is_token)
    assert largest_difference(found, reference(case, tensors)) < EXACT


@pytest.mark.parametrize("path", PATHS)
def test_segments_longer_than_a_tile_give_what_the_dense_mask_gives(path: str) -> None:
    lengths = [2 * TILE + 5, TILE, TILE + 1, 7, 2 * TILE]
    case = make_case([make_row(lengths, [-1, 0, 0, 2, 0])], flat=True)
    tensors = draw_tensors(case, (4, 2, 8))
    found = run(PATHS[path](case.layout), tensors, case.is_token)
    assert largest_difference(found, reference(case, tensors)) < EXACT


@pytest.mark.parametrize("path", PATHS)
def test_large_scores_do_not_overflow(path: str) -> None:
    case = make_case(draw_rows(5), flat=True)
    tensors = draw_tensors(case, spread=60.0)
    found = run(PATHS[path](case.layout), tensors, case.is_token)
    assert largest_difference(found, reference(case, tensors)) < 1e-7  # of gradients in the thousands


@pytest.mark.parametrize("path", ["flash", "varlen"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_error_in_lower_precision_is_that_of_the_dense_kernel(path: str, dtype: torch.dtype) -> None:
    row = make_row([70, 20, 20, 20, 60, 30, 30], [-1, 0, 0, 2, -1, 4, 4])
    case = make_case([row], flat=True)
    tensors = draw_tensors(case, (6, 2, 32), dtype)
    exact = reference(case, [tensor.double() for tensor in tensors])
    found = run(PATHS[path](case.layout), tensors, case.is_token)
    baseline = reference(case, tensors)
    for ours, torchs, true in zip(found, baseline, exact, strict=True):
        assert (ours - true).square().mean() <= 1.5**2 * (torchs - true).square().mean()


def without_last_seen(blocks: list[Block]) -> list[Block]:
    """An ancestor is lost to those that have any."""
    return [Block(block.span, block.seen[:-1]) for block in blocks]


def with_siblings(blocks: list[Block]) -> list[Block]:
    """A block sees the one before it whole."""
    return [blocks[0], *(Block(b.span, (a.span,)) for a, b in pairwise(blocks))]


def as_one_block(blocks: list[Block]) -> list[Block]:
    """Everything before is seen: what packing without boundaries does."""
    return [Block((0, blocks[-1].span[1]))]


@pytest.mark.parametrize("path", ["flash", "varlen", "plain"])
@pytest.mark.parametrize("spoil", [without_last_seen, with_siblings, as_one_block])
def test_a_layout_that_holds_other_pairs_gives_another_result(
    spoil: Callable[[list[Block]], list[Block]], path: str
) -> None:
    case = make_case([make_row([5, 3, 2, 4], [-1, 0, 0, 0])], flat=True)
    tensors = draw_tensors(case)
    spoilt = assemble_layout(spoil(read_blocks(case.layout.spans)))
    found = run(PATHS[path](spoilt), tensors, case.is_token)
    for ours, true in zip(found, reference(case, tensors), strict=True):
        assert (ours - true).abs().max() > 1e-3


def test_a_dropped_level_gives_another_result() -> None:
    case = make_case([make_row([5, 3, 2, 4, 2], [-1, 0, 0, 2, 2])], flat=True)
    tensors = draw_tensors(case)
    assert len(case.layout.levels) == 2
    for levels in (case.layout.levels[:1], case.layout.levels[1:]):
        indices, header = join_parts(replace(case.layout.parts, levels=levels))
        spoilt = replace(case.layout, indices=indices, header=header)
        found = run(varlen(spoilt), tensors, case.is_token)
        assert largest_difference(found, reference(case, tensors)) > 1e-3


@pytest.mark.parametrize("spoilt", ["forward", "backward"])
def test_merging_without_the_log_sum_exp_gives_another_result(
    spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case([make_row([5, 3, 2, 4], [-1, 0, 0, 0])], flat=True)
    tensors = draw_tensors(case)
    expected = reference(case, tensors)
    if spoilt == "forward":  # each part weighs the same
        monkeypatch.setattr("harness.attention.varlen._weigh", lambda out, _: out / 2)
    else:  # each call of the backward pass takes the log-sum-exp of its own keys
        monkeypatch.setattr(LoopKernels, "backward", backward_of_own_keys)
    found = run(varlen(case.layout), tensors, case.is_token)
    assert largest_difference(found[1:], expected[1:]) > 1e-3


def backward_of_own_keys(kernels: LoopKernels, *arguments: Any) -> Any:
    grad_out, query, key, value, _, _, sequences, scale = arguments
    out, lse = kernels.forward(query, key, value, sequences, scale)
    return BACKWARD(kernels, grad_out, query, key, value, out, lse, sequences, scale)


BACKWARD = LoopKernels.backward


def test_numeric_differentiation_agrees() -> None:
    layout = build_layout([make_row([3, 2, 2, 1], [-1, 0, 0, 2])])
    tensors = [torch.randn(1, heads, 8, 4, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)]
    assert torch.autograd.gradcheck(flash(layout), tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_operator_keeps_the_rules_of_torch(dtype: torch.dtype) -> None:
    case = make_case(draw_rows(2), flat=False)
    tensors = [tensor.requires_grad_() for tensor in draw_tensors(case, dtype=dtype)]
    given = (*tensors, *choose_tensors(case.layout, torch.device("cpu")), case.layout.pairs, SCALE)
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if dtype == torch.float64:
        tests.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(forest_attention, given, test_utils=tests)


def test_the_output_needs_no_copy_to_become_hidden_states() -> None:
    case = make_case(draw_rows(2), flat=False)
    out = flash(case.layout)(*draw_tensors(case))
    assert out.shape == (*case.is_token.shape, 6, 8)
    assert out.is_contiguous()


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("path", ["flash", "varlen"])
def test_inputs_laid_out_by_head_give_the_same_in_the_same_layout(path: str, flat: bool) -> None:
    case = make_case(draw_rows(2), flat=flat)
    tensors = draw_tensors(case)
    by_head = run(PATHS[path](case.layout), [tensor.contiguous() for tensor in tensors], case.is_token)
    by_slot = run(PATHS[path](case.layout), tensors, case.is_token)
    assert all(torch.equal(a, b) for a, b in zip(by_head, by_slot, strict=True))
    out = PATHS[path](case.layout)(*[tensor.contiguous() for tensor in tensors])
    assert out.is_contiguous()


def test_a_checkpoint_gives_the_same_gradients() -> None:
    case = make_case(draw_rows(6), flat=True)
    tensors = draw_tensors(case)

    def attend(*given: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = checkpoint(flash(case.layout), *given, use_reentrant=False)
        return out

    found = run(attend, tensors, case.is_token)
    expected = run(flash(case.layout), tensors, case.is_token)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_frozen_model_without_gradients_computes_the_same() -> None:
    case = make_case(draw_rows(6), flat=True)
    tensors = draw_tensors(case)
    with torch.inference_mode():
        found = flash(case.layout)(*tensors)
    assert torch.equal(found, flash(case.layout)(*tensors))


def test_a_layout_of_other_slots_is_refused() -> None:
    case = make_case(draw_rows(6), flat=True)
    tensors = draw_tensors(case)
    with pytest.raises(ValueError, match="the layout describes 1 slots, but the queries have"):
        flash(build_layout([]))(*tensors)
