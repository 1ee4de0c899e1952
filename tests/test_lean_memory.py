"""Lean layers keep no more for the backward pass than they say, counted at Llama-3.2-3B's true shape."""

from __future__ import annotations

import pytest

from bench.activations import NUM_LAYERS, RANK, SHAPE, Way, kept_bytes_per_token

TARGET = 2.6e6


LENGTH = 256


def expected_bytes() -> int:
    """What a token keeps.

    bfloat16: two norms' inputs, q, k, v, attention's output, gate and up, h of seven adapters. float32: two rms and
    attention's log-sum-exp. int64: an offset of four inputs.
    """
    all_heads = SHAPE.num_heads + SHAPE.num_kv_heads
    values = 2 * SHAPE.hidden_size + 2 * all_heads * SHAPE.head_dim + 2 * SHAPE.ffn_size + 7 * RANK
    return NUM_LAYERS * (2 * values + 4 * (2 + SHAPE.num_heads) + 4 * 8)


@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_what_lean_layers_keep_is_the_sum_of_what_they_name_and_within_the_target(dropout: float) -> None:
    kept = kept_bytes_per_token("lean", dropout=dropout, length=LENGTH)
    assert kept < TARGET
    assert expected_bytes() < kept < expected_bytes() * 1.02  # and the last norm


@pytest.mark.parametrize(("way", "dropout", "least"), [("peft", 0.0, 3.3e6), ("peft", 0.05, 5.5e6)])
def test_the_count_sees_what_peft_keeps(way: Way, dropout: float, least: float) -> None:
    assert kept_bytes_per_token(way, dropout=dropout, length=LENGTH) > least


def test_with_sdpa_it_is_within_the_target_too() -> None:
    kept = kept_bytes_per_token("lean", dropout=0.05, length=LENGTH, forest=False)
    assert 1.1 * expected_bytes() < kept < TARGET  # keys and values repeated for every query head, and a mask
