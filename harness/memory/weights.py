"""Which weights a model has, in the order in which torch lists them, told from sizes alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.linear_flops import LoraShape
from harness.memory.case import MemoryCase
from harness.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter.

    Attributes:
        name: As torch calls it, without what all names begin with.
        num_values: How many numbers it holds.
        trains: Whether it has a gradient.
    """

    name: str
    num_values: int
    trains: bool = False


def list_weights(case: MemoryCase) -> tuple[Weight, ...]:
    """All parameters of a model with its adapter, in the order of torch's `parameters()`, each once."""
    shape = case.shape
    body = (weight for layer in range(shape.num_layers) for weight in list_layer(case, layer))
    return (*list_embedding(case), *body, Weight("norm", shape.hidden_size), *list_head(case))


def list_embedding(case: MemoryCase) -> tuple[Weight, ...]:
    """The embedding and, where tokens are new, their rows."""
    matrix = Weight("embed_tokens", case.shape.vocab_size * case.shape.hidden_size)
    return (matrix, *_new_rows(case, "embed_tokens"))


def list_layer(case: MemoryCase, layer: int) -> tuple[Weight, ...]:
    """A decoder layer's projections, each followed by its adapter, and its two norms."""
    names, prefix = case.shape.projections, f"layers.{layer}"
    linear = (weight for name in names for weight in _list_linear(case, prefix, name))
    norms = (Weight(f"{prefix}.norm_{place}", case.shape.hidden_size) for place in ("attention", "mlp"))
    return (*linear, *norms)


def list_head(case: MemoryCase) -> tuple[Weight, ...]:
    """What the head has and the embedding has not: new rows and matrix where it is not tied, and its adapter."""
    sizes = (case.shape.hidden_size, case.shape.vocab_size)
    adapter = _list_adapter(case.lora, "lm_head", "lm_head", sizes)
    if case.shape.tied:
        return adapter
    return (*_new_rows(case, "lm_head"), Weight("lm_head", sizes[0] * sizes[1]), *adapter)


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
    if not case.fp8:
        yield Weight(f"{prefix}.{name}", inputs * outputs)
    if name in case.shape.biases:
        yield Weight(f"{prefix}.{name}.bias", outputs)
    yield from _list_adapter(case.lora, f"{prefix}.{name}", name, (inputs, outputs))


def _list_adapter(lora: LoraShape | None, path: str, name: str, sizes: tuple[int, int]) -> tuple[Weight, ...]:
    if lora is None or name not in lora.targets:
        return ()
    return tuple(
        Weight(f"{path}.lora_{half}", lora.r * size, trains=True)
        for half, size in zip("AB", sizes, strict=True)
    )


def _new_rows(case: MemoryCase, name: str) -> tuple[Weight, ...]:
    if not case.new_tokens:
        return ()
    return (Weight(f"{name}.new_rows", case.new_tokens * case.shape.hidden_size, trains=True),)
