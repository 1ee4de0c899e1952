"""The report's figures of memory: what a rank's stack is made of, which peaks are compared, what the notes say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.memory.case import MemoryPlan, PhaseMemory
from harness.memory.profile import GIB, MemoryRecord
from harness.memory.timeline import MemoryTimeline, TimelinePoint
from harness.report.memory import (
    BASE,
    REST,
    UNUSED,
    chart_parts,
    chart_timeline,
    stack_of_rank,
)
from harness.report.prediction import chart_prediction, highest_in, measure_phase, tabulate_prediction

PARTS = {"frozen_weights": 6 * GIB, "lora_weights": GIB, "gradients": 2 * GIB}


def on_cuda(rank: int, phase: str, peak_gib: int, parts: dict[str, int] | None = None) -> MemoryRecord:
    peaks = {"allocated": GIB, "peak_allocated": peak_gib * GIB, "peak_reserved": (peak_gib + 3) * GIB}
    return MemoryRecord(rank, phase, "cuda:0", 1, peak_gib * GIB, "phase", peaks, peaks, 0, parts or {})


def on_cpu(phase: str, end_gib: int, parts: dict[str, int] | None = None) -> MemoryRecord:
    ends = {"rss": 9 * GIB, "allocated": end_gib * GIB}
    return MemoryRecord(0, phase, "cpu", 1, 9 * GIB, "phase", ends, ends, 2 * GIB, parts or {})


def timeline(rank: int = 0) -> MemoryTimeline:
    heights = {
        "forward begins": 5,
        "layer 0 forward": 12,
        "forward ends": 14,
        "backward begins": 14,
        "layer 1 backward": 19,
        "backward ends": 6,
    }
    points = (TimelinePoint(0.1 * i, where, gib * GIB) for i, (where, gib) in enumerate(heights.items()))
    return MemoryTimeline(rank, 41, tuple(points))


def test_a_stack_adds_up_to_what_the_allocator_holds_at_the_step_s_peak() -> None:
    records = [on_cuda(0, "load", 40), on_cuda(0, "forward", 20, {"frozen_weights": 6 * GIB})]
    records.append(on_cuda(0, "backward", 25, PARTS))
    stack = stack_of_rank(records, None)
    assert stack["gradients"] == 2 * GIB
    assert (stack[REST], stack[UNUSED], stack[BASE]) == (16 * GIB, 3 * GIB, 0)
    assert sum(stack.values()) == 28 * GIB


def test_on_the_cpu_the_timeline_s_peak_counts_and_what_python_has_is_apart() -> None:
    stack = stack_of_rank([on_cpu("backward", 11, PARTS)], timeline())
    assert (stack[REST], stack[UNUSED], stack[BASE]) == (8 * GIB, 0, 2 * GIB)
    assert stack_of_rank([on_cpu("backward", 11, PARTS)], None)[REST] == 0
    assert stack_of_rank([on_cpu("load", 11)], None) == {}


def test_a_part_of_nothing_is_not_in_the_legend_and_many_ranks_are_cut_to_the_fullest() -> None:
    records = [on_cuda(rank, "backward", 20 + rank, PARTS) for rank in range(12)]
    (chart,) = chart_parts(records, [])
    assert [entry.label for entry in chart.legend] == [
        "frozen weights",
        "lora weights",
        "gradients",
        REST,
        UNUSED,
    ]
    assert "The fullest 8 of 12 ranks." in chart.note
    assert "rank 11" in chart.svg
    assert "rank 3<" not in chart.svg


def test_the_timeline_s_note_names_step_place_and_rank_of_the_highest_point() -> None:
    higher = replace(
        timeline(1), points=(*timeline().points, TimelinePoint(1.0, "layer 9 forward", 30 * GIB))
    )
    (chart,) = chart_timeline([timeline(0), higher])
    assert "Step 41" in chart.note
    assert "30.00 GiB, layer 9 forward, rank 1" in chart.note
    assert [entry.label for entry in chart.legend] == ["rank 0", "rank 1"]
    assert chart_timeline([]) == []


def test_a_phase_s_highest_point_is_sought_between_its_ends() -> None:
    assert highest_in(timeline(), "forward") == 14 * GIB
    assert highest_in(timeline(), "backward") == 19 * GIB
    assert highest_in(timeline(), "optimizer") == 0


def test_measured_is_the_peak_on_cuda_and_on_the_cpu_what_is_beyond_the_start() -> None:
    assert measure_phase([on_cuda(rank, "loss", 20 + rank) for rank in range(3)], [], "loss") == 22 * GIB
    assert measure_phase([on_cpu("backward", 7)], [timeline()], "backward") == 17 * GIB
    assert measure_phase([on_cpu("eval", 7)], [timeline()], "eval") == 5 * GIB


PLAN = MemoryPlan(
    (
        PhaseMemory("loss", {"logits": 15 * GIB, "context": GIB, "fragmentation": GIB}),
        PhaseMemory("optimizer", {"gradients": 3 * GIB}),
    )
)


def test_predicted_tensors_stand_beside_measured_ones_with_the_difference() -> None:
    records = [on_cuda(0, "loss", 20), on_cuda(0, "optimizer", 4), on_cuda(0, "save", 4)]
    (table,) = tabulate_prediction(records, [], [PLAN])
    assert table.rows == [
        ["loss", "15.00", "20.00", "-25.0%"],
        ["optimizer", "3.00", "4.00", "-25.0%"],
        ["save", "-", "4.00", "-"],
    ]
    (chart,) = chart_prediction(records, [], [PLAN])
    assert [entry.label for entry in chart.legend] == ["predicted", "measured"]


def test_on_the_cpu_no_difference_is_told_where_the_peak_is_not_seen() -> None:
    (table,) = tabulate_prediction([on_cpu("loss", 22), on_cpu("optimizer", 4)], [], [PLAN])
    assert [row[3] for row in table.rows] == ["-25.0%", "-"]


def test_without_a_plan_the_chart_shows_measured_alone_and_there_is_no_table() -> None:
    records = [on_cuda(0, "loss", 20)]
    (chart,) = chart_prediction(records, [], [])
    assert chart.legend == []
    assert "predicted" not in chart.title
    assert tabulate_prediction(records, [], []) == []


def test_without_a_count_of_allocated_bytes_nothing_is_compared() -> None:
    record = replace(on_cpu("loss", 4), max={"rss": GIB})
    assert chart_prediction([record], [], [PLAN]) == []
    assert measure_phase([record], [], "loss") != pytest.approx(0)
