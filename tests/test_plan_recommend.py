"""What is recommended: always within the target, never more rows than a step has, and what frees most."""

from __future__ import annotations

import pytest

from harness.planning.levers import mean_lengths
from harness.planning.recommend import (
    best,
    best_at_stage,
    best_by_stage,
    fewest_recomputed,
    fill,
    first_true,
    list_relief,
    most_rows,
    try_rows,
)
from harness.planning.wishes import Answer, answer_wishes
from harness.planning.workload import SongLengths, assume_workload
from tests.planned import plan_setting


@pytest.mark.parametrize("threshold", [0, 1, 7, 28])
def test_the_first_true_is_found(threshold: int) -> None:
    assert first_true(0, 28, lambda number: number >= threshold) == threshold
    assert first_true(0, 28, lambda number: number > 28) is None


def test_rows_that_change_nothing_are_not_tried() -> None:
    assert list(try_rows(1)) == [1]
    assert list(try_rows(9)) == [9, 5, 3, 2, 1]


@pytest.mark.parametrize("vram_gib", [12.0, 16.0, 24.0, 48.0, 80.0])
def test_the_most_rows_fit_and_one_more_does_not(vram_gib: float) -> None:
    setting = plan_setting(gpu=None, vram_gib=vram_gib)
    rows = most_rows(setting)
    assert rows == 0 or setting.with_rows(rows, 0).fits
    assert not setting.with_rows(rows + 1, 0).fits


@pytest.mark.parametrize("rows", [1, 8, 12, 24])
def test_one_layer_less_than_the_fewest_recomputed_does_not_fit(rows: int) -> None:
    setting = plan_setting()
    found = fewest_recomputed(setting, rows)
    assert found is not None
    layers = found.case.recompute_layers
    assert found.fits
    assert layers == 0 or not setting.with_rows(rows, layers - 1).fits


def test_what_is_recommended_is_within_the_target_and_no_larger_than_a_step() -> None:
    setting = plan_setting()
    for found in best_by_stage(setting).values():
        assert found is not None
        assert found.setting.fits
        assert found.setting.rows <= setting.rows_of_rank == 2


def test_over_a_slow_link_stage_3_is_never_best_but_with_one_host_nothing_is_lost() -> None:
    slow = best(plan_setting(link_gbps=10.0))
    assert slow is not None
    assert slow.setting.case.zero.stage in (0, 1, 2)
    by_stage = best_by_stage(plan_setting(link_gbps=10.0))
    assert by_stage[3] is not None
    assert (by_stage[3].time.tokens_per_s or 0) < 0.5 * (slow.time.tokens_per_s or 0)


def test_the_recommendation_beats_every_other_setting_that_fits() -> None:
    """Against all rows and all recomputed layers, tried one by one on a card where recomputing is needed."""
    setting = plan_setting("batch.examples_per_step=null", "batch.global_batch_size=12", gpu="A10")
    found = best_at_stage(setting)
    tried = [setting.with_rows(rows, layers) for rows in (1, 2, 3, 4) for layers in range(29)]
    from harness.planning.speed import predict_step

    rates = [predict_step(other).tokens_per_s or 0.0 for other in tried if other.fits]
    assert found is not None
    assert found.time.tokens_per_s == pytest.approx(max(rates))


def test_a_step_that_fills_the_card_has_as_many_rows_as_fit() -> None:
    setting = plan_setting()
    found = fill(setting)
    assert found is not None
    assert found.rows == most_rows(setting) > setting.rows_of_rank
    assert found.examples == round(found.rows * 3 * setting.workload.examples)
    assert found.setting.micro_steps == 1
    assert (found.time.examples_per_s or 0) > (best(setting).time.examples_per_s or 0)  # type: ignore[union-attr]


def test_on_a_card_that_is_too_small_what_frees_most_comes_first() -> None:
    setting = plan_setting("batch.micro_batch_size=8", gpu=None, vram_gib=8)
    assert best(setting) is None
    found = list_relief(setting)
    assert [relief.freed_bytes for relief in found] == sorted((r.freed_bytes for r in found), reverse=True)
    assert {relief.change for relief in found[:2]} == {
        "model.recompute_layers=all",
        "batch.micro_batch_size=1",
    }
    assert not any(relief.fits for relief in found)


def test_peft_kernels_with_dropout_are_told_what_dropping_it_frees() -> None:
    found = {r.change: r.freed_bytes for r in list_relief(plan_setting("model.lora_kernel=peft"))}
    assert found["lora.dropout=0"] > 2**30
    assert found["model.lora_kernel=lean"] > found["lora.dropout=0"]


def wishes() -> dict[str, Answer]:
    return {answer.name: answer for answer in answer_wishes(plan_setting())}


def test_every_wish_is_answered_with_its_arithmetic() -> None:
    answers = wishes()
    assert set(answers) == {"samples_per_s", "rows_a_gpu", "demo_s", "whole_s", "memory_used"}
    for answer in answers.values():
        assert answer.arithmetic
        assert answer.reachable is not None


def test_a_thousand_samples_a_second_are_beyond_three_l40s_and_within_as_many_as_are_named() -> None:
    answer = wishes()["samples_per_s"]
    assert not answer.reachable
    assert answer.factor == pytest.approx(1000 / (answer.predicted or 1))
    reached = [way for way in answer.ways if way.reaches]
    assert reached
    assert all(way.value >= 1000 for way in reached)
    assert all(way.value < 1000 for way in answer.ways if not way.reaches)


def test_24_rows_need_recomputation_or_a_larger_card() -> None:
    answer = wishes()["rows_a_gpu"]
    assert not answer.reachable
    assert answer.predicted is not None
    assert answer.predicted > 80
    assert any("recompute_layers" in way.change for way in answer.ways)
    bigger = plan_setting(gpu="B200")
    assert {a.name: a for a in answer_wishes(bigger)}["rows_a_gpu"].reachable


def test_most_of_a_card_is_used_only_with_steps_that_hold_so_many_rows() -> None:
    answer = wishes()["memory_used"]
    assert not answer.reachable
    (way,) = answer.ways
    assert way.reaches
    assert 0.95 * 45 <= way.value <= 45


def test_the_demos_time_is_its_examples_over_the_predicted_rate() -> None:
    answers = wishes()
    rate = answers["samples_per_s"].predicted
    assert rate is not None
    assert answers["demo_s"].predicted == pytest.approx(14_000 * 5 / rate)
    assert answers["whole_s"].predicted == pytest.approx(5_000_000 * 5 / rate)


def test_without_a_card_speed_wishes_cannot_be_told_and_memory_wishes_can() -> None:
    answers = {a.name: a for a in answer_wishes(plan_setting(gpu=None, vram_gib=48))}
    assert answers["samples_per_s"].predicted is None
    assert answers["samples_per_s"].reachable is None
    assert answers["demo_s"].predicted is None
    assert answers["rows_a_gpu"].predicted is not None


def test_a_mean_song_is_found_again_from_its_rows() -> None:
    lengths = SongLengths(2048, 4, 300, 20, 50)
    assert mean_lengths(assume_workload(lengths)) == lengths


def test_pairs_of_a_forest_are_those_of_its_prefix_and_branches() -> None:
    work = assume_workload(SongLengths(2048, 4, 300, 20, 50))
    by_hand = 300**2 / 2 + 4 * (70 * 300 + 70**2 / 2)
    assert work.pairs / work.songs == pytest.approx(by_hand)
    single = assume_workload(SongLengths(2048, 1, 300, 20, 50))
    assert single.pairs / single.songs == pytest.approx(370**2 / 2)
    shared, alone = work.pairs / work.examples, single.pairs / single.examples
    assert shared < 0.6 * alone
