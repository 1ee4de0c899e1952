"""Keys and values of what was computed: those of lyrics once for all their questions, those of answers row by row.

::

    prefix of song A    l l l l l l l l                shared by rows 0 and 1
    prefix of song B    l l l l l                      shared by row 2

    own, row 0          q q q a a a . .                its question, its answer so far, room for the rest
    own, row 1          q q q q a . . .
    own, row 2          q q a a a a . .

Rows 0 to n - 1 are the active answers'. One that ends gives its row to the last one, so that no row is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from harness.attention.choice import read_head_dim

KEYS, VALUES = 0, 1


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model keeps of a token.

    Attributes:
        num_layers: Decoder layers.
        num_heads: Key heads of each.
        head_dim: Width of a head.
        dtype: Precision of keys and values.
        device: Where they lie.
    """

    num_layers: int
    num_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


def read_shape(causal: nn.Module) -> Shape:
    """Read from a model of transformers what it keeps of a token."""
    config, parameter = cast("Any", causal).config, next(causal.parameters())
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = read_head_dim(causal)
    assert head_dim is not None, "a model of transformers says how wide its heads are"
    return Shape(config.num_hidden_layers, heads, head_dim, parameter.dtype, parameter.device)


class PrefixKeyValues:
    """Keys and values of a prefix of P tokens.

    Args:
        shape: Of the model.
        num_slots: P.

    Attributes:
        store: [layers, 2, Hkv, P, D], keys before values.
    """

    def __init__(self, shape: Shape, num_slots: int) -> None:
        self.store = torch.empty(
            *(shape.num_layers, 2, shape.num_heads, num_slots, shape.head_dim),
            dtype=shape.dtype,
            device=shape.device,
        )

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep a layer's keys and values, each [Hkv, P, D]."""
        self.store[layer, KEYS] = key
        self.store[layer, VALUES] = value

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values, each [1, Hkv, P, D]."""
        key, value = self.store[layer, :, None]
        return key, value


class OwnKeyValues:
    """Keys and values that are each answer's own: R rows of C slots.

    Args:
        shape: Of the model.

    Attributes:
        store: [layers, 2, R, C, Hkv, D]; a slot that was never written is 0, since a hidden key still takes part in
            sums, with a weight of 0.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.store = self._allocate(0, 0)

    @property
    def num_rows(self) -> int:
        """R."""
        return self.store.shape[2]

    @property
    def row_slots(self) -> int:
        """C."""
        return self.store.shape[3]

    def reserve(self, num_rows: int, row_slots: int, num_active: int, *, most: int) -> None:
        """Have room for so many rows of so many slots; the first `num_active` rows keep what they hold.

        It gives room back too, once there is more than twice as much as asked for, or more than `most` slots. A copy
        needs the old room beside the new one for a moment.

        Args:
            num_rows: Rows.
            row_slots: Slots of each.
            num_active: Rows in use.
            most: Slots that may be kept where fewer are asked for.
        """
        asked, held = num_rows * row_slots, self.num_rows * self.row_slots
        enough = num_rows <= self.num_rows and row_slots <= self.row_slots
        if enough and held <= max(asked, min(2 * asked, most)):
            return
        old, self.store = self.store, self._allocate(num_rows, row_slots)
        kept = min(row_slots, old.shape[3])
        self.store[:, :, :num_active, :kept] = old[:, :, :num_active, :kept]

    def _allocate(self, num_rows: int, row_slots: int) -> torch.Tensor:
        shape = self.shape
        return torch.zeros(
            *(shape.num_layers, 2, num_rows, row_slots, shape.num_heads, shape.head_dim),
            dtype=shape.dtype,
            device=shape.device,
        )

    def write_row(self, layer: int, row: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Begin a row with a layer's keys and values of a question, each [Hkv, Q, D]."""
        num_slots = key.shape[1]
        self.store[layer, KEYS, row, :num_slots] = key.transpose(0, 1)
        self.store[layer, VALUES, row, :num_slots] = value.transpose(0, 1)

    def append(self, layer: int, places: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Add a token to each of the rows 0 to N - 1.

        Args:
            layer: Of the model.
            places: int64[N], for each row its number times C and the slot in it.
            key: [Hkv, N, D].
            value: [Hkv, N, D].
        """
        for part, given in ((KEYS, key), (VALUES, value)):
            flat = self.store[layer, part].view(-1, key.shape[0] * key.shape[2])
            flat.index_copy_(0, places, given.transpose(0, 1).reshape(len(places), -1))

    def read(self, layer: int, num_rows: int, num_slots: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first slots of a layer's first rows, each [N, Hkv, L, D]; views."""
        key, value = self.store[layer, :, :num_rows, :num_slots].transpose(2, 3)
        return key, value

    def move(self, source: int, target: int, num_slots: int) -> None:
        """Let a row hold the first slots of another one."""
        self.store[:, :, target, :num_slots] = self.store[:, :, source, :num_slots]
