"""FLOPs counted from sizes, against torch's own count of every operator, and against sums done by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

import pytest
from transformers import LlamaConfig

from bench import flops
from bench.flops import CASES, Case, count, lay_out, predict
from bench.gpu_rows import draw_rows
from bench.record import WrongResultError
from harness.flops import FlopParts, LoraShape, count_step_flops
from harness.shapes import SHAPES, ModelShape, find_shape, read_shape
from preprocess.errors import ConfigError


class Counts(TypedDict):
    tokens: int
    attention_pairs: int
    supervised_tokens: int


SMALL = ModelShape(8, 3, 2, 1, 4, 16, 32, tied=True)
ROWS = draw_rows(seq_len=512, num_rows=2)
LEAST = Case("", shape="toy", r=8, num_layers=2)


def of_two_layers(case: Case) -> Case:
    return replace(case, num_layers=2, recompute=flops.min_recompute(case))


def counts(tokens: int, pairs: int, supervised: int) -> Counts:
    return {"tokens": tokens, "attention_pairs": pairs, "supervised_tokens": supervised}


def difference(case: Case, other: Case | None = None) -> float:
    """How far a prediction (for another case, as a control) is from torch's count."""
    batch = lay_out(case, ROWS)
    return predict(other or case, batch).hardware.total / count(case, batch) - 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_prediction_is_what_torch_counts(case: Case) -> None:
    assert difference(of_two_layers(case)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": ()},
        {"recompute": 0},
        {"train_base": True},
        {"fused_head": False},
        {"r": 16},
    ],
    ids=str,
)
def test_a_prediction_that_leaves_something_out_is_off_by_more_than_a_percent(
    changes: dict[str, object],
) -> None:
    case = replace(LEAST, recompute="all")
    assert abs(difference(case)) < 1e-4
    assert abs(difference(case, replace(case, **changes))) > 0.01  # type: ignore[arg-type]


def test_a_frozen_base_costs_two_thirds_of_a_trained_one() -> None:
    work = counts(1000, 0, 0)
    lora = count_step_flops(SMALL, LoraShape(1, ("down_proj",)), **work).model
    whole = count_step_flops(SMALL, None, train_base=True, **work).model
    assert lora.forward_base == 2 * 1000 * SMALL.num_body_weights
    assert whole.total == 3 * lora.forward_base
    # Nothing before the first layer's down_proj trains: its own input needs no gradient, all later layers' do.
    per_layer = SMALL.num_body_weights // SMALL.num_layers
    assert lora.backward_base == 2 * 1000 * per_layer * (SMALL.num_layers - 1)


def test_the_head_is_counted_at_the_supervised_positions_alone() -> None:
    parts = count_step_flops(
        SMALL, LoraShape(2, ("q_proj", "lm_head")), tokens=100, attention_pairs=0, supervised_tokens=7
    ).model
    base, down, up = 2 * 8 * 32, 2 * 2 * 8, 2 * 2 * 32
    assert parts.head_forward == 7 * (base + down + up)
    assert parts.head_backward == 7 * (base + 2 * (down + up))


def test_attention_costs_four_forward_and_eight_or_ten_backward_a_pair_and_number() -> None:
    work = counts(0, 11, 0)
    lora = LoraShape(2, ("q_proj", "k_proj", "v_proj"))
    per_layer = 11 * 2 * 4
    for kind, backward in (("flash", 10), ("flex", 10), ("sdpa", 10), ("eager", 8)):
        step = count_step_flops(SMALL, lora, attention=kind, **work)  # type: ignore[arg-type]
        assert step.hardware == FlopParts(
            forward_attention=4 * per_layer * 3, backward_attention=backward * per_layer * 3
        )
        assert step.model.backward_attention == 8 * per_layer * 3


def test_padding_a_dense_mask_and_recomputation_cost_the_hardware_alone() -> None:
    lora = LoraShape(2, ("q_proj",))
    plain = count_step_flops(SMALL, lora, tokens=100, attention_pairs=500, supervised_tokens=10)
    wasteful = count_step_flops(
        SMALL,
        lora,
        tokens=100,
        attention_pairs=500,
        supervised_tokens=10,
        slots=128,
        computed_pairs=128**2,
        recompute_layers=3,
    )
    assert wasteful.model == plain.model
    assert wasteful.hardware.forward_base == plain.hardware.forward_base * 128 // 100
    assert wasteful.hardware.forward_attention == plain.hardware.forward_attention * 128**2 // 500
    assert plain.hardware.recompute == 0
    assert wasteful.hardware.recompute == (
        wasteful.hardware.forward_base + wasteful.hardware.forward_lora + wasteful.hardware.forward_attention
    )


def test_counts_add_up_over_steps() -> None:
    lora = LoraShape(4, ("v_proj", "lm_head"))
    work = (counts(10, 40, 3), counts(32, 90, 0))
    parts = [count_step_flops(SMALL, lora, **step).hardware.total for step in work]
    assert count_step_flops(SMALL, lora, **counts(42, 130, 3)).hardware.total == sum(parts)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-3.2-1b", 1.236),
        ("llama-3.2-3b", 3.213),
        ("mistral-7b", 7.248),
        ("smollm2-135m", 0.1345),
        ("qwen2.5-0.5b", 0.494),
        ("qwen2.5-1.5b", 1.544),
    ],
)
def test_a_shape_has_the_weights_that_its_model_is_known_to_have(name: str, billions: float) -> None:
    assert find_shape(name).num_weights / 1e9 == pytest.approx(billions, rel=1e-3)


def test_a_shape_is_read_from_a_mapping_and_from_an_object_alike() -> None:
    values = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    }
    assert read_shape(values) == SHAPES["toy"]
    assert read_shape(LlamaConfig(**values)) == SHAPES["toy"]
    assert read_shape({**values, "num_key_value_heads": None, "head_dim": None}).num_kv_heads == 4


def test_a_configuration_without_a_size_and_an_unknown_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_size is None"):
        read_shape({})
    with pytest.raises(ConfigError, match="expected one of"):
        find_shape("llama-9")


def test_the_program_compares_and_refuses_a_count_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops, "CASES", (LEAST,))
    outcome = flops.measure(quick=True)
    assert outcome.facts["largest_difference_percent"] == pytest.approx(0, abs=0.01)
    monkeypatch.setattr(flops, "CASES", (replace(LEAST, fused_head=False),))
    monkeypatch.setattr(flops, "count", lambda case, batch: 1)
    with pytest.raises(WrongResultError, match="differ by more than 1 %"):
        flops.measure(quick=True)
