"""Forests, tensors and references for the tests of attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from harness.attention.layout import ForestLayout, build_layout
from harness.attention.varlen import Sequences, Tensors3
from harness.loss import forest_mask
from preprocess.forest import PackedRow, concatenate, euler_intervals, segment_of_slot
from preprocess.schema import ROOT

SCALE = 0.3

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From query [R, Hq, T, D], key and value [R, Hkv, T, D] to [R, T, Hq, D]."""


def make_row(lengths: Sequence[int], parents: Sequence[int]) -> PackedRow:
    """A row of segments with ids that mean nothing."""
    slots = sum(lengths)
    return PackedRow(
        input_ids=np.arange(slots, dtype=np.int32) % 50,
        label_mask=np.zeros(slots, dtype=np.bool_),
        seq_lens=np.array(lengths, dtype=np.int32),
        parents=np.array(parents, dtype=np.int32),
        tasks=np.zeros(len(lengths), dtype=np.int32),
        song_ids=("song",) * len(lengths),
    )


def draw_rows(seed: int, *, longest: int = 6, plain: bool = False) -> list[PackedRow]:
    """One to three rows of random forests, up to four levels deep, children anywhere after their parents."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(int(rng.integers(1, 4))):
        count = int(rng.integers(1, 9))
        parents: list[int] = []
        depths: list[int] = []
        for segment in range(count):
            parent = ROOT if plain or segment == 0 else int(rng.integers(ROOT, segment))
            parent = ROOT if parent != ROOT and depths[parent] == 3 else parent
            parents.append(parent)
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        rows.append(make_row(rng.integers(1, longest + 1, count).tolist(), parents))
    return rows


@dataclass(frozen=True)
class Case:
    """A micro-batch: its layout, who sees whom bool[R, 1, T, T], and which slots are no padding bool[R, T]."""

    layout: ForestLayout
    mask: torch.Tensor
    is_token: torch.Tensor
    entry: torch.Tensor
    exit: torch.Tensor


def make_case(rows: Sequence[PackedRow], *, flat: bool) -> Case:
    """The rows one after another, or each padded to the longest (and two slots more); padding sees itself."""
    lines = [concatenate(rows)] if flat else list(rows)
    slots = max(len(row.input_ids) for row in lines) + (0 if flat else 2)
    entry = torch.arange(slots, 2 * slots, dtype=torch.int32).repeat(len(lines), 1)
    exit_, is_token = entry + 1, torch.zeros(len(lines), slots, dtype=torch.bool)
    for i, row in enumerate(lines):
        size, segments = len(row.input_ids), segment_of_slot(row)
        for times, own in zip((entry, exit_), euler_intervals(row), strict=True):
            times[i, :size] = torch.from_numpy(own[segments])
        is_token[i, :size] = True
    layout = build_layout(rows, None if flat else slots)
    return Case(layout, forest_mask(entry, exit_), is_token, entry, exit_)


def draw_tensors(
    case: Case,
    heads: tuple[int, int, int] = (6, 2, 8),
    dtype: torch.dtype = torch.float64,
    spread: float = 1.0,
) -> list[torch.Tensor]:
    """Query, key and value as a transformers layer makes them (transposed views), for (Hq, Hkv, D)."""
    rows, slots = case.is_token.shape
    return [
        (spread * torch.randn(rows, slots, count, heads[2], dtype=torch.float64)).to(dtype).transpose(1, 2)
        for count in (heads[0], heads[1], heads[1])
    ]


def dense(mask: torch.Tensor) -> Attend:
    """Torch's own attention under a dense mask."""

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        k, v = (x.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for x in (key, value))
        out = torch.nn.functional.scaled_dot_product_attention(query, k, v, attn_mask=mask, scale=SCALE)
        return out.transpose(1, 2)

    return attend


def run(
    attend: Attend, tensors: Sequence[torch.Tensor], is_token: torch.Tensor, seed: int = 1
) -> list[torch.Tensor]:
    """Output at tokens, and gradients of query, key and value where only the outputs at tokens count."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = attend(*leaves)
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    counts = is_token[:, :, None, None]
    return [out.detach() * counts, *torch.autograd.grad(out, leaves, direction * counts)]


def largest_difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Over output and gradients."""
    pairs = zip(found, expected, strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


class LoopKernels:
    """What `_flash_attention_forward` and `_flash_attention_backward` compute, one pair of sequences at a time.

    The output is rounded to the inputs' dtype and lse is float32[H, N] as theirs; from float64 it is float64.
    """

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sequences: Sequences, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        precise = torch.promote_types(query.dtype, torch.float32)
        out = torch.full_like(query, torch.nan)
        lse = torch.full((query.shape[1], query.shape[0]), torch.nan, dtype=precise)
        for q, k in _each(sequences):
            scores = _scores(query[q].to(precise), key[k].to(precise), scale, causal=sequences.causal)
            lse[:, q] = scores.logsumexp(dim=-1)
            of_values = _repeat(value[k].to(precise), query.shape[1])
            out[q] = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), of_values).to(query.dtype)
        return out, lse

    def backward(
        self,
        grad_out: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        sequences: Sequences,
        scale: float,
    ) -> Tensors3:
        precise = torch.promote_types(query.dtype, torch.float32)
        group = query.shape[1] // key.shape[1]
        grads = tuple(torch.full_like(tensor, torch.nan) for tensor in (query, key, value))
        for q, k in _each(sequences):
            o, g, queries = (tensor[q].to(precise) for tensor in (out, grad_out, query))
            keys, values = (_repeat(tensor[k].to(precise), query.shape[1]) for tensor in (key, value))
            scores = _scores(queries, key[k].to(precise), scale, causal=sequences.causal)
            p = (scores - lse[:, q, None]).exp()
            ds = p * (torch.einsum("qhd,khd->hqk", g, values) - (g * o).sum(dim=-1).T[:, :, None]) * scale
            grads[0][q] = torch.einsum("hqk,khd->qhd", ds, keys).to(query.dtype)
            of_keys = torch.einsum("hqk,qhd->khd", ds, queries), torch.einsum("hqk,qhd->khd", p, g)
            for grad, found in zip(grads[1:], of_keys, strict=True):
                grad[k] = found.unflatten(1, (-1, group)).sum(dim=2).to(grad.dtype)  # type: ignore[no-untyped-call]
        return grads[0], grads[1], grads[2]


def _each(sequences: Sequences) -> list[tuple[slice, slice]]:
    bounds = (sequences.cu_q.tolist(), sequences.cu_k.tolist())
    assert all(cu.dtype == torch.int32 for cu in (sequences.cu_q, sequences.cu_k))
    assert max(np.diff(bounds[0])) <= sequences.max_q
    assert max(np.diff(bounds[1])) <= sequences.max_k
    slices = [[slice(a, b) for a, b in pairwise(cu)] for cu in bounds]
    return list(zip(*slices, strict=True))


def _repeat(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


def _scores(query: torch.Tensor, key: torch.Tensor, scale: float, *, causal: bool) -> torch.Tensor:
    scores = torch.einsum("qhd,khd->hqk", query, _repeat(key, query.shape[1])) * scale
    hidden = (
        torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        if causal
        else torch.zeros(1, 1, dtype=torch.bool)
    )
    return scores.masked_fill(hidden, float("-inf"))
