"""The norm by hand is that of transformers, and torch's fused operator, which GPUs run, is that of the hand."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from harness.lean import norm
from harness.lean.norm import normalize, normalize_again, normalize_back

EPS = 1e-6


def some_values(dtype: torch.dtype, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values [12, 64], a weight [64], a gradient [12, 64]."""
    generator = torch.Generator().manual_seed(0)
    parts = (torch.randn(12, 64, generator=generator) * 3, torch.rand(64, generator=generator) + 0.5)
    grad = torch.randn(12, 64, generator=generator)
    values, weight, grad = (part.to(device, dtype) for part in (*parts, grad))
    return values, weight, grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_is_that_of_transformers_to_the_bit(dtype: torch.dtype) -> None:
    values, weight, _ = some_values(dtype)
    own = LlamaRMSNorm(64, eps=EPS).to(dtype)
    own.weight.data = weight
    normal, rstd = normalize(values, weight, EPS)
    assert torch.equal(normal, own(values))
    assert torch.equal(normalize_again(values, rstd, weight, EPS), normal)


def test_the_gradient_is_that_of_autograd() -> None:
    values, weight, grad = some_values(torch.float64)
    values.requires_grad_()
    normal, rstd = normalize(values, weight, EPS)
    (expected,) = torch.autograd.grad(normal, values, grad)
    torch.testing.assert_close(
        normalize_back(grad, values.detach(), rstd.detach(), weight), expected, rtol=1e-12, atol=1e-12
    )


def test_the_fused_operator_differs_by_one_rounding_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    values, weight, _ = some_values(torch.bfloat16)
    normal, rstd = normalize(values, weight, EPS)
    monkeypatch.setattr(norm, "_has_kernel", lambda _: True)
    fused, fused_rstd = normalize(values, weight, EPS)
    torch.testing.assert_close(fused_rstd, rstd, rtol=1e-6, atol=0)
    torch.testing.assert_close(fused, normal, rtol=2**-7, atol=0)
    assert torch.equal(normalize_again(values, rstd, weight, EPS), fused)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2**-6)])
def test_on_a_gpu_the_fused_gradient_is_the_one_by_hand(dtype: torch.dtype, tolerance: float) -> None:
    values, weight, grad = some_values(dtype)
    normal, rstd = normalize(values, weight, EPS)
    expected = normalize_back(grad, values, rstd, weight)
    on_gpu = some_values(dtype, "cuda")
    fused, fused_rstd = normalize(on_gpu[0], on_gpu[1], EPS)
    torch.testing.assert_close(fused.cpu(), normal, rtol=tolerance, atol=tolerance)
    back = normalize_back(on_gpu[2], on_gpu[0], fused_rstd, on_gpu[1]).cpu()
    torch.testing.assert_close(back, expected, rtol=tolerance, atol=tolerance)
