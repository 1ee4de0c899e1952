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

from harness.shapes import ModelShape

Kind = Literal["flash", "flex", "sdpa", "eager"]

FUSED: tuple[Kind, ...] = ("flash", "flex", "sdpa")
"""Kernels that keep no scores and compute them again in the backward pass (Dao 2023, arXiv:2307.08691, section 2.3).
`sdpa` means torch's fused kernels; its math backend counts as `eager`."""

QKV = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class LoraShape:
    """Which linear layers have an adapter, and of which rank. `lm_head` is one of the names."""

    r: int
    targets: tuple[str, ...]


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


@dataclass(frozen=True, slots=True)
class Trained:
    """What has gradients.

    Attributes:
        lora: The adapter, or None.
        base: Whether every weight of the base trains too.
    """

    lora: LoraShape | None
    base: bool

    def has(self, *names: str) -> bool:
        """Whether one of some linear layers trains, in itself or in its adapter."""
        return self.base or (self.lora is not None and any(name in self.lora.targets for name in names))

    def reaches(self, shape: ModelShape, *, is_first: bool) -> bool:
        """Whether a gradient has to go back to the input of a layer: whether anything before it trains."""
        return self.base or (not is_first and self.has(*shape.projections))


@dataclass(frozen=True, slots=True)
class LayerCost:
    """FLOPs of some linear layers for each token, and whether their output has a gradient."""

    forward_base: int = 0
    forward_lora: int = 0
    backward_base: int = 0
    backward_lora: int = 0

    def __add__(self, other: LayerCost) -> LayerCost:
        """Sum field by field."""
        return LayerCost(
            *(getattr(self, field.name) + getattr(other, field.name) for field in fields(LayerCost))
        )

    def __mul__(self, count: int) -> LayerCost:
        """So many layers or tokens of this kind."""
        return LayerCost(*(getattr(self, field.name) * count for field in fields(LayerCost)))


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
        lora_kernel: `lean` computes again what `peft` keeps.
        train_base: Whether the base trains too (all of its weights).
        fused_head: Whether the head's gradient is computed in the forward pass; else the logits of each chunk are
            computed again in the backward pass.
    """
    trained = Trained(lora, train_base)
    needed = Work(tokens, attention_pairs, supervised_tokens)
    computed = Work(slots or tokens, computed_pairs or attention_pairs, supervised_tokens)
    hardware = _count_once(
        shape, trained, computed, fused_attention=attention in FUSED, fused_head=fused_head
    )
    repeated = _count_repeated(shape, trained, computed, recompute_layers, lora_kernel)
    if not fused_head:
        repeated += hardware.head_forward
    return StepFlops(
        model=_count_once(shape, trained, needed),
        hardware=replace(hardware, recompute=repeated),
    )


def cost_of_linear(sizes: tuple[int, int], name: str, trained: Trained, *, input_gradient: bool) -> LayerCost:
    """FLOPs of one linear layer for each token.

    Args:
        sizes: Input and output width.
        name: As in the adapter's targets.
        trained: What has gradients.
        input_gradient: Whether its input has one.
    """
    inputs, outputs = sizes
    rank = trained.lora.r if trained.lora is not None and name in trained.lora.targets else 0
    base, down, up = 2 * inputs * outputs, 2 * rank * inputs, 2 * rank * outputs
    return LayerCost(
        forward_base=base,
        forward_lora=down + up,
        backward_base=base * (input_gradient + trained.base),
        backward_lora=2 * up + down * (1 + input_gradient),
    )


def cost_of_layer(shape: ModelShape, trained: Trained, *, is_first: bool) -> LayerCost:
    """FLOPs of the linear layers of one decoder layer for each token."""
    at_input = trained.reaches(shape, is_first=is_first)
    at_output = at_input or trained.has(*QKV)
    at_mlp = at_output or trained.has("o_proj")
    at_down = at_mlp or trained.has("gate_proj", "up_proj")
    gradients = dict.fromkeys(QKV, at_input)
    gradients |= {"o_proj": at_output, "gate_proj": at_mlp, "up_proj": at_mlp, "down_proj": at_down}
    costs = (
        cost_of_linear(sizes, name, trained, input_gradient=gradients[name])
        for name, sizes in shape.projections.items()
    )
    return sum(costs, LayerCost())


def backward_per_pair(shape: ModelShape, trained: Trained, *, is_first: bool, fused: bool) -> int:
    """FLOPs of attention's backward pass for each (query, key) pair and each number of a head.

    The gradients of queries, keys, values and probabilities take 2 each, the scores of a fused kernel another 2. A
    fused kernel computes all of it as soon as one of its inputs needs a gradient.
    """
    reached = trained.reaches(shape, is_first=is_first)
    queries, keys, values = (reached or trained.has(name) for name in QKV)
    if fused:
        return 10 * (queries or keys or values)
    return 2 * (queries + keys + values + (queries or keys))


def _count_once(
    shape: ModelShape,
    trained: Trained,
    work: Work,
    *,
    fused_attention: bool = False,
    fused_head: bool = False,
) -> FlopParts:
    linears, per_pair = LayerCost(), 0
    for is_first, count in ((True, 1), (False, shape.num_layers - 1)):
        linears += cost_of_layer(shape, trained, is_first=is_first) * (count * work.tokens)
        per_pair += count * backward_per_pair(shape, trained, is_first=is_first, fused=fused_attention)
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
        forward = cost.forward_base + cost.forward_lora - _never_repeated(shape, trained)
        if trained.has(*shape.projections):
            total += count * (work.tokens * forward + per_layer)
    return total


def _never_repeated(shape: ModelShape, trained: Trained) -> int:
    """What a recomputation leaves out at a layer's end, for each token.

    torch.utils.checkpoint stops once everything that backward needs is there. The last product of a layer gives its
    output alone, which nothing in it needs: the adapter's B on down_proj, or down_proj itself where it has none.
    """
    sizes = shape.projections["down_proj"]
    cost = cost_of_linear(sizes, "down_proj", trained, input_gradient=True)
    if cost.forward_lora:
        assert trained.lora is not None
        return 2 * trained.lora.r * sizes[1]
    return cost.forward_base
