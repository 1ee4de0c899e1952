"""The forest forward pass against examples run alone, in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from harness.config import LoraSettings
from harness.data import MicroBatch, collate
from harness.head import Head, token_losses
from harness.lora import add_lora, trainable_parameters
from harness.loss import ForestLanguageModel, forest_mask, loss_by_task
from preprocess.forest import PackedRow, concatenate, labels, segment_starts, unpack_examples
from preprocess.schema import IGNORE_INDEX
from tests.toys import encode_songs, make_model_dir, make_songs, make_tokenizer

TOLERANCE: dict[str, float] = {
    "sdpa": 1e-10,
    "eager": 1e-5,  # transformers takes this kernel's softmax in float32, whatever the model's precision
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("model"), make_tokenizer().vocab_size)


@pytest.fixture(scope="module")
def rows() -> list[PackedRow]:
    packed = encode_songs(make_songs(6), make_tokenizer(), seq_len=700)
    assert max(len(row.seq_lens) for row in packed) > 5
    return packed


def build(model_dir: Path, attention: Literal["sdpa", "eager"], chunk: int = 7) -> ForestLanguageModel:
    causal = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=torch.float64, attn_implementation=attention
    )
    for norm in [module for module in causal.modules() if isinstance(module, LlamaRMSNorm)]:
        norm.forward = partial(normalize_in_float64, norm)
    causal.requires_grad_(requires_grad=False)
    peft_model = add_lora(causal, LoraSettings(r=4, alpha=8), seed=1)
    torch.manual_seed(2)
    for name, parameter in trainable_parameters(peft_model):
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return ForestLanguageModel(peft_model.get_base_model(), chunk)


def normalize_in_float64(norm: LlamaRMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    """RMSNorm without the detour through float32 that transformers' own takes."""
    scale: torch.Tensor = norm.weight * torch.rsqrt(
        hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon
    )
    return scale * hidden


def reference_loss(model: ForestLanguageModel, row: PackedRow) -> torch.Tensor:
    """Sum of losses, each example alone, through transformers' own forward pass and all of its logits."""
    total = torch.zeros((), dtype=torch.float64)
    for example in unpack_examples(row):
        ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
        logits = run_alone(model, ids)
        targets = torch.from_numpy(labels(example).astype(np.int64))
        total = total + nn.functional.cross_entropy(
            logits[:-1], targets[1:], ignore_index=IGNORE_INDEX, reduction="sum"
        )
    return total


def run_alone(model: ForestLanguageModel, ids: torch.Tensor) -> torch.Tensor:
    return cast("torch.Tensor", model.causal(input_ids=ids, use_cache=False).logits[0])


def gradients(model: ForestLanguageModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: cast("torch.Tensor", p.grad).clone() for name, p in trainable_parameters(model)}


def run_packed(model: ForestLanguageModel, batch: MicroBatch) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = cast("nn.Module", model.causal.lm_head)(model.hidden_states(batch))
        return logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_logits_of_a_packed_row_are_those_of_its_examples_alone(
    model_dir: Path, rows: list[PackedRow], attention: Literal["sdpa", "eager"]
) -> None:
    model = build(model_dir, attention)
    row = rows[0]
    packed = run_packed(model, collate([row]))[0]
    assert largest_difference(model, row, packed) < TOLERANCE[attention]


def largest_difference(model: ForestLanguageModel, row: PackedRow, packed: torch.Tensor) -> float:
    """The largest difference of a branch's logits to the same example run alone."""
    starts = segment_starts(row)
    segments = np.flatnonzero(row.tasks >= 0)
    worst = 0.0
    for segment, example in zip(segments, unpack_examples(row), strict=True):
        ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
        with torch.no_grad():
            alone = run_alone(model, ids)
        start, length = int(starts[segment]), int(row.seq_lens[segment])
        worst = max(worst, float((packed[start : start + length] - alone[-length:]).abs().max()))
    return worst


def with_wrong_mask(batch: MicroBatch, length: int) -> MicroBatch:
    """Every slot of a row in one segment: neighbours leak, as with a plain causal mask."""
    entry, exit_ = torch.zeros_like(batch.entry), torch.full_like(batch.exit, length)
    return replace(batch, entry=entry, exit=exit_)


def with_run_packed(batch: MicroBatch) -> MicroBatch:
    positions = torch.arange(batch.input_ids.shape[1]).expand_as(batch.position_ids)
    return replace(batch, position_ids=positions)


def test_with_a_leaking_mask_or_run_on_positions_the_comparison_fails(
    model_dir: Path, rows: list[PackedRow]
) -> None:
    model, row = build(model_dir, "sdpa"), rows[0]
    batch = collate([row])
    leaking = run_packed(model, with_wrong_mask(batch, len(row.input_ids)))[0]
    running_on = run_packed(model, with_run_packed(batch))[0]
    assert largest_difference(model, row, leaking) > 1e-4
    assert largest_difference(model, row, running_on) > 1e-4


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_and_gradients_of_a_padded_batch_of_forests_are_those_of_examples_alone(
    model_dir: Path, rows: list[PackedRow], attention: Literal["sdpa", "eager"]
) -> None:
    model = build(model_dir, attention)
    two = [rows[0], unpack_examples(rows[-1])[0]]
    assert len(two[0].input_ids) != len(two[1].input_ids)
    loss, _ = model(collate(two))
    expected = reference_loss(model, two[0]) + reference_loss(model, two[1])
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE[attention])
    got, wanted = gradients(model, loss), gradients(model, expected)
    for name, gradient in wanted.items():
        assert float((got[name] - gradient).norm() / gradient.norm()) < TOLERANCE[attention], name


def test_a_batch_without_labels_has_zero_loss_and_zero_gradients(model_dir: Path) -> None:
    model = build(model_dir, "sdpa")
    batch = collate([])
    loss, losses = model(batch)
    assert losses.shape == (0,)
    assert batch.counts.tokens == 0
    assert batch.counts.slots == 1
    assert all(not bool(gradient.any()) for gradient in gradients(model, loss).values())


def test_the_chunk_size_of_the_loss_changes_nothing(model_dir: Path, rows: list[PackedRow]) -> None:
    batch = collate(rows[:1])
    whole, chunked = (build(model_dir, "sdpa", chunk)(batch)[1] for chunk in (10_000, 3))
    torch.testing.assert_close(whole, chunked, rtol=0, atol=1e-12)


def plain(head: nn.Module) -> Head:
    return lambda part, _: cast("torch.Tensor", head(part))


def test_the_loss_is_taken_through_the_head_in_pieces_of_the_chunk_size() -> None:
    sizes: list[int] = []
    head = nn.Linear(8, 16)
    head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    with torch.no_grad():
        token_losses(plain(head), torch.randn(10, 8), torch.zeros(10, dtype=torch.int64), chunk=4)
    assert sizes == [4, 4, 2]


def test_empty_passes_through_the_head_change_nothing_and_keep_the_graph() -> None:
    head = nn.Linear(8, 16)
    hidden = torch.randn(5, 8, requires_grad=True)
    targets = torch.zeros(5, dtype=torch.int64)
    sizes: list[int] = []
    head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    padded = token_losses(plain(head), hidden, targets, chunk=4, num_chunks=4)
    assert sizes == [4, 1, 0, 0]
    torch.testing.assert_close(padded, token_losses(plain(head), hidden, targets, chunk=4), rtol=0, atol=0)
    sizes.clear()
    padded.sum().backward()  # type: ignore[no-untyped-call]
    assert sorted(sizes) == [0, 0, 1, 4]  # each pass is recomputed, the empty ones too: ranks stay in step


def test_the_mask_lets_a_branch_see_its_prefix_and_not_its_sibling() -> None:
    row = PackedRow(
        np.arange(6, dtype=np.int32),
        np.zeros(6, dtype=np.bool_),
        np.array([2, 1, 2, 1], dtype=np.int32),
        np.array([-1, 0, 0, -1], dtype=np.int32),
        np.array([-1, 0, 1, 0], dtype=np.int32),
        ("a", "a", "a", "b"),
    )
    batch = collate([row])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert forest_mask(batch.entry, batch.exit)[0, 0].int().tolist() == expected
    assert batch.position_ids[0].tolist() == [0, 1, 2, 2, 3, 0]


def test_the_loss_by_task_adds_up_to_the_whole(model_dir: Path, rows: list[PackedRow]) -> None:
    batch = collate(rows[:2])
    with torch.no_grad():
        _, losses = build(model_dir, "sdpa")(batch)
    by_task = loss_by_task(losses, batch.target_tasks, 4)
    assert by_task[:, 1].sum() == batch.counts.supervised_tokens
    assert float(by_task[:, 0].sum()) == pytest.approx(float(losses.double().sum()))
    assert bool((by_task[:, 1] > 0).all())


def test_padding_is_never_counted_as_tokens(rows: list[PackedRow]) -> None:
    pair = [concatenate(rows[:2]), rows[0]]
    counts = collate(pair, flat=False).counts
    assert counts.tokens == sum(len(row.input_ids) for row in pair)
    assert counts.slots == 2 * len(pair[0].input_ids)
    assert counts.supervised_tokens == sum(int(row.label_mask.sum()) for row in pair)
