"""Which weights a model has, in the order in which torch lists them, told from sizes alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from harness.linear_flops import LoraShape
from harness.memory.case import MemoryCase
from harness.shapes import ModelShape

Part = Literal["weight", "bias", "lora_A", "lora_B", "new_rows"]


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter.

    Attributes:
        module: Whose it is, "layers.0.q_proj".
        part: Which of its parameters.
        num_values: How many numbers it holds.
    """

    module: str
    part: Part
    num_values: int

    @property
    def trains(self) -> bool:
        """Whether it has a gradient."""
        return self.part not in ("weight", "bias")


def list_weights(case: MemoryCase) -> tuple[Weight, ...]:
    """All parameters of a model with its adapter, in the order of torch's `parameters()`, each once."""
    body = (weight for layer in range(case.shape.num_layers) for weight in list_layer(case, layer))
    return (*list_embedding(case), *body, last_norm(case), *list_head(case))


def list_embedding(case: MemoryCase) -> tuple[Weight, ...]:
    """The embedding and, where tokens are new, their rows."""
    matrix = Weight("embed_tokens", "weight", case.shape.vocab_size * case.shape.hidden_size)
    return (matrix, *_new_rows(case, "embed_tokens"))


def list_layer(case: MemoryCase, layer: int) -> tuple[Weight, ...]:
    """A decoder layer's projections, each followed by its adapter, and its two norms."""
    prefix = f"layers.{layer}"
    linear = (weight for name in case.shape.projections for weight in _list_linear(case, prefix, name))
    norms = ("input_layernorm", "post_attention_layernorm")
    return (*linear, *(Weight(f"{prefix}.{name}", "weight", case.shape.hidden_size) for name in norms))


def last_norm(case: MemoryCase) -> Weight:
    """The norm before the head."""
    return Weight("norm", "weight", case.shape.hidden_size)


def list_head(case: MemoryCase) -> tuple[Weight, ...]:
    """What the head has and the embedding has not: new rows and matrix where it is not tied, and its adapter."""
    inputs, outputs = case.shape.hidden_size, case.shape.vocab_size
    adapter = _list_adapter(case.lora, "lm_head", (inputs, outputs))
    if case.shape.tied:
        return adapter
    return (*_new_rows(case, "lm_head"), Weight("lm_head", "weight", inputs * outputs), *adapter)


def trained_sizes(case: MemoryCase) -> tuple[int, ...]:
    """How many values each trained parameter holds, in their order."""
    return tuple(weight.num_values for weight in list_weights(case) if weight.trains)


def count_tables(case: MemoryCase) -> int:
    """Bytes of what tells new tokens from others: int64[V] at the embedding, int64[K] at the head."""
    return 8 * (case.shape.vocab_size + case.new_tokens) if case.new_tokens else 0


def count_float8(shape: ModelShape) -> int:
    """Bytes of all frozen projections in float8: a copy for each direction, a float32 scale for each row of both."""
    sizes = shape.projections.values()
    return shape.num_layers * sum(2 * inputs * outputs + 4 * (inputs + outputs) for inputs, outputs in sizes)


def _list_linear(case: MemoryCase, prefix: str, name: str) -> Iterator[Weight]:
    inputs, outputs = case.shape.projections[name]
    module = f"{prefix}.{name}"
    if not case.fp8:
        yield Weight(module, "weight", inputs * outputs)
    if name in case.shape.biases:
        yield Weight(module, "bias", outputs)
    yield from _list_adapter(case.lora, module, (inputs, outputs))


def _list_adapter(lora: LoraShape | None, module: str, sizes: tuple[int, int]) -> tuple[Weight, ...]:
    if lora is None or module.rpartition(".")[2] not in lora.targets:
        return ()
    inputs, outputs = sizes
    return Weight(module, "lora_A", lora.r * inputs), Weight(module, "lora_B", lora.r * outputs)


def _new_rows(case: MemoryCase, module: str) -> tuple[Weight, ...]:
    if not case.new_tokens:
        return ()
    return (Weight(module, "new_rows", case.new_tokens * case.shape.hidden_size),)
