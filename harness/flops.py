"""Floating-point operations of a training step, counted from sizes alone: a multiplication with its addition is two.

Two counts are kept apart, as in Korthikanti et al. 2022 (arXiv:2205.05198, section 6):

- *model FLOPs*: what forward and backward pass of the real tokens need, however they are computed. Over time and peak
  they give the model FLOPs utilization, MFU (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
- *hardware FLOPs*: what is computed: padding, layers that run again in the backward pass, scores that a fused
  attention kernel computes again, pairs that a dense mask computes only to throw away. They give HFU.

A linear layer of N weights takes, for each token, 2 N forward, 2 N for its input's gradient, and 2 N for its weights'
gradient. A frozen base spends nothing on the third, and nothing on the second where nothing before it trains: the
inputs of the first layer's q, k and v come from the frozen embedding and the frozen norm. An adapter of rank r on a
layer from I to O has r (I + O) weights and spends all three (but for A's input in that first place).

Counted are matrix products alone. Norms, activations, rotary embeddings, softmax and the optimizer (of the order of
ten FLOPs for each trained weight a step) are below 1 % of a real model's step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from harness.linear_flops import QKV, LayerCost, LoraShape, Trained, cost_of_layer, cost_of_linear
from harness.shapes import ModelShape

__all__ = ["FlopParts", "Kind", "LoraShape", "StepFlops", "count_step_flops"]

Kind = Literal["flash", "flex", "sdpa", "eager"]

FUSED: tuple[Kind, ...] = ("flash", "flex", "sdpa")
"""Kernels that keep no scores and compute them again in the backward pass (Dao 2023, arXiv:2307.08691, section 2.3).
`sdpa` means torch's fused kernels; its math backend counts as `eager`."""


@dataclass(frozen=True, slots=True)
class FlopParts:
    """FLOPs of one step by part.

    Attributes:
        forward_base: The linear layers of the decoder.
        forward_lora: Their adapters.
        forward_attention: Scores and their product with the values.
        head_forward: Logits at the supervised positions, with the head's adapter.
        backward_base: Gradients of the linear layers' inputs (and of their weights, where the base trains).
        backward_lora: Gradients of the adapters' inputs and weights.
        backward_attention: Gradients of queries, keys, values, probabilities; a fused kernel's scores.
        head_backward: Gradients of the head's input, and of its adapter's weights.
        recompute: Whatever is computed a second time, but for a fused attention kernel's scores.
    """

    forward_base: int = 0
    forward_lora: int = 0
    forward_attention: int = 0
    head_forward: int = 0
    backward_base: int = 0
    backward_lora: int = 0
    backward_attention: int = 0
    head_backward: int = 0
    recompute: int = 0

    def __add__(self, other: FlopParts) -> FlopParts:
        """Sum part by part."""
        return FlopParts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(FlopParts)))

    @property
    def total(self) -> int:
        """All parts."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class StepFlops:
    """FLOPs of one step: what the model needs, and what the hardware computes."""

    model: FlopParts
    hardware: FlopParts


@dataclass(frozen=True, slots=True)
class Work:
    """How much of everything a pass computes.

    Attributes:
        tokens: Tokens through the decoder.
        pairs: (query, key) pairs of one attention head.
        supervised: Positions through the head.
    """

    tokens: int
    pairs: int
    supervised: int


def count_step_flops(
    shape: ModelShape,
    lora: LoraShape | None,
    *,
    tokens: int,
    attention_pairs: int,
    supervised_tokens: int,
    recompute_layers: int = 0,
    attention: Kind = "flash",
    slots: int | None = None,
    computed_pairs: int | None = None,
    lora_kernel: Literal["lean", "peft"] = "lean",
    train_base: bool = False,
    fused_head: bool = True,
) -> StepFlops:
    """Count one step (or, since every count adds up, many).

    Args:
        shape: The model's sizes.
        lora: Its adapter, or None.
        tokens: Real tokens; see `harness.throughput.StepCounts`.
        attention_pairs: (query, key) pairs that see each other; see there.
        supervised_tokens: Tokens with loss: positions whose logits are computed.
        recompute_layers: Decoder layers (the first ones) that run again in the backward pass.
        attention: The kernel.
        slots: Tokens with padding that the hardware computes; as many as `tokens` if not given.
        computed_pairs: Pairs that the kernel computes: R T^2 under a dense mask over R rows of T slots. As many as
            `attention_pairs` if not given.
        lora_kernel: The two differ in what `_never_repeated` and `backward_per_pair` say.
        train_base: Whether the base trains too (all of its weights).
        fused_head: Whether the head's gradient is computed in the forward pass; else the logits of each chunk are
            computed again in the backward pass.
    """
    trained = Trained(lora, train_base)
    needed = Work(tokens, attention_pairs, supervised_tokens)
    computed = Work(slots or tokens, computed_pairs or attention_pairs, supervised_tokens)
    hardware = _count_once(
        shape,
        trained,
        computed,
        fused_attention=attention in FUSED,
        fused_head=fused_head,
        together=lora_kernel == "lean",
    )
    repeated = _count_repeated(shape, trained, computed, recompute_layers, lora_kernel)
    if not fused_head:
        repeated += hardware.head_forward
    return StepFlops(
        model=_count_once(shape, trained, needed),
        hardware=replace(hardware, recompute=repeated),
    )


def backward_per_pair(
    shape: ModelShape, trained: Trained, *, is_first: bool, fused: bool = False, together: bool = False
) -> int:
    """FLOPs of attention's backward pass for each (query, key) pair and each number of a head.

    The gradients of queries, keys, values and probabilities take 2 each, the scores of a fused kernel another 2.

    Args:
        shape: The model's sizes.
        trained: What has gradients.
        is_first: Whether it is the first layer.
        fused: A fused kernel; it computes all of it as soon as one of its inputs needs a gradient.
        together: Whether queries, keys and values come from one function, so that all need a gradient if one does.
    """
    reached = trained.reaches(shape, is_first=is_first)
    if fused or together:
        return (10 if fused else 8) * (reached or trained.has(*QKV))
    queries, keys, values = (reached or trained.has(name) for name in QKV)
    return 2 * (queries + keys + values + (queries or keys))


def _count_once(
    shape: ModelShape,
    trained: Trained,
    work: Work,
    *,
    fused_attention: bool = False,
    fused_head: bool = False,
    together: bool = False,
) -> FlopParts:
    linears, per_pair = LayerCost(), 0
    for is_first, count in ((True, 1), (False, shape.num_layers - 1)):
        linears += cost_of_layer(shape, trained, is_first=is_first) * (count * work.tokens)
        per_pair += count * backward_per_pair(
            shape, trained, is_first=is_first, fused=fused_attention, together=together
        )
    # The fused head takes the gradient of its input without knowing whether anything before it trains.
    head_input = fused_head or trained.reaches(shape, is_first=False)
    sizes = (shape.hidden_size, shape.vocab_size)
    head = cost_of_linear(sizes, "lm_head", trained, input_gradient=head_input) * work.supervised
    per_layer = work.pairs * shape.num_heads * shape.head_dim
    return FlopParts(
        forward_base=linears.forward_base,
        forward_lora=linears.forward_lora,
        forward_attention=4 * per_layer * shape.num_layers,
        head_forward=head.forward_base + head.forward_lora,
        backward_base=linears.backward_base,
        backward_lora=linears.backward_lora,
        backward_attention=per_pair * per_layer,
        head_backward=head.backward_base + head.backward_lora,
    )


def _count_repeated(
    shape: ModelShape,
    trained: Trained,
    work: Work,
    recompute_layers: int,
    lora_kernel: Literal["lean", "peft"],
) -> int:
    """What layers compute again in the backward pass."""
    per_layer = 4 * work.pairs * shape.num_heads * shape.head_dim
    total = 0
    for is_first, count in ((True, min(1, recompute_layers)), (False, max(0, recompute_layers - 1))):
        cost = cost_of_layer(shape, trained, is_first=is_first)
        forward = (
            cost.forward_base + cost.forward_lora - (lora_kernel == "peft") * _never_repeated(shape, trained)
        )
        if trained.has(*shape.projections):
            total += count * (work.tokens * forward + per_layer)
    return total


def _never_repeated(shape: ModelShape, trained: Trained) -> int:
    """What a recomputation leaves out at a layer's end, for each token.

    torch.utils.checkpoint stops once everything that backward needs is there. The last product of a layer gives its
    output alone, which nothing in it needs: the adapter's B on down_proj, or down_proj itself where it has none. The
    lean kernels compute that layer's end as one function, which runs whole.
    """
    sizes = shape.projections["down_proj"]
    cost = cost_of_linear(sizes, "down_proj", trained, input_gradient=True)
    if cost.forward_lora:
        assert trained.lora is not None
        return 2 * trained.lora.r * sizes[1]
    return cost.forward_base
