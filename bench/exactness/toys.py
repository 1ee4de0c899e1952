"""What the runs train on: a tiny random Llama with adapters that are not zero, and rows of random forests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import ModuleType
from typing import cast
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from bench.exactness.cases import Data, Precision
from harness.config import ATTENTION_AND_MLP, LoraSettings
from harness.lora import trainable_parameters
from preprocess.forest import PackedRow, check_row, concatenate
from preprocess.schema import ROOT

VOCAB_SIZE = 48
DTYPES: dict[Precision, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
}


def make_base(precision: Precision) -> nn.Module:
    """Two frozen layers, two key-value heads for four queries, a head tied to the embedding."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).requires_grad_(requires_grad=False)
    base.config.use_cache = False
    return cast("nn.Module", base.bfloat16().to(DTYPES[precision]))


@torch.no_grad()
def fill_adapter(model: nn.Module) -> None:
    """Give every adapter matrix random values, none of them zero.

    They are numbers of bf16, as the base's weights are, so that all precisions start from the same function.
    """
    generator = torch.Generator().manual_seed(2)
    for _, weight in trainable_parameters(model):
        weight.copy_((0.1 * torch.randn(weight.shape, generator=generator)).bfloat16())


def make_lora(dropout: float) -> LoraSettings:
    """Adapters on all seven projections and on the tied head."""
    return LoraSettings(r=4, alpha=8, dropout=dropout, targets=(*ATTENTION_AND_MLP, "lm_head"))


@contextmanager
def tied_adapter_allowed() -> Iterator[None]:
    """Without peft's warning that a tied head has an adapter: that is what is to be checked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        yield


def make_rows(data: Data, num_rows: int) -> list[PackedRow]:
    """Rows whose forests are up to three segments deep; the same ones each time.

    From the last backwards, they hold in turns two songs with all possible labels, and one song with a single label.
    """
    rng = np.random.Generator(np.random.Philox(7))
    rows = []
    for left in range(num_rows, 0, -1):
        is_rich = left % 2 == 1
        songs = [_make_song(rng, f"{left}.{song}", is_rich) for song in range(1 + is_rich)]
        rows.append(concatenate(songs))
    for i, row in enumerate(rows):
        if data == "unlabeled" and i % 3 == 1:
            row.label_mask[:] = False
        check_row(row, VOCAB_SIZE)
    return rows


def _make_song(rng: np.random.Generator, song_id: str, is_rich: bool) -> PackedRow:
    """A root, questions under it, one of them in two parts with two endings; and a root that is an example itself."""
    parents = [ROOT, *[0] * int(rng.integers(1, 4)), 1, 1, ROOT]
    tasks = [-1, *range(len(parents) - 1)]
    tasks[1] = -1
    lengths = rng.integers(3, 9, size=len(parents))
    mask = np.zeros(int(lengths.sum()), dtype=np.bool_)
    for end, length, task in zip(np.cumsum(lengths), lengths, tasks, strict=True):
        supervised = 0 if task < 0 else length - 1 if is_rich else int(task == 1)
        mask[end - supervised : end] = True
    return PackedRow(
        input_ids=rng.integers(0, VOCAB_SIZE, size=len(mask)).astype(np.int32),
        label_mask=mask,
        seq_lens=lengths.astype(np.int32),
        parents=np.array(parents, dtype=np.int32),
        tasks=np.array(tasks, dtype=np.int32),
        song_ids=(song_id,) * len(parents),
    )


class Float64Torch(ModuleType):
    """`torch` in the eyes of a module, except that what it calls float32 is float64."""

    float32 = torch.float64
    float = torch.float64

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


@contextmanager
def float32_means_float64(*modules: ModuleType) -> Iterator[None]:
    """Let modules of other packages, which name float32 in their code, compute in float64 instead.

    Nothing else of them changes: the same code runs, with a name that stands for another number format.
    """
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(patch.object(module, "torch", Float64Torch("torch")))
        yield


def exact_transformers() -> AbstractContextManager[None]:
    """Llama's norms and its eager softmax, which transformers always computes in float32, in float64."""
    return float32_means_float64(modeling_llama)
