"""Programs that time several ways of one computation: each runs at its smallest, and a broken way is noticed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench import answer_ways, end, generate, link, loss, rank_ways, recompute, zero
from bench.agreement import Computed, check_same
from bench.link_rank import check_sum
from bench.material import make_byte_tokenizer, make_rows, set_lines
from bench.prefix import QUICK as PREFIX_QUICK
from bench.prefix_grid import Grid, measure_grid
from bench.rank_group import run_module
from bench.record import Figure, Outcome, WrongResultError
from preprocess.corpus import generate_songs
from preprocess.schema import IGNORE_INDEX
from tests.test_bench_training import run_quick

SMALL_HEAD = loss.Size(128, 4, 8, 1024, (4, 16), 1)


def check_outcome(outcome: Outcome, ratios: set[str]) -> None:
    """Figures are finite and not negative, ratios above zero and those expected, a toy calls itself one."""
    assert set(outcome.ratios) == ratios
    for figure in [*outcome.figures.values(), *outcome.ratios.values()]:
        assert all(math.isfinite(value) for value in (figure.median, figure.p20, figure.p80))
        assert figure.p80 >= figure.p20 >= 0
    assert all(figure.median > 0 for figure in outcome.ratios.values())
    assert "toy" in str(outcome.facts.get("model", "toy"))


def check_record(record: Mapping[str, Any], ratios: set[str]) -> None:
    """The same of a record."""
    figures = {name: Figure(**figure) for name, figure in record["figures"].items()}
    found = {name: Figure(**figure) for name, figure in record["ratios"].items()}
    check_outcome(Outcome(record["baseline"], figures, found, record["facts"]), ratios)


def test_equal_losses_and_gradients_agree_and_others_are_noticed() -> None:
    base = Computed(2.0, (torch.tensor([4.0, 2.0]),))
    near = Computed(2.0 + 1e-7, (torch.tensor([4.0, 2.0 + 1e-6]),))
    assert check_same({"base": base, "near": near}, "base", 1e-5) < 1e-6
    wrong = {
        "loss": Computed(2.1, base.gradients),
        "gradient": Computed(2.0, (torch.tensor([4.0, 2.1]),)),
        "not finite": Computed(2.0, (torch.tensor([4.0, math.nan]),)),
    }
    for way in wrong.values():
        with pytest.raises(WrongResultError, match="expected at most"):
            check_same({"base": base, "wrong": way}, "base", 1e-5)
    with pytest.raises(WrongResultError, match="nothing is compared"):
        check_same({"base": Computed(2.0, (torch.zeros(2),))}, "base", 1e-5)


def test_every_way_through_the_head_has_the_loss_and_gradients_of_full_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss, "QUICK", SMALL_HEAD)
    outcome = loss.measure(quick=True)
    check_outcome(outcome, {"supervised_logits", "recomputed_chunks_16", "chunks_4", "chunks_16"})
    peaks = {name: value for name, value in outcome.facts.items() if name.endswith("peak_mib")}
    assert len(peaks) == 5
    assert max(peaks, key=lambda name: float(peaks[name])) == "transformers_full_logits_peak_mib"
    assert float(peaks["chunks_4_peak_mib"]) < float(peaks["chunks_16_peak_mib"])


def test_a_head_that_predicts_from_the_wrong_slot_is_noticed() -> None:
    material = loss.make_material(SMALL_HEAD)
    shifted = replace(material, labels=material.labels.roll(-1))
    assert int((shifted.labels != IGNORE_INDEX).sum()) == len(material.targets)
    results = {loss.FULL_LOGITS: loss.full_logits(material), "shifted": loss.chunks(shifted, 4)}
    with pytest.raises(WrongResultError, match="shifted"):
        check_same(results, loss.FULL_LOGITS, loss.TOLERANCE)


def test_recomputing_more_layers_keeps_less_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(recompute.QUICK, num_songs=1, num_layers=2, num_turns=1)
    monkeypatch.setattr(recompute, "QUICK", tiny)
    outcome = recompute.measure(quick=True)
    check_outcome(outcome, {"0_of_2", "1_of_2", "2_of_2"})
    kept = [outcome.facts[f"{count}_of_2_kept_kib_per_token"] for count in range(3)]
    assert kept[2] == outcome.facts["transformers_checkpointing_kept_kib_per_token"]
    with pytest.raises(WrongResultError, match="expected less"):
        recompute.check_falling([3.0, 2.0, 2.0])
    assert recompute.choose_counts(8) == [0, 2, 4, 6, 8]


def test_answers_and_scores_are_the_same_by_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    size = replace(PREFIX_QUICK, num_songs=1, num_layers=1, num_turns=1)
    asked = generate.Asked((2, 3), 1, 4, "short", 1)
    work = generate.Work(size, asked, None, rank_ways.Ranking(size, 1, 3))
    monkeypatch.setattr(generate, "QUICK", work)
    outcome = generate.measure(quick=True)
    padded = (answer_ways.PADDED_SONG, answer_ways.PADDED_ALL)
    ways = (*padded, answer_ways.HARNESS_ONE, answer_ways.BATCH)
    check_outcome(outcome, {f"toy, {count} questions a song: {way}" for count in (2, 3) for way in ways})
    for way in (rank_ways.ONE_BY_ONE, rank_ways.CACHED):
        assert f"harness_forest / {way}" in outcome.figures
    assert outcome.facts["toy, 3 questions a song: prompts"] == 3
    assert outcome.facts["questions_ranked"] == 3  # artist, genre and decade
    assert "SmolLM2" not in str(outcome.facts["model"])


def test_another_answer_and_another_score_are_noticed() -> None:
    same = [list(range(7)), [8]]
    assert answer_ways.check_answers({"one": same, "other": same}) == 8
    with pytest.raises(WrongResultError, match="other: 1 of 2 answers are not those of one"):
        answer_ways.check_answers({"one": same, "other": [same[0], [4]]})
    with pytest.raises(WrongResultError, match="hold 1 different tokens"):
        answer_ways.check_answers({"one": [[5] * 30, []]})
    assert rank_ways.check_scores([[-1.0]], [[-1.0]]) == 0
    for wrong in (-1.1, math.nan):
        with pytest.raises(WrongResultError, match="name's score"):
            rank_ways.check_scores([[wrong]], [[-1.0]])


def test_the_grid_of_prefixes_compares_each_point_and_stops_at_a_difference() -> None:
    grid = Grid((1, 2), (2,), 1, 1024, 1)
    checked: list[tuple[float, float]] = []
    figures, facts = measure_grid(
        grid,
        make_byte_tokenizer(),
        lambda rows: lambda: float(sum(row.label_mask.sum() for row in rows)),
        lambda shared, separate: checked.append((shared, separate)),
    )
    assert set(figures) == {"1 tasks, 2 lines: shared / separate", "2 tasks, 2 lines: shared / separate"}
    assert all(shared == separate > 0 for shared, separate in checked)
    assert len(checked) == 2
    one, two = (
        [float(facts[f"{count} tasks, 2 lines: {way}_tokens_per_example"]) for way in ("shared", "separate")]
        for count in (1, 2)
    )
    assert one[0] == one[1]
    assert two[0] < 0.8 * two[1]


def test_lyrics_are_cut_or_begun_again_to_a_number_of_lines() -> None:
    song = next(iter(generate_songs(1, 0, length="short")))
    lines = [line for line in song.lyrics.splitlines() if line]
    assert set_lines(song, 2).lyrics.splitlines() == lines[:2]
    longer = set_lines(song, 2 * len(lines)).lyrics.splitlines()
    assert longer == lines * 2
    rows = {n: make_rows(make_byte_tokenizer(), 1, 2048, num_lines=n, tasks=("genre",)) for n in (2, 4)}
    assert len(rows[2][0].input_ids) < len(rows[4][0].input_ids)
    assert rows[2][0].num_examples == 1


def test_a_sum_over_ranks_that_is_wrong_is_noticed() -> None:
    check_sum("all_reduce", torch.tensor([3.0, 6.0]), torch.tensor([3.0, 6.0]))
    with pytest.raises(WrongResultError, match="all_reduce: 1 of 2 sums"):
        check_sum("all_reduce", torch.tensor([3.0, 5.0]), torch.tensor([3.0, 6.0]))


def test_the_slowest_rank_of_each_turn_is_a_sum_s_time() -> None:
    pair = {"latency_s": 1e-4, "there_bytes_per_s": 1e9, "back_bytes_per_s": 2e9}
    ranks: list[dict[str, Any]] = [
        {"sizes": {"1024": {"through_rank_0": [4.0, 1.0], "all_reduce": [1.0, 1.0]}}, "pairs": [pair]},
        {"sizes": {"1024": {"through_rank_0": [2.0, 8.0], "all_reduce": [2.0, 1.0]}}, "pairs": []},
    ]
    outcome = link.report(ranks, link.Size((1024,), 2), "nothing")
    check_outcome(outcome, {"all_reduce 1 KiB"})
    assert link.slowest(ranks, 1024, "through_rank_0") == [4.0, 8.0]
    assert outcome.ratios["all_reduce 1 KiB"].median == 5.0
    assert outcome.figures["pairs: gb_per_s"].n == 2
    assert link.bus_bytes(300, 3) == 400


def test_losses_of_stages_or_ranks_that_part_are_noticed() -> None:
    def found(last: float) -> dict[int, dict[str, Any]]:
        return {1: {"zero0": {"losses": [2.0, 1.5]}}, 2: {"zero3": {"losses": [2.0, last]}}}

    assert zero.check_losses(found(1.50001)) == pytest.approx(1e-5)
    for wrong in (1.51, math.nan):
        with pytest.raises(WrongResultError, match="losses of zero3 on 2"):
            zero.check_losses(found(wrong))


def test_ways_to_an_evaluation_with_other_examples_or_losses_are_noticed() -> None:
    def passage(losses: list[float], last_id: int = 2) -> end.Passage:
        return end.Passage({}, losses, Counter({((1, last_id), (False, True)): 1}))

    assert end.check_passages(passage([2.0]), passage([2.00001])) == pytest.approx(1e-5)
    with pytest.raises(WrongResultError, match="not the same examples"):
        end.check_passages(passage([2.0]), passage([2.0], 3))
    for wrong in (2.1, math.nan):
        with pytest.raises(WrongResultError, match="losses with a shared prefix"):
            end.check_passages(passage([wrong]), passage([2.0]))


@pytest.mark.slow
def test_the_stages_have_one_loss_curve_on_one_rank_and_on_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "QUICK", replace(zero.QUICK, ranks=(1, 2)))
    outcome = zero.measure(quick=True)
    check_outcome(outcome, {f"{stage} on {count}" for stage in zero.STAGES[1:] for count in (1, 2)})
    assert float(outcome.facts["largest_loss_difference"]) <= zero.TOLERANCE


@pytest.mark.slow
def test_a_quick_run_of_the_link_sums_rightly() -> None:
    record = run_quick("link")
    check_record(record, {f"all_reduce {link.name_size(size)}" for size in link.QUICK.bytes})
    assert record["facts"]["link"]


@pytest.mark.slow
def test_a_quick_run_from_songs_to_an_evaluation_has_the_losses_of_separate_examples() -> None:
    record = run_quick("end")
    check_record(record, {end.SHARED})
    assert record["facts"]["largest_loss_difference"] <= end.TOLERANCE
    for stage in end.STAGES:
        assert record["figures"][f"{end.SHARED}: {stage}_s"]["median"] > 0


@pytest.mark.parametrize(
    ("module", "message"), [("this", "rank 0 told no result"), ("bench.missing", "rank 0 ended with 1")]
)
def test_a_rank_that_fails_or_tells_nothing_is_named(module: str, message: str) -> None:
    with pytest.raises(WrongResultError, match=message):
        run_module(module, [], 1)
