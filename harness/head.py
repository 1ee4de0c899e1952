"""From hidden states at supervised positions to losses, through the head in chunks, so that logits stay few.

The gradient of a token's loss with respect to its logits is softmax minus one-hot, known as soon as the logits are. So
a training step takes each chunk's gradient while its logits exist and keeps the gradients of the hidden states (as
large as the hidden states) and of the head's adapter: the head runs once, not twice as with recomputation, and no
logits survive a chunk (the idea of Liger-Kernel's fused linear cross entropy; here for any head, adapters included).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Head = Callable[[torch.Tensor, slice], torch.Tensor]
"""From some hidden states [n, H], and which of all they are, to their logits [n, V]."""


def count_chunks(num_targets: int, chunk: int) -> int:
    """Passes through the head that a number of supervised tokens needs, at least one."""
    return max(1, -(-num_targets // chunk))


def split_chunks(num_targets: int, chunk: int, num_chunks: int | None = None) -> Iterator[slice]:
    """The slices that supervised tokens go through the head in, at least one, the last ones possibly empty."""
    passes = max(count_chunks(num_targets, chunk), num_chunks or 0)
    return (slice(start, start + chunk) for start in range(0, passes * chunk, chunk))


def token_losses(
    head: Head, hidden: torch.Tensor, targets: torch.Tensor, chunk: int, num_chunks: int | None = None
) -> torch.Tensor:
    """Cross entropy of each supervised token; in a graph, each chunk's logits are computed again for backward.

    Args:
        head: From hidden states to logits, with its adapter if it has one.
        hidden: [N, H], hidden states that predict the supervised tokens.
        targets: int64[N].
        chunk: Supervised tokens at a time.
        num_chunks: Passes through the head, the last ones empty where there are more than N needs. Under ZeRO-3
            each pass is a collective, so all ranks must make the same number.

    Returns:
        float32[N] (float64 from a float64 head). With N = 0 an empty tensor that is still part of the graph.
    """

    def compute(part: torch.Tensor, where: slice) -> torch.Tensor:
        logits = head(part, where)
        return nn.functional.cross_entropy(precise(logits), targets[where], reduction="none")

    pieces = []
    for where in split_chunks(len(targets), chunk, num_chunks):
        if torch.is_grad_enabled():
            pieces.append(checkpoint(compute, hidden[where], where, use_reentrant=False))
        else:
            pieces.append(compute(hidden[where], where))
    return torch.cat(pieces)


def precise(logits: torch.Tensor) -> torch.Tensor:
    """Logits in float32, or in float64 if they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def sum_losses(
    head: Head,
    parameters: Sequence[nn.Parameter],
    hidden: torch.Tensor,
    targets: torch.Tensor,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of all losses, with its gradient taken in the forward pass, and each token's loss.

    Args:
        head: From hidden states to logits.
        parameters: What is trained in the head.
        hidden: [N, H].
        targets: int64[N].
        chunk: Supervised tokens at a time.

    Returns:
        The sum, a scalar in the losses' precision that backward may be called on once, and the losses, float32[N]
        (float64 from a float64 head), outside the graph.
    """
    return cast(
        "tuple[torch.Tensor, torch.Tensor]",
        _SumLosses.apply(head, chunk, hidden, targets, *parameters),  # type: ignore[no-untyped-call]
    )


class _SumLosses(torch.autograd.Function):
    """Sums losses; what backward hands out was computed in forward and only has to be scaled."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context
        head: Head,
        chunk: int,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        hidden_grad = torch.empty_like(hidden)
        # Sums over chunks, so in a precision that does not lose the small ones.
        sums = [torch.zeros_like(parameter, dtype=wide) for parameter in parameters]
        losses = []
        for where in split_chunks(len(targets), chunk):
            part = hidden[where].detach().requires_grad_()
            with torch.enable_grad():
                logits = head(part, where)
            part_losses, slope = differentiate(logits, targets[where])
            losses.append(part_losses)
            found = torch.autograd.grad(logits, [part, *parameters], slope, allow_unused=True)
            del logits, slope
            hidden_grad[where] = found[0]
            for total, gradient in zip(sums, found[1:], strict=True):
                if gradient is not None:
                    total += gradient
        ctx.save_for_backward(
            hidden_grad, *(total.to(p.dtype) for total, p in zip(sums, parameters, strict=True))
        )
        per_token = torch.cat(losses)
        ctx.mark_non_differentiable(per_token)
        return per_token.sum(), per_token

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - autograd's context
        scale = gradients[0]
        hidden_grad, *sums = ctx.saved_tensors
        return None, None, _scale(hidden_grad, scale), None, *(_scale(total, scale) for total in sums)


def _scale(gradient: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """A gradient times a scalar in the scalar's precision (in fp16 the scale itself may not fit)."""
    return (gradient * scale.to(torch.promote_types(gradient.dtype, scale.dtype)).reshape(1)).to(
        gradient.dtype
    )


@torch.no_grad()
def differentiate(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of each token and its derivative with respect to the logits (softmax - one-hot).

    Args:
        logits: [n, V].
        targets: int64[n].

    Returns:
        float32[n] (float64 for float64 logits), and [n, V] in the logits' precision.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
    wide -= wide.amax(
        -1, keepdim=True
    )  # in place from here on: one copy of the logits is all the memory taken
    picked = wide.gather(-1, targets[:, None])
    total = wide.exp_().sum(-1, keepdim=True)
    losses = (total.log() - picked).squeeze(-1)
    slope = wide.div_(total)
    slope.scatter_add_(-1, targets[:, None], slope.new_full((len(targets), 1), -1.0))
    return losses, slope.to(logits.dtype)
