"""The forward pass of packed forests and the loss: masked, token-weighted, with logits only where a label is.

The labels are shifted once, in `harness.data.collate`: a supervised token is predicted from the slot before it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from harness.data import MicroBatch


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


def token_losses(
    head: nn.Module,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    chunk: int,
    num_chunks: int | None = None,
) -> torch.Tensor:
    """Cross entropy of each supervised token, through the head in chunks.

    A chunk's logits live only while it is computed, and again in the backward pass, which recomputes them: the
    memory for logits is chunk x vocabulary, whatever the batch.

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

    def compute(part: torch.Tensor, part_targets: torch.Tensor) -> torch.Tensor:
        logits = head(part)
        precise = logits if logits.dtype == torch.float64 else logits.float()
        return nn.functional.cross_entropy(precise, part_targets, reduction="none")

    pieces = []
    needed = count_chunks(len(targets), chunk)
    for start in range(0, max(needed, num_chunks or 0) * chunk, chunk):
        part, part_targets = hidden[start : start + chunk], targets[start : start + chunk]
        if torch.is_grad_enabled():
            pieces.append(checkpoint(compute, part, part_targets, use_reentrant=False))
        else:
            pieces.append(compute(part, part_targets))
    return torch.cat(pieces)


def count_chunks(num_targets: int, chunk: int) -> int:
    """Passes through the head that a number of supervised tokens needs, at least one."""
    return max(1, -(-num_targets // chunk))


class ForestLanguageModel(nn.Module):
    """A causal language model (with its adapter) that takes packed forests and returns losses.

    Args:
        causal: A `transformers` causal model whose body is `.model` and whose head is `.lm_head`.
        attention: "sdpa" or "eager", the kernel that `causal` was loaded with.
        loss_chunk: Supervised tokens whose logits exist at a time.
    """

    def __init__(self, causal: nn.Module, attention: str, loss_chunk: int) -> None:
        super().__init__()
        self.causal = causal
        self.attention = attention
        self.loss_chunk = loss_chunk

    def hidden_states(self, batch: MicroBatch) -> torch.Tensor:
        """[R, T, H]: the body's output, each slot seeing its own segment and its ancestors."""
        body = cast("nn.Module", self.causal.model)
        mask = forest_mask(batch.entry, batch.exit)
        if self.attention == "eager":
            mask = to_additive(mask, next(body.parameters()).dtype)
        output = body(
            input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=mask, use_cache=False
        )
        return cast("torch.Tensor", output.last_hidden_state)

    def forward(self, batch: MicroBatch, num_chunks: int | None = None) -> torch.Tensor:
        """float32[N]: the loss of each supervised token of the batch, in nats; see `token_losses`."""
        hidden = self.hidden_states(batch).flatten(0, 1)[batch.sources]
        head = cast("nn.Module", self.causal.lm_head)
        return token_losses(head, hidden, batch.targets, self.loss_chunk, num_chunks)


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
