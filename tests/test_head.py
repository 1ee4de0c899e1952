"""The head's loss, with its gradient taken in the forward pass, against autograd over all logits at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.head import Head, differentiate, sum_losses, token_losses
from harness.lora import trainable_parameters

NUM, WIDTH, VOCABULARY = 23, 12, 40


class HeadOnly(nn.Module):
    """A model that is a head alone, so that peft can put an adapter on it."""

    def __init__(self) -> None:
        super().__init__()
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)


def make_head(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, list[nn.Parameter]]:
    torch.manual_seed(0)
    from peft import LoraConfig, inject_adapter_in_model

    model = HeadOnly().double().requires_grad_(requires_grad=False)
    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=6, target_modules=["lm_head"]), model)
    model.double()
    parameters = [parameter for _, parameter in trainable_parameters(model)]
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.3)
    model.to(dtype)
    return model.lm_head, parameters


def as_head(module: nn.Module) -> Head:
    def head(part: torch.Tensor, where: slice) -> torch.Tensor:
        logits: torch.Tensor = module(part)
        return logits

    return head


def make_inputs(dtype: torch.dtype = torch.float64, num: int = NUM) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(num, WIDTH, generator=generator, dtype=torch.float64)
    targets = torch.randint(VOCABULARY, (num,), generator=generator)
    return hidden.to(dtype).requires_grad_(), targets


def all_gradients(
    loss: torch.Tensor, hidden: torch.Tensor, parameters: list[nn.Parameter]
) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [hidden, *parameters]))


def reference(module: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(module(hidden), targets, reduction="none")


@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
def test_loss_and_gradients_are_those_of_autograd_over_all_logits(chunk: int) -> None:
    module, parameters = make_head()
    hidden, targets = make_inputs()
    expected = reference(module, hidden, targets)
    wanted = all_gradients(expected.sum() * 0.37, hidden, parameters)
    total, losses = sum_losses(as_head(module), parameters, hidden, targets, chunk)
    torch.testing.assert_close(losses, expected.detach(), rtol=0, atol=1e-12)
    assert float(total.detach()) == pytest.approx(float(expected.detach().sum()), abs=1e-11)
    assert not losses.requires_grad
    for got, want in zip(all_gradients(total * 0.37, hidden, parameters), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_the_way_that_recomputes_gives_the_same_gradients() -> None:
    module, parameters = make_head()
    hidden, targets = make_inputs()
    one, _ = sum_losses(as_head(module), parameters, hidden, targets, 4)
    other = token_losses(as_head(module), hidden, targets, 4, num_chunks=9).sum()
    for got, want in zip(
        all_gradients(one, hidden, parameters), all_gradients(other, hidden, parameters), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_a_derivative_without_its_one_hot_or_for_other_targets_would_be_noticed() -> None:
    module, _ = make_head()
    hidden, targets = make_inputs()
    logits = module(hidden).detach().requires_grad_()
    (wanted,) = torch.autograd.grad(nn.functional.cross_entropy(logits, targets, reduction="sum"), [logits])
    torch.testing.assert_close(differentiate(logits, targets)[1], wanted, rtol=0, atol=1e-12)
    assert float((logits.detach().softmax(-1) - wanted).abs().max()) > 0.5
    assert float((differentiate(logits, targets.roll(1))[1] - wanted).abs().max()) > 0.5


def test_the_head_runs_once_a_chunk_and_no_logits_are_kept_for_backward() -> None:
    module, parameters = make_head()
    sizes: list[int] = []
    module.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    hidden, targets = make_inputs()
    kept: list[tuple[int, ...]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total, _ = sum_losses(as_head(module), parameters, hidden, targets, 10)
    total.backward()  # type: ignore[no-untyped-call]
    assert sizes == [10, 10, 3]
    outer = [shape for shape in kept if VOCABULARY in shape and NUM in shape]
    assert outer == []
    assert (NUM, WIDTH) in kept


def test_without_a_supervised_token_everything_is_zero_and_still_in_the_graph() -> None:
    module, parameters = make_head()
    hidden, targets = make_inputs(num=0)
    total, losses = sum_losses(as_head(module), parameters, hidden, targets, 10)
    assert losses.shape == (0,)
    assert float(total.detach()) == 0
    assert all(not bool(gradient.any()) for gradient in all_gradients(total, hidden, parameters))


def test_in_bfloat16_the_error_is_that_of_autograd_in_bfloat16() -> None:
    module, parameters = make_head()
    hidden, targets = make_inputs()
    exact = all_gradients(reference(module, hidden, targets).sum(), hidden, parameters)
    rough_module, rough_parameters = make_head(torch.bfloat16)
    rough_hidden, _ = make_inputs(torch.bfloat16)
    logits = rough_module(rough_hidden).float()
    plain = nn.functional.cross_entropy(logits, targets, reduction="sum")
    ours, _ = sum_losses(as_head(rough_module), rough_parameters, rough_hidden, targets, 5)
    for got, autograd, want in zip(
        all_gradients(ours, rough_hidden, rough_parameters),
        all_gradients(plain, rough_hidden, rough_parameters),
        exact,
        strict=True,
    ):
        own_error = float((got.double() - want).norm() / want.norm())
        autograd_error = float((autograd.double() - want).norm() / want.norm())
        assert own_error < 1.3 * autograd_error + 1e-4
        assert own_error < 0.02


def test_a_scale_beyond_float16_reaches_the_gradients() -> None:
    module, parameters = make_head(torch.float16)
    hidden, targets = make_inputs(torch.float16)
    total, _ = sum_losses(as_head(module), parameters, hidden, targets, 5)
    (small,) = torch.autograd.grad(total * 1e-3, [hidden], retain_graph=True)
    (again,) = torch.autograd.grad(total * 2.0**17 * 1e-3 / 2.0**17, [hidden])
    torch.testing.assert_close(small, again)
    assert bool(torch.isfinite(small).all())
