"""The operator's FLOPs are counted as what it computes, and the kernels of a GPU are called as torch calls them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from harness.attention.flash import attend_forest
from harness.attention.layout import ForestLayout
from harness.attention.plain import count_plain_pairs, plain_forest_attention
from harness.attention.varlen import FlashKernels, Sequences
from tests.attention_cases import SCALE, draw_rows, draw_tensors, make_case


def count_flops(layout: ForestLayout, tensors: list[torch.Tensor], attend: Any = attend_forest) -> int:
    with FlopCounterMode(display=False) as counter:
        out = attend(*tensors, layout, SCALE)
        torch.autograd.grad(out, tensors, torch.ones_like(out))
    return int(counter.get_total_flops())


def test_the_flop_counter_counts_two_products_forward_and_five_backward_of_the_visible_pairs() -> None:
    case = make_case(draw_rows(5), flat=False)
    tensors = [tensor.requires_grad_() for tensor in draw_tensors(case, (6, 2, 8))]
    assert count_flops(case.layout, tensors) == 14 * case.layout.pairs * 6 * 8
    # Torch counts the plain reference's own products: those of hidden pairs too, and no scores a second time.
    by_torch = count_flops(case.layout, tensors, plain_forest_attention)
    assert by_torch == 12 * count_plain_pairs(case.layout) * 6 * 8


def test_fake_tensors_are_counted_without_computing() -> None:
    case = make_case(draw_rows(5), flat=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        tensors = [
            torch.empty(x.transpose(1, 2).shape).transpose(1, 2).requires_grad_()
            for x in draw_tensors(case, (6, 2, 8))
        ]
        assert count_flops(case.layout, tensors) == 14 * case.layout.pairs * 6 * 8


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the arguments of flash kernels, by their names in the operator's schema, as shapes and numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "_flash_attention" in str(func):
            names = [argument.name for argument in func._schema.arguments]
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            self.calls.append((str(func), {name: describe(value) for name, value in given.items()}))
        return func(*args, **kwargs)


def describe(value: Any) -> Any:
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else value


DEFAULTS = {
    "window_size_left": -1,
    "window_size_right": -1,
    "seqused_k": None,
    "block_table": None,
    "num_splits": None,
}
"""What torch's own caller spells out besides."""


@pytest.mark.parametrize("causal", [True, False])
def test_the_flash_kernels_are_called_as_torch_calls_them_for_sequences_of_any_length(causal: bool) -> None:
    query, grad = (torch.empty(11, 4, 16, dtype=torch.bfloat16, device="meta") for _ in range(2))
    key, value = (torch.empty(9, 2, 16, dtype=torch.bfloat16, device="meta") for _ in range(2))
    cu_q, cu_k = (torch.empty(4, dtype=torch.int32, device="meta") for _ in range(2))
    state = torch.empty(2, dtype=torch.uint64, device="meta")
    sequences = Sequences(cu_q, cu_k, max_q=6, max_k=5, causal=causal)
    with Recorder() as ours:
        out, lse = FlashKernels().forward(query, key, value, sequences, 0.5)
        grads = FlashKernels().backward(grad, query, key, value, out, lse, sequences, 0.5)
    with Recorder() as torchs:
        given = (cu_q, cu_k, 6, 5, causal)
        varlen._varlen_attn._init_fn(query, key, value, *given, 0.5)
        varlen._varlen_attn_backward._init_fn(grad, query, key, value, out, lse, *given, state, 0.5)
    assert (out.shape, lse.shape, lse.dtype) == ((11, 4, 16), (4, 11), torch.float32)
    assert [found.shape for found in grads] == [query.shape, key.shape, value.shape]
    assert len(ours.calls) == len(torchs.calls) == 2
    for (name, found), (expected_name, expected) in zip(ours.calls, torchs.calls, strict=True):
        assert name == expected_name
        assert found == {k: v for k, v in expected.items() if k not in DEFAULTS}
        assert all(expected[k] == v for k, v in DEFAULTS.items() if k in expected)


def test_single_queries_do_not_take_the_path_meant_for_decoding() -> None:
    query, key = (torch.empty(3, heads, 16, dtype=torch.bfloat16, device="meta") for heads in (4, 2))
    cu = torch.empty(4, dtype=torch.int32, device="meta")
    with Recorder() as recorder:
        FlashKernels().forward(query, key, key, Sequences(cu, cu, max_q=1, max_k=1, causal=True), 0.5)
    ((_, found),) = recorder.calls
    assert (found["max_q"], found["max_k"]) == (2, 1)
