"""FLOPs of a decoder's linear layers for each token: base and adapter, forward and backward; see `harness.flops`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from harness.shapes import ModelShape

QKV = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class LoraShape:
    """Which linear layers have an adapter, and of which rank. `lm_head` is one of the names."""

    r: int
    targets: tuple[str, ...]


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
