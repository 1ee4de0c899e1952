"""Frozen projections in float8: the products that they stand for, a gradient close to bfloat16's, the same learning."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.lean import fp8_supported, make_lean
from harness.lean.fp8 import Float8Linear, quantize_rows
from harness.lean.functions import project_one
from harness.lean.projection import read_group
from preprocess.errors import ConfigError
from tests.lean_models import embed, make_model, run_backward

SHAPE = {"hidden_size": 64, "intermediate_size": 128}


def rounded(values: torch.Tensor) -> torch.Tensor:
    """float64: rows as float8 holds them, the slow way."""
    largest = values.double().abs().amax(dim=1, keepdim=True)
    scale = (largest / 448).float().double()
    return (values.double() / scale).float().to(torch.float8_e4m3fn).double() * scale


def multiply_both_ways(layer: Float8Linear) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(24, 32, generator=generator).requires_grad_()
    grad = torch.randn(24, 48, generator=generator)
    result = project_one(values, read_group((layer,), values))
    torch.autograd.backward(result, grad)
    assert values.grad is not None
    return values.detach(), grad, result.detach(), values.grad


def test_products_are_those_of_the_rounded_rows_forward_and_back() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(32, 48).requires_grad_(requires_grad=False)
    values, grad, result, values_grad = multiply_both_ways(Float8Linear(linear))
    expected = rounded(values) @ rounded(linear.weight).t() + linear.bias.double()
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    expected_grad = rounded(grad) @ rounded(linear.weight.t()).t()
    torch.testing.assert_close(values_grad.double(), expected_grad, rtol=1e-5, atol=1e-5)
    exact = linear(values)
    error = float((result - exact).norm() / exact.norm())
    assert 1e-3 < error < 0.05  # three bits of mantissa, and it is float8 indeed


def test_a_scale_of_the_wrong_direction_is_noticed() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(32, 32, bias=False).requires_grad_(requires_grad=False)
    with torch.no_grad():
        linear.weight *= torch.logspace(-2, 2, 32)[:, None]
    layer = Float8Linear(linear)
    values = torch.randn(8, 32)
    exact = linear(values)
    assert float((layer(values) - exact).norm() / exact.norm()) < 0.05
    layer.forward_scale_bits = cast("torch.Tensor", layer.back_scale_bits)
    assert float((layer(values) - exact).norm() / exact.norm()) > 0.5


def test_an_outlier_costs_its_own_row_alone() -> None:
    values = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    values[1, 5] = 1e4
    rows = quantize_rows(values)
    error = (rows.values.float() * rows.scale - values).norm(dim=1) / values.norm(dim=1)
    assert float(error.max()) < 0.05
    assert bool(torch.isfinite(quantize_rows(torch.zeros(2, 16)).values.float()).all())


def test_the_gradient_points_where_bfloat16s_does() -> None:
    inputs = embed(rows=2, length=64, hidden=64)
    model, draw = make_model(dtype=torch.bfloat16, shape=SHAPE)
    reference = run_backward(model, draw, inputs)
    assert make_lean(model, fp8=True) is None
    results = run_backward(model, draw, inputs)
    flat = [
        torch.cat([part[name].double().flatten() for name in sorted(part) if name != "output"])
        for part in (results, reference)
    ]
    cosine = float(torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0))
    assert 0.98 < cosine < 0.99999


def learn(model: PeftModel, num_steps: int = 40) -> list[float]:
    """The losses of learning a few sequences by heart."""
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=3e-3)
    ids = torch.randint(0, 64, (4, 24), generator=torch.Generator().manual_seed(5))
    losses = []
    for _ in range(num_steps):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_the_loss_curve_stays_within_two_hundredths_of_a_nat_of_bfloat16s() -> None:
    curves = []
    for fp8 in (False, True):
        model, _ = make_model(dtype=torch.bfloat16, shape=SHAPE, dropout=0.0, rank=8)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.zeros_(parameter)  # as a training starts
        with torch.no_grad():
            model.get_base_model().lm_head.weight *= (
                8  # a random head of the usual size cannot be sure of anything
            )
        assert make_lean(model, fp8=fp8) is None
        curves.append(torch.tensor(learn(model)))
    assert float(curves[0][0]) > 4.5
    assert float(curves[0][-1]) < 0.2
    assert float((curves[0] - curves[1]).abs().max()) < 0.02
    assert not torch.equal(curves[0], curves[1])


def test_weights_of_two_bytes_give_way_to_two_copies_of_one_and_survive_conversion() -> None:
    model, _ = make_model(dtype=torch.bfloat16, shape=SHAPE)
    names = [name for name in model.state_dict() if "lora" in name]
    assert make_lean(model, fp8=True) is None
    layers = [module for module in model.modules() if isinstance(module, Float8Linear)]
    assert len(layers) == 14
    before = layers[0].weight.clone().view(torch.uint8)
    model.bfloat16()
    assert torch.equal(layers[0].weight.view(torch.uint8), before)
    assert layers[0].quantized[0].dtype == torch.float32
    assert [name for name in model.state_dict() if "lora" in name] == names
    assert not any("proj.base_layer.weight" in name for name, _ in model.named_parameters())


def test_generation_with_a_cache_goes_on() -> None:
    model, _ = make_model(dtype=torch.bfloat16, shape=SHAPE)
    assert make_lean(model, fp8=True) is None
    model.eval()
    prompt = torch.arange(1, 7).view(1, 6)
    options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 4, "do_sample": False}
    assert model.generate(input_ids=prompt, **options).shape == (1, 10)
    with torch.no_grad():
        cached = model(input_ids=prompt, use_cache=True).logits
        lean = model(input_ids=prompt, use_cache=False).logits
    torch.testing.assert_close(cached, lean, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        (
            {"intermediate_size": 40},
            torch.bfloat16,
            "gate_proj has the shape (40, 32), expected multiples of 16",
        ),
        ({}, torch.float16, "q_proj is in float16, expected bfloat16"),
    ],
)
def test_weights_that_cannot_be_float8_are_left_alone_with_a_reason(
    shape: dict[str, Any], dtype: torch.dtype, reason: str
) -> None:
    model, _ = make_model(dtype=dtype, shape=shape)
    assert str(make_lean(model, fp8=True)) == f"layer 0: {reason}"
    assert not any(isinstance(module, Float8Linear) for module in model.modules())


def test_a_gpu_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A40")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    reason = fp8_supported(torch.device("cuda"))
    assert reason == "NVIDIA A40 has compute capability 8.6; float8 needs 8.9 (Ada, Hopper) or higher"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    assert fp8_supported(torch.device("cuda")) is None
    assert fp8_supported(torch.device("cpu")) is None
    assert fp8_supported(torch.device("xpu")) == "xpu devices are not known to multiply in float8"
    monkeypatch.setattr("harness.lean.fp8_supported", lambda _: reason)
    causal = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": 1, "vocab_size": 64}))
    with pytest.raises(ConfigError, match=r"model\.fp8: NVIDIA A40 .* Leave it false"):
        make_lean(causal.requires_grad_(requires_grad=False), fp8=True)
