"""Traces made by hand, of a CPU and of a GPU: what counts as an operator, as exposed communication, as a gap."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from harness.config import ProfileSettings, gather_overrides, load_run_config
from harness.profiling.breakdown import break_down
from harness.profiling.steps import describe_missing, parse_steps
from harness.profiling.summary import Profile, RankProfile, read_summary, write_summary
from harness.profiling.top import format_top
from harness.profiling.trace import Span, flatten, name_collective, parse_trace, read_trace
from preprocess.errors import ConfigError, DataError
from preprocess.outside_yaml import parse_yaml

MAIN, GLOO, STREAM = 1, 2, 7


def event(
    name: str, category: str, start: float, end: float, thread: int = MAIN, **args: Any
) -> dict[str, Any]:
    times = {"ts": 1000.0 + start, "dur": end - start}
    return {"ph": "X", "name": name, "cat": category, "tid": thread, **times, "args": args}


CPU_EVENTS = [
    event("ProfilerStep#5", "user_annotation", 0, 100),
    event("part forward", "user_annotation", 10, 50),
    event("part optimizer", "user_annotation", 50, 90),
    event("aten::linear", "cpu_op", 12, 30),
    event("aten::mm", "cpu_op", 15, 25),
    event("aten::mm", "cpu_op", 40, 45),
    event("c10d::allreduce_", "cpu_op", 52, 54),
    event(
        "gloo:all_reduce",
        "user_annotation",
        55,
        80,
        GLOO,
        **{"Input type": ["float"], "Input Dims": [[4, 3]]},
    ),
    event("aten::add", "cpu_op", 60, 70),
    event("aten::mm", "cpu_op", 200, 300, GLOO),
]

GPU_EVENTS = [
    event("ProfilerStep#5", "user_annotation", 0, 100),
    event("part backward", "user_annotation", 5, 20),
    event("part communication", "user_annotation", 20, 90),
    event("cudaLaunchKernel", "cuda_runtime", 6, 7, correlation=1),
    event("cudaLaunchKernel", "cuda_runtime", 21, 22, correlation=2),
    event("aten::mm", "cpu_op", 5, 8),
    # Launched in backward, it runs while the host is in the next part already.
    event("sgemm", "kernel", 10, 50, STREAM, correlation=1),
    event(
        "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)",
        "kernel",
        30,
        80,
        STREAM + 1,
        correlation=2,
        **{"In msg nelems": 1000, "dtype": "Float", "Collective name": "allreduce"},
    ),
]


def profile_of(events: list[dict[str, Any]], device: str = "cpu") -> RankProfile:
    return break_down(parse_trace(events), rank=0, host="here", device=device)


def us(seconds: float) -> float:
    return round(1e6 * seconds, 6)


def test_on_a_cpu_the_innermost_operator_counts_and_a_collective_where_none_runs() -> None:
    rank = profile_of(CPU_EVENTS)
    own = {one.name: (us(one.self_s), one.calls, one.part) for one in rank.operators}
    assert own == {
        "aten::mm": (15, 2, "forward"),
        "aten::linear": (8, 1, "forward"),
        "aten::add": (10, 1, "optimizer"),
    }
    (reduced,) = rank.communication
    assert (reduced.collective, reduced.calls, reduced.bytes) == ("all_reduce", 1, 48)
    assert us(reduced.time_s) == 25
    assert us(reduced.exposed_s) == 2 + 5 + 10
    assert [us(t) for t in (rank.operator_s, rank.communication_exposed_s, rank.gap_s)] == [33, 17, 50]


def test_gaps_belong_to_the_part_that_they_lie_in_and_name_their_neighbours() -> None:
    rank = profile_of(CPU_EVENTS)
    gaps = {(one.part, us(one.start_s)): (us(one.time_s), one.after, one.before) for one in rank.gaps}
    assert gaps == {
        ("other", 0): (10, None, None),
        ("forward", 10): (2, None, "aten::linear"),
        ("forward", 30): (10, "aten::linear", "aten::mm"),
        ("forward", 45): (5, "aten::mm", None),
        ("optimizer", 50): (2, "aten::mm", "c10d::allreduce_"),
        ("optimizer", 54): (1, "c10d::allreduce_", "gloo:all_reduce"),
        ("optimizer", 80): (10, "gloo:all_reduce", None),
        ("other", 90): (10, "gloo:all_reduce", None),
    }


def test_on_a_gpu_kernels_count_in_the_part_that_launched_them_and_a_hidden_collective_is_not_exposed() -> (
    None
):
    rank = profile_of(GPU_EVENTS, "cuda:0")
    assert [(one.name, us(one.self_s), one.part) for one in rank.operators] == [("sgemm", 40, "backward")]
    (reduced,) = rank.communication
    assert (reduced.collective, us(reduced.time_s), us(reduced.exposed_s)) == ("all_reduce", 50, 30)
    assert reduced.bytes == 4000
    parts = {
        one.part: (us(one.operator_s), us(one.communication_exposed_s), us(one.gap_s)) for one in rank.parts
    }
    assert parts == {"backward": (40, 0, 5), "communication": (0, 30, 10), "other": (0, 0, 15)}


def test_of_nested_parts_the_inner_one_has_its_time_and_the_outer_one_the_rest() -> None:
    inner = event("part communication", "user_annotation", 55, 75)
    rank = profile_of([*CPU_EVENTS, inner])
    parts = {one.part: us(one.time_s) for one in rank.parts}
    assert parts == {"forward": 40, "communication": 20, "optimizer": 20, "other": 20}
    rounded = [Span("outer", 0, 10), Span("a", 2, 4), Span("a", 4, 10.5), Span("next", 10.5, 12)]
    flat = [(one.name, one.start, one.end) for one in flatten(rounded)]
    assert flat == [("outer", 0, 2), ("a", 2, 4), ("a", 4, 10.5), ("next", 10.5, 12)]


def test_many_small_operators_are_one_line_and_still_add_up() -> None:
    many = [event(f"aten::op{i}", "cpu_op", i * 0.5, i * 0.5 + 0.25) for i in range(150)]
    rank = profile_of([event("ProfilerStep#5", "user_annotation", 0, 100), *many])
    assert rank.operators[-1].name == "(50 others)"
    assert us(sum(one.self_s for one in rank.operators)) == us(rank.operator_s) == 150 * 0.25


def test_time_between_steps_is_in_no_other_figure() -> None:
    rank = profile_of([*CPU_EVENTS, event("ProfilerStep#6", "user_annotation", 350, 400)])
    assert us(rank.between_steps_s) == 250
    assert us(rank.step_time_s) == 150


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("c10d::_allgather_base_", "all_gather"),
        ("c10d::alltoall_base_", "all_to_all"),
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(", "reduce_scatter"),
        ("ncclDevKernel_Broadcast_RING_LL(", "broadcast"),
        ("gloo:reduce", "reduce"),
        ("aten::add", None),
    ],
)
def test_a_collective_has_one_name_whatever_the_backend_calls_it(name: str, kind: str | None) -> None:
    assert name_collective(name) == kind


def test_a_trace_without_steps_or_cut_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no step"):
        parse_trace(CPU_EVENTS[1:])
    whole = gzip.compress(json.dumps({"traceEvents": CPU_EVENTS}).encode())
    path = tmp_path / "rank0.trace.json.gz"
    path.write_bytes(whole)
    assert len(read_trace(path).steps) == 1
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match="not a whole trace"):
        read_trace(path)


def test_a_summary_travels_through_its_file_and_a_strange_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    profile = Profile("5:6", (5,), 1, (profile_of(CPU_EVENTS),), ("a note",))
    write_summary(path, profile)
    assert read_summary(path) == profile
    for change in ({"format_version": 2}, {"ranks": [{"rank": 0}]}, {"steps": None}):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(DataError, match="summary of a profile"):
            read_summary(path)
        write_summary(path, profile)


def test_the_table_names_every_rank_and_says_what_is_missing() -> None:
    text = format_top(
        Profile("5:6", (5,), 2, (profile_of(CPU_EVENTS),), ("rank 1 has no profile: disk full",))
    )
    assert "rank 1 has no profile" in text
    assert "aten::mm" in text
    assert max(map(len, text.splitlines())) < 160


def test_steps_are_written_as_a_slice_of_python() -> None:
    assert list(parse_steps("10:13")) == [10, 11, 12]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("13:10", "no step in it"),
        ("10:10", "write 10:11"),
        ("0:3", "count from 1"),
        ("10", "expected FIRST:END"),
        (":13", "expected FIRST:END"),
        ("10-13", "expected FIRST:END"),
        ("-1:3", "expected FIRST:END"),
        ("1:1000", "at most 50"),
    ],
)
def test_a_bad_range_is_refused_with_what_is_expected(text: str, why: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("output_dir: o\nmodel: {path: m}\ndata: {path: d}\n")
    with pytest.raises(ConfigError, match=why) as caught:
        load_run_config(config, gather_overrides([], profile=f"steps={text}"))
    assert caught.value.exit_code == 2
    assert "profile.steps" in str(caught.value)
    good = load_run_config(config, gather_overrides([], profile="steps=10:13"))
    assert good.profile == ProfileSettings(steps="10:13")
    with pytest.raises(ConfigError, match="steps=FIRST:END"):
        gather_overrides([], profile="10:13")


def test_yaml_does_not_take_a_range_for_a_number_in_base_60() -> None:
    assert parse_yaml("10:13") == "10:13"
    assert parse_yaml("{a: 613, b: -2.5e+3, c: 0x1f, d: 1_000}") == {
        "a": 613,
        "b": -2500.0,
        "c": 31,
        "d": 1000,
    }


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        (1, 20, None),
        (1, 11, "profiled are 10, 11"),
        (12, 20, "profiled are 12"),
        (1, 9, "no step is profiled"),
        (15, 20, "no step is profiled"),
    ],
)
def test_a_run_tells_of_steps_that_it_does_not_take(first: int, last: int, says: str | None) -> None:
    told = describe_missing(range(10, 13), first, last)
    assert told is None if says is None else says in str(told)
