"""Attention while answers are generated: over a forest of prompts first, then of one new token for each answer.

A new token sees its lyrics whole and its own question and answer so far. The two parts are computed apart, the lyrics'
for all their answers in one call, and merged by their log-sum-exps: with w = sigmoid(l2 - l1),
out = out1 * (1 - w) + out2 * w (the algebra of Dao et al., FlashAttention, 2022, over parts of the keys).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from harness.attention.choice import refuse_extras
from harness.attention.flash import attend_forest
from harness.attention.layout import ForestLayout, Span
from harness.generation.key_values import OwnKeyValues, PrefixKeyValues
from preprocess.errors import ConfigError

IMPLEMENTATION = "lyrics_answers"
"""Name for `attn_implementation` while answers are generated."""


class Pass(Protocol):
    """One pass through the model."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The output [1, T, Hq, D] of a layer's [1, Hq, T, D] and twice [1, Hkv, T, D]."""


@dataclass(slots=True)
class _Running:
    """A pass with the number of layers that have asked for it."""

    through: Pass
    num_calls: int = 0


def run_pass(
    causal: nn.Module, through: Pass, ids: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Run the model over one row, with the attention of a pass.

    Args:
        causal: A causal model of transformers; its own attention is set again afterwards.
        through: The pass.
        ids: int64[T].
        positions: int64[T].
        wanted: int64[N], the slots whose logits are wanted.

    Returns:
        [N, V], the logits as the model gives them.

    Raises:
        ConfigError: The model does not attend through transformers' interface, or asks for more than these kernels
            compute.
    """
    running = _Running(through)
    no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device)  # see ForestLayout.no_mask
    with _set_attention(causal):
        output = causal(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=no_mask,
            use_cache=False,
            logits_to_keep=wanted,
            answering=running,
        )
    if running.num_calls != (expected := cast("Any", causal).config.num_hidden_layers):
        raise ConfigError(
            f"{type(causal).__name__}: {running.num_calls} of {expected} layers attend through transformers' "
            "attention interface, which answering in batches needs"
        )
    return cast("torch.Tensor", output.logits[0])


@contextmanager
def _set_attention(causal: nn.Module) -> Iterator[None]:
    AttentionInterface.register(IMPLEMENTATION, answering_attention_forward)
    config = cast("Any", causal).config
    before = config._attn_implementation
    config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        config._attn_implementation = before


def answering_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    answering: _Running | None = None,
    **others: Any,  # noqa: ANN401 - what transformers passes to all its attention functions
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers: [1, H, T, D] in, [1, T, H, D] out."""
    assert answering is not None, "set for the time of a pass alone"
    refuse_extras(dropout, others)
    answering.num_calls += 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: int = cast("Any", module).layer_idx
    return answering.through.attend(layer, query, key, value, scale), None


@dataclass(frozen=True, slots=True)
class Prefill:
    """The pass over the prompts of some answers, as a forest of lyrics and questions; it keeps all keys and values.

    Attributes:
        layout: Of the forest.
        mask: bool[1, 1, T, T] of the same, for a device without kernels that take a layout; None where it has them.
        prefixes: Where the keys and values of these slots go.
        own: The rows of the answers.
        rows: For each question, its slots and its row.
    """

    layout: ForestLayout
    mask: torch.Tensor | None
    prefixes: Sequence[tuple[Span, PrefixKeyValues]]
    own: OwnKeyValues
    rows: Sequence[tuple[Span, int]]

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See `Pass`."""
        for (start, stop), prefix in self.prefixes:
            prefix.write(layer, key[0, :, start:stop], value[0, :, start:stop])
        for (start, stop), row in self.rows:
            self.own.write_row(layer, row, key[0, :, start:stop], value[0, :, start:stop])
        if self.mask is None:
            return attend_forest(query, key, value, self.layout, scale)
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=self.mask, scale=scale, enable_gqa=True
        )
        return out.transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Sharing:
    """A prefix and the answers that go on from it.

    Attributes:
        prefix: Its keys and values.
        start: Place of its first answer among those of all prefixes.
        stop: Place after its last one.
    """

    prefix: PrefixKeyValues
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Decode:
    """The pass over one new token of each of N answers.

    Attributes:
        own: Their rows, 0 to N - 1.
        places: int64[N], where the new tokens go; see `OwnKeyValues.append`.
        num_slots: Slots of the longest row, the new token's among them.
        mask: [N, 1, 1, num_slots], 0 for a row's own slots and -inf for those behind them; None where there are none.
        sharings: The prefixes.
        order: int64[M], the rows that have a prefix, prefix by prefix; None where these are rows 0 to N - 1.
    """

    own: OwnKeyValues
    places: torch.Tensor
    num_slots: int
    mask: torch.Tensor | None
    sharings: Sequence[Sharing]
    order: torch.Tensor | None

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See `Pass`."""
        self.own.append(layer, self.places, key[0], value[0])
        _, heads, num_rows, width = query.shape
        group = query.view(key.shape[1], -1, num_rows, width).transpose(1, 2)  # [Hkv, N, G, D]
        keys, values = self.own.read(layer, num_rows, self.num_slots)
        out, lse = attend_part(group.transpose(0, 1), keys, values, self.mask, scale)
        out, lse = out.transpose(0, 1), lse.transpose(0, 1)
        if self.sharings:
            out = self._add_prefixes(layer, group, out, lse, scale)
        return out.transpose(0, 1).reshape(1, num_rows, heads, width)

    def _add_prefixes(
        self, layer: int, query: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Merge [Hkv, N, G, D] and its log-sum-exp [Hkv, N, G] with what the answers see of their prefixes."""
        if self.order is None:
            return self._merge(layer, query, out, lse, scale)
        own_query, own_out, own_lse = (tensor.index_select(1, self.order) for tensor in (query, out, lse))
        return out.index_copy(1, self.order, self._merge(layer, own_query, own_out, own_lse, scale))

    def _merge(
        self, layer: int, query: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The same where all answers have a prefix and come in the order of the prefixes."""
        heads, _, group, width = query.shape
        flat = query.reshape(1, heads, -1, width)
        parts = [
            attend_part(
                flat[:, :, sharing.start * group : sharing.stop * group],
                *sharing.prefix.read(layer),
                None,
                scale,
            )
            for sharing in self.sharings
        ]
        seen, seen_lse = (
            together[0] if len(together) == 1 else torch.cat(together, dim=2)
            for together in zip(*parts, strict=True)
        )
        weight = torch.sigmoid(seen_lse.view(lse.shape) - lse)[..., None].to(out.dtype)
        return torch.lerp(out, seen.reshape(out.shape), weight)


def attend_part(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of few queries over a part of what they see.

    Args:
        query: [B, H, Q, D].
        key: [B, H, K, D].
        value: [B, H, K, D].
        mask: What is added to the scores, broadcast to [B, H, Q, K]; None adds nothing.
        scale: Factor of the scores.

    Returns:
        out: [B, H, Q, D].
        lse: [B, H, Q], log-sum-exp of each query's scores, at least in float32.
    """
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=mask, scale=scale
        )
        return out, lse
    return attend_part_plainly(query, key, value, mask, scale)


def attend_part_plainly(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attend_part` by matrix products, for any device: with one new token a row, all scores together are few.

    Scores are float32 at least: a score of 40 in bfloat16 is up to 0.125 off, and float16 ends at 65,504.
    """
    precise = torch.promote_types(query.dtype, torch.float32)
    scores = (query.to(precise) @ key.to(precise).transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(value.dtype) @ value, lse
