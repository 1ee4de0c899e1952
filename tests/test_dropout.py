"""Dropout drawn from token keys: right statistics, and the same mask wherever a token is computed."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from harness.config import ATTENTION_AND_MLP, LoraSettings
from harness.dropout import DropoutDraw, WindowDropout, install_dropout
from harness.lora import add_lora
from preprocess.errors import ConfigError

P = 0.2
WIDTH = 96


def some_keys(num_tokens: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**63 - 1, (num_tokens,), generator=generator)


def mask_of(
    keys: torch.Tensor, seed: int, index: int = 0, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    draw = DropoutDraw(P, 4, WIDTH)
    draw.start(keys, seed)
    ones = torch.ones(*keys.shape, WIDTH, dtype=dtype)
    return cast("torch.Tensor", WindowDropout(draw, index)(ones))


def tiny_llama() -> nn.Module:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return cast("nn.Module", LlamaForCausalLM(config))


def test_values_are_dropped_at_the_rate_and_the_mean_and_variance_are_those_of_nn_dropout() -> None:
    mask = mask_of(some_keys(4096), seed=3)
    assert set(mask.flatten().tolist()) == {0.0, 1 / (1 - P)}
    # 393,216 values from a table of 262,240: within five standard deviations of the table's own mean.
    error = 5 * (P / (1 - P) / 262_240) ** 0.5
    assert abs(float(mask.mean()) - 1) < error
    assert abs(float(mask.var()) - P / (1 - P)) < 2 * error


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def test_tokens_columns_inputs_and_seeds_are_independent_of_one_another() -> None:
    keys = torch.arange(100, 104)  # consecutive keys are the hardest for a hash
    both = torch.stack([torch.stack([mask_of(keys, seed, index) for index in (0, 1)]) for seed in range(400)])
    drawn, other_input = both[:, 0], both[:, 1]  # [seeds, tokens, columns]
    limit = 5 / (400 * WIDTH) ** 0.5
    assert abs(correlation(drawn[:, 0], drawn[:, 1])) < limit
    assert abs(correlation(drawn[:, 0, :-1], drawn[:, 0, 1:])) < limit
    assert abs(correlation(drawn[:, 0, :-1], drawn[:, 1, 1:])) < limit
    assert abs(correlation(drawn[:-1, 0], drawn[1:, 0])) < limit
    assert abs(correlation(drawn, other_input)) < limit
    assert correlation(drawn, drawn) > 0.99  # the measure sees a correlation where there is one


def test_all_offsets_of_consecutive_keys_are_reached_evenly() -> None:
    draw = DropoutDraw(P, 3, WIDTH)
    draw.start(torch.arange(1, 2**16 + 1), seed=1)
    assert draw.offsets is not None
    for row in draw.offsets:
        counts = torch.bincount(row >> 10, minlength=256).double()  # 256 cells, 256 expected in each
        chi_squared = float(((counts - 256) ** 2 / 256).sum())
        assert 255 - 5 * 510**0.5 < chi_squared < 255 + 5 * 510**0.5


def test_a_token_is_masked_alike_in_any_order_shape_and_batch() -> None:
    keys = some_keys(60)
    whole = mask_of(keys, seed=5)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mask_of(keys[order], seed=5), whole[order])
    assert torch.equal(mask_of(keys.view(3, 20), seed=5).flatten(0, 1), whole)
    assert torch.equal(torch.cat([mask_of(keys[:7], seed=5), mask_of(keys[7:], seed=5)]), whole)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(mask_of(keys, seed=5, dtype=dtype) != 0, whole != 0)


def test_another_seed_gives_another_mask() -> None:
    keys = some_keys(60)
    first, second = mask_of(keys, seed=5), mask_of(keys, seed=6)
    changed = float(((first != 0) != (second != 0)).double().mean())
    assert 0.25 < changed < 0.4  # 2 p (1 - p) = 0.32


def test_eval_mode_is_the_identity_and_needs_no_draw() -> None:
    module = WindowDropout(DropoutDraw(P, 1, WIDTH), 0).eval()
    values = torch.randn(3, WIDTH)
    assert module(values) is values


def test_training_without_a_draw_or_with_one_for_other_tokens_is_an_error() -> None:
    draw = DropoutDraw(P, 1, WIDTH)
    module = WindowDropout(draw, 0)
    with pytest.raises(RuntimeError, match=r"call DropoutDraw\.start"):
        module(torch.randn(3, WIDTH))
    draw.start(some_keys(4), seed=0)
    with pytest.raises(ValueError, match="drawn for 4 tokens, but the input has 3"):
        module(torch.randn(3, WIDTH))


def test_the_head_is_given_the_masks_of_the_positions_that_it_reads() -> None:
    draw = DropoutDraw(P, 1, WIDTH)
    module = WindowDropout(draw, 0)
    draw.start(some_keys(10).view(2, 5), seed=0)
    whole = module(torch.ones(2, 5, WIDTH)).flatten(0, 1)
    positions = torch.tensor([7, 2, 9])
    with draw.at(positions):
        assert torch.equal(module(torch.ones(3, WIDTH)), whole[positions])
    assert torch.equal(module(torch.ones(10, WIDTH)), whole)


def test_the_gradient_is_masked_like_the_value_and_only_offsets_are_kept() -> None:
    draw = DropoutDraw(P, 1, WIDTH)
    module = WindowDropout(draw, 0)
    draw.start(some_keys(50), seed=0)
    values = torch.randn(50, WIDTH, requires_grad=True)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = module(values)
    result.backward(torch.ones_like(result))
    assert values.grad is not None
    assert torch.equal(values.grad, module(torch.ones(50, WIDTH)))
    assert sorted(tensor.numel() for tensor in kept) == [
        50,
        2**18 + WIDTH,
    ]  # the table is one for all modules


def test_recomputation_draws_the_same_mask() -> None:
    draw = DropoutDraw(P, 1, WIDTH)
    module = WindowDropout(draw, 0)
    draw.start(some_keys(50), seed=0)
    values = torch.randn(50, WIDTH, requires_grad=True)
    calls = []

    def run(inputs: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return cast("torch.Tensor", module(inputs).square())

    result = checkpoint(run, values, use_reentrant=False)
    result.sum().backward()
    assert len(calls) == 2
    mask = module(torch.ones(50, WIDTH))
    torch.testing.assert_close(values.grad, 2 * values.detach() * mask * mask, rtol=1e-6, atol=0)


def test_projections_of_one_input_share_a_mask_and_the_state_dict_stays() -> None:
    targets = (*ATTENTION_AND_MLP, "lm_head")
    model = add_lora(tiny_llama(), LoraSettings(r=2, dropout=P, targets=targets), seed=0)
    names = list(model.state_dict())
    draw = install_dropout(model)
    assert list(model.state_dict()) == names
    modules = {
        name.split(".lora_dropout")[0].rpartition("model.")[2]: module.index
        for name, module in model.named_modules()
        if isinstance(module, WindowDropout)
    }
    assert len(modules) == 2 * 7 + 1
    assert draw.num_inputs == 2 * 4 + 1
    assert draw.width == 48
    layer = {name.split(".")[-1]: index for name, index in modules.items() if "layers.0" in name}
    assert layer["q_proj"] == layer["k_proj"] == layer["v_proj"] != layer["o_proj"]
    assert layer["gate_proj"] == layer["up_proj"] != layer["down_proj"]
    assert not any(type(module) is nn.Dropout for module in model.modules())


def test_a_module_that_comes_after_the_draw_has_its_offsets_too() -> None:
    draw = DropoutDraw(P, 2, WIDTH)
    first = WindowDropout(draw, 1)
    draw.start(some_keys(6), seed=3)
    assert draw.offsets is not None
    for module in (first, WindowDropout(draw, 1)):
        assert module.current is not None
        assert torch.equal(module.current, draw.offsets[1])


def count_graphs(num_modules: int) -> int:
    """Graphs that modules of as many inputs are compiled to, over two draws."""
    torch._dynamo.reset()
    counters.clear()
    draw = DropoutDraw(P, num_modules, WIDTH)
    modules = [WindowDropout(draw, index) for index in range(num_modules)]
    for module in modules:
        module.compile(dynamic=True, backend="eager")
    for step in range(2):
        draw.start(some_keys(20 + step), seed=step)
        ones = torch.ones(20 + step, WIDTH)
        masks = [module(ones) for module in modules]
        for module, mask in zip(modules, masks, strict=True):
            assert torch.equal(mask, module.forward(ones))
        assert not torch.equal(masks[0], masks[1])
    return int(counters["stats"]["unique_graphs"])


def read_by_number(module: WindowDropout, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The offsets, looked up by the number of the module's input."""
    assert module.draw.offsets is not None
    return module.draw.offsets[module.index], module.draw.tables[values.element_size()]


@pytest.mark.filterwarnings(
    "ignore:<class 'torch.autograd.function.Function'> should not be:DeprecationWarning"
)  # torch's own
def test_one_compiled_graph_serves_the_modules_of_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_graphs(12) == 1
    monkeypatch.setattr(WindowDropout, "source_for", read_by_number)  # the control
    assert count_graphs(5) >= 5


def test_without_dropout_nothing_is_replaced() -> None:
    model = add_lora(tiny_llama(), LoraSettings(r=2, dropout=0.0), seed=0)
    draw = install_dropout(model)
    assert draw.num_inputs == 0
    assert not any(isinstance(module, WindowDropout) for module in model.modules())
    draw.start(some_keys(6), seed=1)  # harmless
    model(input_ids=torch.arange(6)[None])


def test_adapters_with_different_rates_are_refused() -> None:
    model = add_lora(tiny_llama(), LoraSettings(r=2, dropout=P), seed=0)
    next(module for module in model.modules() if type(module) is nn.Dropout).p = 0.3
    with pytest.raises(ConfigError, match=r"expected one rate for the whole model, got \[0.2, 0.3\]"):
        install_dropout(model)
