"""Whether ways that must compute the same did: losses and gradients compared before any time is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bench.record import WrongResultError


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What a forward and a backward pass gave.

    Attributes:
        loss: In nats.
        gradients: Of whatever is trained, in one order.
    """

    loss: float
    gradients: tuple[torch.Tensor, ...]


def take_gradients(loss: torch.Tensor, trained: Sequence[torch.Tensor]) -> Computed:
    """Backward, and what it left; the gradients are taken away from the tensors."""
    loss.backward()  # type: ignore[no-untyped-call] # torch's has no types
    gradients = tuple(torch.zeros_like(one) if one.grad is None else one.grad for one in trained)
    for one in trained:
        one.grad = None
    return Computed(float(loss.detach()), gradients)


def trained_of(model: nn.Module) -> list[nn.Parameter]:
    """What is trained in a model."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def check_same(results: Mapping[str, Computed], baseline: str, tolerance: float) -> float:
    """The largest difference of a loss or a gradient from the baseline's.

    A gradient's difference is the largest of its values, as a share of the largest value in the baseline's gradient.

    Args:
        results: By way.
        baseline: Among them.
        tolerance: What is allowed of both.

    Raises:
        WrongResultError: It is above the tolerance, or a number is not finite.
    """
    expected = results[baseline]
    scale = max(float(gradient.abs().max()) for gradient in expected.gradients)
    if not scale > 0:
        raise WrongResultError(f"{baseline}: its gradients are zero or not finite, so nothing is compared")
    largest = 0.0
    for way, found in results.items():
        pairs = zip(found.gradients, expected.gradients, strict=True)
        apart = [float((one - other).abs().max()) / scale for one, other in pairs]
        for what, difference in (("loss", abs(found.loss - expected.loss)), ("gradient", max(apart))):
            if not difference <= tolerance:
                raise WrongResultError(
                    f"{way}: its {what} is {difference:.3g} from that of {baseline}; expected at most {tolerance:g}"
                )
            largest = max(largest, difference)
    return largest
