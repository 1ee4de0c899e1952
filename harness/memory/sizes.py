"""Sizes of the tensors of one decoder layer, in bytes, from a case."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from harness.memory.case import MemoryCase

FLOAT32 = 4
"""Bytes of what norms, softmax and sums are computed in."""


@dataclass(frozen=True)
class Sizes:
    """A case's tensors. N tokens (slots), b bytes a value, H hidden, F inside the MLP, Q and K all query and key heads.

    Attributes:
        case: What they are sizes of.
    """

    case: MemoryCase

    @cached_property
    def value(self) -> int:
        """Bytes of a value, b."""
        return self.case.value_bytes

    @cached_property
    def is_half(self) -> bool:
        """Whether float32 copies are made of what the model computes."""
        return self.value < FLOAT32

    @cached_property
    def hidden(self) -> int:
        """[N, H] in the model's precision."""
        return self.tokens(self.case.shape.hidden_size)

    @cached_property
    def wide_hidden(self) -> int:
        """[N, H] in float32."""
        return self.case.slots * self.case.shape.hidden_size * FLOAT32

    @cached_property
    def inner(self) -> int:
        """[N, F]."""
        return self.tokens(self.case.shape.ffn_size)

    @cached_property
    def queries(self) -> int:
        """[N, Q]."""
        return self.tokens(self.case.shape.num_heads * self.case.shape.head_dim)

    @cached_property
    def keys(self) -> int:
        """[N, K]."""
        return self.tokens(self.case.shape.num_kv_heads * self.case.shape.head_dim)

    @cached_property
    def rms(self) -> int:
        """float32[N, 1]."""
        return self.case.slots * FLOAT32

    @cached_property
    def widths(self) -> dict[str, tuple[int, int]]:
        """Input and output width of each projection, the head included."""
        shape = self.case.shape
        return {**shape.projections, "lm_head": (shape.hidden_size, shape.vocab_size)}

    @cached_property
    def has_dropout(self) -> bool:
        """Whether adapters' inputs are masked."""
        return self.case.dropout > 0 and self.case.lora is not None

    def tokens(self, width: int) -> int:
        """[N, width] in the model's precision."""
        return self.case.slots * width * self.value

    def rank(self, name: str) -> int:
        """Rank of a projection's adapter, 0 without one."""
        lora = self.case.lora
        return lora.r if lora is not None and name in lora.targets else 0

    def ranks(self, names: tuple[str, ...]) -> int:
        """The sum of their adapters' ranks."""
        return sum(self.rank(name) for name in names)

    def low_rank(self, name: str) -> int:
        """[N, r], an adapter's inner product."""
        return self.tokens(self.rank(name))

    def input_of(self, name: str) -> int:
        """[N, in]."""
        return self.tokens(self.widths[name][0])

    def output_of(self, name: str) -> int:
        """[N, out]."""
        return self.tokens(self.widths[name][1])

    def matrix_a(self, name: str) -> int:
        """Values of lora_A [r, in]."""
        return self.rank(name) * self.widths[name][0]

    def matrix_b(self, name: str) -> int:
        """Values of lora_B [out, r]."""
        return self.rank(name) * self.widths[name][1]
