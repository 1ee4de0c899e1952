"""Predicted seconds against numbers worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.memory.traffic import count_traffic
from harness.memory.weights import trained_sizes
from harness.planning.setting import Efficiency
from harness.planning.speed import predict_step, read_efficiency, read_link, send_seconds
from preprocess.errors import ConfigError, DataError
from tests.planned import FREE_LINK_GBPS, plan_setting, separate_examples

TRAINED = 128 * (28 * ((3072 + 3072) * 2 + (3072 + 1024) * 2 + (3072 + 8192) * 3) + (3072 + 128_256))
"""LoRA of rank 128 on q and o, k and v, gate, up and down of 28 layers, and on the head."""


def test_the_plans_adapter_has_as_many_weights_as_counted_by_hand() -> None:
    assert pytest.approx(211.3e6, rel=1e-3) == TRAINED
    assert sum(trained_sizes(plan_setting().case)) == TRAINED


def test_three_l40s_at_half_their_peak_compute_about_40_000_tokens_a_second() -> None:
    setting = plan_setting(link_gbps=FREE_LINK_GBPS, workload=separate_examples(600))
    rate = predict_step(setting.with_rows_of_step(300)).tokens_per_s
    assert rate is not None
    assert 39_000 <= rate <= 42_000
    by_hand = 3 * 362e12 * 0.5 / 13.2e9
    assert rate == pytest.approx(by_hand, rel=0.03)


@pytest.mark.parametrize(("tokens", "examples_per_s"), [(300, 139), (600, 69)])
def test_separate_examples_come_as_fast_as_their_length_allows(tokens: int, examples_per_s: float) -> None:
    setting = plan_setting(link_gbps=FREE_LINK_GBPS, workload=separate_examples(tokens))
    rate = predict_step(setting.with_rows_of_step(300)).examples_per_s
    assert rate == pytest.approx(examples_per_s, rel=0.04)


def test_gradients_travel_in_float32_and_updated_weights_in_bf16() -> None:
    traffic = count_traffic(plan_setting().case, 1)
    assert traffic.gradients == round(2 * 2 / 3 * 4 * TRAINED)
    assert traffic.updated_weights == pytest.approx(
        2 / 3 * 2 * TRAINED, rel=1e-6
    )  # padded to equal partitions
    assert traffic.gathered_weights == 0
    assert traffic.gradients == pytest.approx(1.13e9, rel=0.01)
    assert traffic.gradients / 2 == pytest.approx(0.56e9, rel=0.01)  # what bf16 gradients would take


def test_stage_3_gathers_all_weights_in_each_pass_of_each_micro_step() -> None:
    case = plan_setting().with_stage(3).case
    one = count_traffic(case, 1)
    # Two thirds of 6.43 GB and the adapters, twice; what the passes have in common is gathered once.
    assert one.gathered_weights == pytest.approx(2 * 2 / 3 * (6.43e9 + 2 * TRAINED), rel=0.1)
    assert count_traffic(case, 4).gathered_weights == pytest.approx(4 * one.gathered_weights, abs=4)
    assert count_traffic(case, 4).gradients == one.gradients
    recomputed = count_traffic(replace(case, recompute_layers=28), 1)
    assert recomputed.gathered_weights >= one.gathered_weights


def test_one_rank_sends_nothing() -> None:
    for stage in range(4):
        assert count_traffic(plan_setting(nodes=1).with_stage(stage).case, 3).total == 0


def test_a_slower_link_adds_exactly_its_seconds() -> None:
    fast, slow = (predict_step(plan_setting(link_gbps=link)) for link in (100.0, 10.0))
    assert fast.compute_s == slow.compute_s
    assert slow.communication_s == pytest.approx(10 * fast.communication_s)
    assert send_seconds(1_250_000_000, 10.0) == 1.0


def test_without_a_card_no_speed_is_guessed() -> None:
    time = predict_step(plan_setting(gpu=None, vram_gib=48))
    assert (time.compute_s, time.step_s, time.tokens_per_s, time.examples_per_s) == (None,) * 4
    assert time.communication_s > 0


def test_the_busiest_rank_decides() -> None:
    """Four rows on three ranks take as long as six."""
    setting = plan_setting(link_gbps=FREE_LINK_GBPS)
    four, six = (predict_step(setting.with_rows_of_step(rows)) for rows in (4, 6))
    assert four.compute_s == six.compute_s
    assert four.tokens_per_s == pytest.approx((six.tokens_per_s or 0) * 4 / 6)


def test_recomputing_all_layers_costs_nearly_half_more() -> None:
    setting = plan_setting(link_gbps=FREE_LINK_GBPS)
    none, everything = (predict_step(setting.with_rows(2, layers)).compute_s for layers in (0, 28))
    assert none is not None
    assert everything is not None
    assert 1.3 < everything / none < 1.5


def test_float8_speeds_up_the_frozen_base_alone() -> None:
    setting = plan_setting(link_gbps=FREE_LINK_GBPS)
    eight = replace(setting, case=replace(setting.case, fp8=True))
    ratio = (predict_step(setting).compute_s or 0) / (predict_step(eight).compute_s or 1)
    assert 1.3 < ratio < 2 * 0.45 / 0.5


def write_run(folder: Path, seconds: float, device: str = "cuda:0") -> Path:
    """A run of three ranks on 600-token documents that took some seconds."""
    counts = {
        "rows": 300,
        "examples": 1000,
        "tokens": 600_000,
        "supervised_tokens": 150_000,
        "slots": 600_000,
        "attention_pairs": 1000 * 600 * 601 // 2,
    }
    summary = {"kind": "summary", "step": 9, "counts": counts, "step_time_total_s": seconds, "world_size": 3}
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps(summary) + "\n", encoding="utf-8")
    config = Path("harness/configs/plan.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    (folder / "memory.jsonl").write_text(json.dumps({"device": device}) + "\n", encoding="utf-8")
    return folder


def test_a_measured_run_gives_its_own_efficiency(tmp_path: Path) -> None:
    ideal_s = 600_000 * 13.2e9 / (3 * 362e12)
    found = read_efficiency(write_run(tmp_path / "run", ideal_s / 0.4), plan_setting())
    assert found.bf16 == pytest.approx(0.4, rel=0.03)
    assert found.fp8 == pytest.approx(0.9 * found.bf16)
    assert "measured in" in found.source
    faster = replace(plan_setting(), efficiency=Efficiency(0.8, 0.7, "measured"))
    assert (predict_step(faster).compute_s or 0) < (predict_step(plan_setting()).compute_s or 0)


def test_a_run_that_tells_nothing_of_the_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ran on a CPU"):
        read_efficiency(write_run(tmp_path / "cpu", 50.0, device="cpu"), plan_setting())
    with pytest.raises(ConfigError, match="expected a run on that card"):
        read_efficiency(write_run(tmp_path / "other", 1.0), plan_setting())
    with pytest.raises(ConfigError, match="needs --gpu"):
        read_efficiency(tmp_path / "other", plan_setting(gpu=None, vram_gib=48))
    with pytest.raises(DataError, match="finished run"):
        read_efficiency(tmp_path, plan_setting())


def test_a_link_is_a_number_or_a_measurement(tmp_path: Path) -> None:
    assert read_link("25") == 25.0
    (tmp_path / "link.json").write_text('{"gb_per_s": 1.25}', encoding="utf-8")
    assert read_link(str(tmp_path / "link.json")) == 10.0
    with pytest.raises(ConfigError, match="neither a number"):
        read_link("fast")
