"""A model put together for training: what is refused, and what torch compiles of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

from harness.assembly import VARIANTS_OF_A_LAYER, Assembly, assemble, check_float8, set_attention
from harness.attention.choice import read_head_dim
from harness.attention.flash import attend_on_gpu, attend_on_gpu_backward
from harness.attention.layout import ForestLayout
from harness.config import LoraSettings, ModelSettings, Precision
from harness.data import MicroBatch, collate
from harness.recompute import decoder_layers
from preprocess.errors import ConfigError
from tests.attention_cases import LoopKernels, make_row

pytestmark = [  # torch's own, while it traces
    pytest.mark.filterwarnings(
        "ignore:<class 'torch.autograd.function.Function'> should not be:DeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NUM_LAYERS = 12

FORESTS = [
    ([33, 12, 9, 7], [-1, 0, 0, 0]),
    ([40, 10, 10], [-1, 0, 0]),
    ([50, 8], [-1, 0]),
    ([21, 5, 6, 7], [-1, 0, 1, 0]),
    ([21, 5, 6, 7, 4, 3], [-1, 0, 1, 0, 1, 0]),
    ([20, 7, 6, 5, 4, 3, 9, 3, 2], [-1, 0, 1, 2, 3, 2, 1, 0, 0]),
    ([30, 7, 1], [-1, 0, 0]),
]
"""Lengths and parents of rows with none to several levels. No tensor of the first one's layout is as long as a head is
wide: for torch such sizes are one, until they differ."""


def make_base(**changes: Any) -> LlamaForCausalLM:
    """A tiny frozen Llama; the weights are the same at each call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
        **changes,
    )
    return LlamaForCausalLM(config).requires_grad_(requires_grad=False)


def put_together(dropout: float, *, compile_layers: bool, recompute: int = 0) -> Assembly:
    """A model of many layers; compiled by dynamo and run as it stands, which needs no compiler."""
    settings = ModelSettings(path="x", precision="fp32", recompute_layers=recompute)
    lora = LoraSettings(r=4, alpha=8, dropout=dropout)
    found = assemble(make_base(num_hidden_layers=NUM_LAYERS), settings, lora, seed=0, device=CPU)
    for name, weight in found.adapter.named_parameters():
        if "lora_B" in name:  # they start at zero, where no dropout would be seen
            nn.init.normal_(weight, std=0.1)
    if compile_layers:
        for layer in decoder_layers(found.model.causal):
            layer.compile(dynamic=True, backend="eager")
    return found


def train_on(found: Assembly, batch: MicroBatch, seed: int) -> list[torch.Tensor]:
    """The losses of a training pass and the adapters' gradients."""
    found.model.zero_grad()
    loss_sum, losses = found.model.train()(batch, seed=seed)
    loss_sum.backward()
    grads = [weight.grad for weight in found.model.parameters() if weight.requires_grad]
    assert all(grad is not None for grad in grads)
    return [losses, *(grad.clone() for grad in grads if grad is not None)]


def evaluate_on(found: Assembly, batch: MicroBatch) -> torch.Tensor:
    """The losses without gradients and dropout."""
    with torch.no_grad():
        _, losses = found.model.eval()(batch)
    assert isinstance(losses, torch.Tensor)
    return losses


def make_batch(lengths: list[int], parents: list[int]) -> MicroBatch:
    """One row, of which all tokens but the first are predicted."""
    row = make_row(lengths, parents)
    row.label_mask[1:] = True
    return collate([row])


class PretendedGpu:
    """Lets the operator be given what a GPU's kernels need, and compute their way with kernels that loop."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.indices = torch.empty(0, dtype=torch.int64)
        patch.setattr(
            "harness.attention.flash.choose_tensors", lambda found, _: (found.indices, found.header)
        )
        patch.setattr("harness.attention.flash.attend_tiles", partial(self.compute, attend_on_gpu))
        patch.setattr(
            "harness.attention.flash.attend_tiles_backward", partial(self.compute, attend_on_gpu_backward)
        )

    def show(self, layout: ForestLayout) -> None:
        """Hand over what a CPU's kernels are not given, before each pass."""
        self.indices = layout.indices

    def compute(self, attend: Any, *given: Any) -> Any:
        *tensors, header, scale = given
        return attend(*tensors, self.indices, header, scale, LoopKernels())


@pytest.fixture(autouse=True)
def _nothing_compiled() -> None:
    torch._dynamo.reset()
    counters.clear()


def count_graphs() -> int:
    """Graphs that were made; raises where torch gave up and ran a layer as it was."""
    frames = counters["frames"]
    assert frames["ok"] == frames["total"]
    assert not counters["graph_break"]
    return int(counters["stats"]["unique_graphs"])


def run_all(*, recompute: int = 0, show: Callable[[ForestLayout], None] = lambda _: None) -> int:
    """Train and evaluate on all forests, compiled and not; the graphs that it took, and all results agreed."""
    compiled, plain = (
        put_together(0.1, compile_layers=compile_layers, recompute=recompute)
        for compile_layers in (True, False)
    )
    for seed, forest in enumerate(FORESTS):
        batch = make_batch(*forest)
        show(batch.layout)
        pairs = zip(train_on(compiled, batch, seed), train_on(plain, batch, seed), strict=True)
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
        assert torch.allclose(evaluate_on(compiled, batch), evaluate_on(plain, batch), rtol=1e-4, atol=1e-5)
    return count_graphs()


@pytest.mark.slow
def test_a_few_graphs_serve_all_layers_and_layouts_where_some_are_recomputed() -> None:
    assert (
        run_all(recompute=2) <= 5
    )  # with gradients the first, the second and the others; without, two kinds


def test_a_few_graphs_serve_all_layers_and_layouts_as_a_gpu_is_given_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = PretendedGpu(monkeypatch)
    assert {len(make_batch(*forest).layout.levels) for forest in FORESTS} >= {0, 1, 2, 3}
    assert (
        run_all(show=gpu.show) <= 3
    )  # with gradients the first layer, whose input has none, and the others; without


def test_compilation_may_make_more_variants_than_torch_allows_by_itself() -> None:
    with torch._dynamo.config.patch(recompile_limit=8):
        for asked, limit in ((False, 8), (True, VARIANTS_OF_A_LAYER)):
            settings = ModelSettings(path="x", precision="fp32", compile=asked)
            assemble(make_base(num_hidden_layers=1), settings, LoraSettings(r=2), seed=0, device=CPU)
            assert torch._dynamo.config.recompile_limit == limit


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_float8_on_a_gpu_needs_bf16(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    settings = ModelSettings(path="x", precision=precision, fp8=True)
    message = f"but model.precision is {precision}. Set model.precision to bf16, or model.fp8 to false"
    with pytest.raises(ConfigError, match=message):
        check_float8(settings, CUDA, 0)
    check_float8(settings, CPU, 0)
    check_float8(ModelSettings(path="x", precision="bf16", fp8=True), CUDA, 0)


def test_the_kernel_is_chosen_by_the_width_of_the_models_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: True)
    for changes, width, kind in (({}, 8, "flash"), ({"head_dim": 12}, 12, "flex")):
        base = make_base(num_hidden_layers=1, **changes).bfloat16()
        assert read_head_dim(base) == width
        assert set_attention(base, "auto", CUDA) == kind
        assert set_attention(base, "auto", CPU) == "flash"
