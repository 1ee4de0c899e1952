"""What is counted of weights, gradients and optimizer is what tensors hold, to the byte, at every ZeRO stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.deepspeed_config import load_deepspeed_config
from harness.linear_flops import LoraShape
from harness.memory.case import MemoryCase, ZeroSettings
from harness.memory.state import StateBytes, count_state, count_traffic
from harness.memory.weights import list_weights
from harness.shapes import SHAPES, find_shape, read_shape
from tests.dist_ranks import run_ranks
from tests.state_ranks import Counted, StateCase, count_cases

SMALL: dict[str, Any] = {
    "reduce_bucket_size": 1500,
    "stage3_param_persistence_threshold": 200,
    "stage3_prefetch_bucket_size": 20_000,
    "stage3_max_reuse_distance": 30_000,
}
"""Sizes that a toy model reaches: several buckets, small weights that stay whole and others that do not."""

WITH_HEAD = ("q_proj", "down_proj", "lm_head")
FILES = ("zero0", "zero1", "zero2", "zero3", "zero3_offload")
ALL = LoraShape(16, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))

FEW = [
    StateCase("zero0", targets=WITH_HEAD),
    StateCase("zero1", new_tokens=3, targets=WITH_HEAD, zero=SMALL),
    StateCase("zero2", "fp32", tied=False, family="qwen2", new_tokens=2, zero=SMALL),
    StateCase("zero3", tied=False, new_tokens=2, zero=SMALL),
    StateCase("zero3_offload", new_tokens=3, targets=WITH_HEAD, zero=SMALL),
]
"""Each stage once, both precisions, heads tied and not."""

MANY = [
    *(
        StateCase(name, precision, new_tokens=3, targets=WITH_HEAD, zero=SMALL)
        for name in FILES
        for precision in ("bf16", "fp32")
    ),
    *(StateCase(name, "fp16", new_tokens=1, zero=SMALL) for name in FILES[:4]),
    StateCase("zero0", "fp32", tied=False, targets=WITH_HEAD, zero={"reduce_bucket_size": 450}),
    StateCase("zero1", tied=False, family="qwen2", zero={"reduce_bucket_size": 450, "overlap_comm": True}),
    StateCase("zero1", "fp32", tied=False, family="qwen2", new_tokens=1, zero={"reduce_bucket_size": 250}),
    StateCase("zero2", tied=False, family="qwen2", targets=WITH_HEAD, zero={"reduce_bucket_size": 450}),
    StateCase("zero2", "fp32", dropout=0.1, zero={"reduce_bucket_size": 3000}),
    StateCase("zero3", tied=False, family="qwen2", new_tokens=2, zero={**SMALL, "reduce_bucket_size": 250}),
    StateCase("zero3", kernel="peft", recompute_layers=1, dropout=0.1, num_layers=3, zero=SMALL),
    *(
        StateCase(name, precision, zero={**SMALL, "offload_optimizer": {"device": "cpu"}})
        for name in ("zero1", "zero2")
        for precision in ("bf16", "fp32")
    ),
]


def all_bytes(state: StateBytes) -> int:
    """What a CPU's rank holds between steps: device and host are one."""
    return state.at_rest + lasting_host(state)


def lasting_host(state: StateBytes) -> int:
    """Bytes of the host that are not for a moment."""
    return sum(size for name, size in state.host.items() if name != "step_work")


def find_differences(counted: Counted, state: StateBytes) -> dict[str, int]:
    """Bytes by which tensors take more than predicted, at each of four moments; only those that differ."""
    host, work = lasting_host(state), state.host.get("step_work", 0)
    at_init = state.at_init + host - state.host.get("optimizer_states", 0)
    differences = {
        "at_init": counted.at_init - at_init,
        "before_step": counted.before_step - state.before_step - host,
        "at_step": counted.at_step - state.at_step - host,
        "at_rest": counted.at_rest - all_bytes(state),
    }
    if -work <= differences["at_step"] - work <= 0:  # device and host need not reach their peaks together
        differences["at_step"] = 0
    return {name: value for name, value in differences.items() if value}


def check_to_the_byte(results: Sequence[Sequence[Counted]]) -> None:
    """Every rank holds what is predicted for it, and not what is predicted for something else."""
    for of_rank in results:
        for counted in of_rank:
            case, rank = counted.case, counted.rank
            assert find_differences(counted, count_state(case, rank)) == {}, (case, rank)
            for other in (case.ranks + 1, case.ranks + 2):
                wrong = count_state(replace(case, ranks=other), rank)
                assert case.zero.stage == 0 or "at_rest" in find_differences(counted, wrong)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[list[Counted]]:
    return run_ranks(count_cases, 2, tmp_path_factory.mktemp("state"), FEW, timeout_s=300)


def test_each_rank_holds_at_every_stage_what_is_predicted(two_ranks: list[list[Counted]]) -> None:
    check_to_the_byte(two_ranks)


ANOTHER_STAGE = {0: 1, 1: 3, 2: 0, 3: 2}
"""Stages 1 and 2 are alike: gradients stay whole on their rank until a step's one reduction."""


def test_no_other_stage_nor_precision_nor_adapter_would_fit(two_ranks: list[list[Counted]]) -> None:
    for counted in two_ranks[0]:
        case = counted.case
        assert case.lora is not None
        wrong = [
            replace(case, zero=replace(case.zero, stage=ANOTHER_STAGE[case.zero.stage])),
            replace(case, precision="fp32" if case.precision == "bf16" else "bf16"),
            replace(case, lora=replace(case.lora, r=5)),
            replace(case, new_tokens=case.new_tokens + 1),
            replace(case, shape=replace(case.shape, tied=not case.shape.tied)),
        ]
        for other in wrong:
            assert {"at_init", "at_rest"} <= find_differences(counted, count_state(other)).keys(), other


def test_whole_weights_of_stage_3_are_gathered_as_predicted(two_ranks: list[list[Counted]]) -> None:
    for of_rank in two_ranks:
        for counted in of_rank:
            predicted = count_state(counted.case).gathered
            assert (predicted > 0) == (counted.case.zero.stage == 3)
            assert (
                counted.gathered <= predicted <= 1.3 * counted.gathered
            )  # at most: DeepSpeed's order may vary


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_it_holds_for_every_stage_precision_bucket_and_adapter(tmp_path: Path, ranks: int) -> None:
    results = run_ranks(count_cases, ranks, tmp_path, MANY, timeout_s=600)
    check_to_the_byte(results)
    whole = [counted for of_rank in results for counted in of_rank if counted.case.zero.stage == 3]
    for counted in whole:
        assert counted.gathered <= count_state(counted.case).gathered <= 1.3 * counted.gathered
    uneven = [index for index, of in enumerate(MANY) if of.deepspeed in ("zero1", "zero2")]
    peaks = [[of_rank[index].at_step - of_rank[index].at_rest for index in uneven] for of_rank in results]
    assert ranks == 1 or peaks[0] != peaks[-1]  # ranks are not all alike, and each is predicted


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.1-8b", 8_030_261_248),
        ("mistral-7b", 7_248_023_552),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
        ("smollm2-135m", 134_515_008),
        ("smollm2-360m", 361_821_120),
        ("smollm2-1.7b", 1_711_376_384),
    ],
)
def test_built_in_shapes_have_as_many_parameters_as_the_models_say(name: str, count: int) -> None:
    assert SHAPES[name].num_parameters == count
    case = MemoryCase(SHAPES[name], None, ZeroSettings(), 1, 2048, 512)
    assert sum(weight.num_values for weight in list_weights(case)) == count


def test_biases_are_read_from_the_kind_of_model_or_from_its_settings() -> None:
    sizes = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"), 8)
    config = {**sizes, "vocab_size": 8}
    assert read_shape(config).biases == ()
    assert read_shape({**config, "model_type": "qwen2"}).biases == ("q_proj", "k_proj", "v_proj")
    assert "o_proj" in read_shape({**config, "attention_bias": True}).biases
    assert "down_proj" in read_shape({**config, "mlp_bias": True}).biases


def make_plan(stage: int, **settings: Any) -> MemoryCase:
    """Llama-3.2-3B with LoRA of rank 16 on three ranks, with the shipped file of a stage."""
    zero = ZeroSettings.read(load_deepspeed_config(f"zero{stage}"))
    return replace(MemoryCase(find_shape("llama-3.2-3b"), ALL, zero, 3, 49_152, 12_000), **settings)


def test_in_fp16_a_rank_holds_what_it_holds_in_bf16() -> None:
    for stage in range(4):
        plan = make_plan(stage)
        assert count_state(replace(plan, precision="fp16")) == count_state(plan)


def test_zero_2_takes_as_much_as_zero_1() -> None:
    assert count_state(make_plan(2)) == count_state(make_plan(1))


def test_float8_keeps_two_copies_and_their_scales_in_the_place_of_each_projection() -> None:
    plan = make_plan(1)
    widths = sum(inputs + outputs for inputs, outputs in plan.shape.projections.values())
    more = count_state(replace(plan, fp8=True)).frozen_weights - count_state(plan).frozen_weights
    assert more == 4 * plan.shape.num_layers * widths


def test_traffic_is_that_of_rings_over_the_bytes_that_change() -> None:
    weights = 24_313_856
    assert count_traffic(make_plan(0), 4).total == int(2 * 2 / 3 * 4 * weights)
    first = count_traffic(make_plan(1), 4)
    assert first == count_traffic(make_plan(2), 1)
    assert first.updated_weights == pytest.approx(2 / 3 * 2 * weights, rel=1e-6)
    third = count_traffic(make_plan(3), 4)
    assert third.gradients == pytest.approx(2 / 3 * 4 * weights, rel=1e-4)
    assert third.gathered_weights == 4 * count_traffic(make_plan(3), 1).gathered_weights
    # Either pass gathers all weights, but for the few that last from one to the other.
    assert 1.5 < third.gathered_weights / (4 * 2 / 3 * 6.4e9) < 3


def test_alone_a_rank_sends_nothing() -> None:
    for stage in range(4):
        assert count_traffic(make_plan(stage, ranks=1), 4).total == 0
