"""The forward pass of packed forests and the loss: masked, token-weighted, with logits only where a label is.

The labels are shifted once, in `harness.data.collate`: a supervised token is predicted from the slot before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import nn

from harness.attention.choice import IMPLEMENTATIONS
from harness.attention.flex import build_block_mask
from harness.data import MicroBatch
from harness.dropout import DropoutDraw
from harness.head import sum_losses, token_losses


def forest_mask(entry: torch.Tensor, exit_: torch.Tensor) -> torch.Tensor:
    """Which slot sees which.

    Args:
        entry: int32[R, T], Euler entry time of each slot's segment.
        exit_: int32[R, T], Euler exit time.

    Returns:
        bool[R, 1, T, T]; [r, 0, q, k] is true when k's segment is q's own or an ancestor of it, and k <= q.
    """
    is_ancestor = (entry[:, None, :] <= entry[:, :, None]) & (entry[:, :, None] < exit_[:, None, :])
    return is_ancestor.tril()[:, None]


def to_additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask as what eager attention adds to its scores: 0 where seen, the lowest number elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        ~mask, torch.finfo(dtype).min
    )


def describe_forest(batch: MicroBatch, kernel: str, dtype: torch.dtype) -> dict[str, Any]:
    """What tells a transformers body who sees whom, in the form that its attention kernel takes.

    Args:
        batch: The micro-batch.
        kernel: The body's `attn_implementation`.
        dtype: The body's precision.
    """
    if kernel == IMPLEMENTATIONS["flash"]:
        return {"attention_mask": batch.layout.no_mask, "forest": batch.layout}
    if kernel == IMPLEMENTATIONS["flex"]:
        return {
            "attention_mask": batch.layout.no_mask,
            "forest": build_block_mask(batch.entry, batch.exit),
        }
    mask = forest_mask(batch.entry, batch.exit)
    return {"attention_mask": to_additive(mask, dtype) if kernel == IMPLEMENTATIONS["eager"] else mask}


class ForestLanguageModel(nn.Module):
    """A causal language model (with its adapter) that takes packed forests and returns losses.

    Args:
        causal: A `transformers` causal model whose body is `.model` and whose head is `.lm_head`.
        loss_chunk: Supervised tokens whose logits exist at a time.
        draw: What the adapter's dropout masks are drawn from, where it has dropout; see `harness.dropout`.

    Attributes:
        before_head: Called in each forward pass between the body and the head, where it is set: what is measured of
            the one is told from the other there.
    """

    def __init__(self, causal: nn.Module, loss_chunk: int, *, draw: DropoutDraw | None = None) -> None:
        super().__init__()
        self.causal = causal
        self.loss_chunk = loss_chunk
        self.draw = draw
        self.before_head: Callable[[], None] | None = None

    def hidden_states(self, batch: MicroBatch) -> torch.Tensor:
        """[R, T, H]: the body's output, each slot seeing its own segment and its ancestors."""
        body = cast("nn.Module", self.causal.model)
        kernel = cast("Any", self.causal).config._attn_implementation
        output = body(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            **describe_forest(batch, kernel, next(body.parameters()).dtype),
        )
        return cast("torch.Tensor", output.last_hidden_state)

    def forward(
        self, batch: MicroBatch, *, seed: int | None = None, num_chunks: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the losses of a batch's supervised tokens, and each of them.

        Args:
            batch: R rows with N supervised tokens.
            seed: Of the dropout masks; needed in training where there is dropout.
            num_chunks: Passes through the head that all ranks make, where it is a collective (ZeRO-3): then each chunk
                is computed a second time in the backward pass. Without it, gradients are taken in the forward pass.

        Returns:
            A scalar in nats with its gradient, and float32[N] (float64 from a float64 model) outside the graph.
        """
        if self.draw is not None and self.training:
            assert seed is not None, "dropout needs a seed"
            self.draw.start(batch.token_keys, seed)
        hidden = self.hidden_states(batch)
        if self.before_head is not None:
            self.before_head()
        hidden = hidden.flatten(0, 1)[batch.sources]
        module = cast("nn.Module", self.causal.lm_head)

        def head(part: torch.Tensor, where: slice) -> torch.Tensor:
            with nullcontext() if self.draw is None else self.draw.at(batch.sources[where]):
                return cast("torch.Tensor", module(part))

        if num_chunks is None and torch.is_grad_enabled():
            trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
            return sum_losses(head, trained, hidden, batch.targets, self.loss_chunk)
        losses = token_losses(head, hidden, batch.targets, self.loss_chunk, num_chunks)
        return losses.sum(), losses.detach()


@contextmanager
def split_forward(
    model: ForestLanguageModel, part: Callable[[str], AbstractContextManager[None]]
) -> Iterator[None]:
    """Charge the block's one forward pass to "forward" as far as the body goes, and to "loss" from the head on."""
    with ExitStack() as opened:

        def turn() -> None:
            opened.close()
            opened.enter_context(part("loss"))

        opened.enter_context(part("forward"))
        model.before_head = turn
        try:
            yield
        finally:
            model.before_head = None


def scale_for_engine(loss_sum: torch.Tensor, world_size: int, global_valid_tokens: int) -> torch.Tensor:
    """What a rank passes to backward so that the averaged gradients are those of the global token mean.

    DeepSpeed averages gradients over ranks and (unless told not to) over micro-steps, which makes a mean of
    means. Here every rank's sum is divided by the global count instead, and multiplied by the ranks that the
    averaging will divide by.
    """
    return loss_sum * (world_size / max(global_valid_tokens, 1))


def loss_by_task(losses: torch.Tensor, tasks: torch.Tensor, num_tasks: int) -> torch.Tensor:
    """float64[num_tasks, 2]: the sum of losses and the number of supervised tokens of each task."""
    result = torch.zeros(num_tasks, 2, dtype=torch.float64, device=losses.device)
    values = torch.stack([losses.double(), torch.ones_like(losses, dtype=torch.float64)], dim=1)
    return result.index_add_(0, tasks, values)
