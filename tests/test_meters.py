"""Throughput by a fake clock, and the metrics file that a run leaves."""

from __future__ import annotations

import importlib
import io
import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from harness.json_lines import read_json_lines
from harness.memory.profile import MemoryRecord
from harness.metering.run_meter import is_looked_at
from harness.meters import (
    STEP_PARTS,
    MetricsWriter,
    Part,
    StepCounts,
    StepRates,
    TaskStep,
    ThroughputMeter,
    name_tasks,
    print_throughput,
)
from preprocess.errors import DataError

COUNTS = StepCounts(rows=4, examples=20, tokens=800, supervised_tokens=200, slots=1000, attention_pairs=9000)


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_step(
    meter: ThroughputMeter, clock: FakeClock, seconds: dict[Part, float], counts: StepCounts = COUNTS
) -> StepRates:
    meter.start_step()
    for part, duration in seconds.items():
        with meter.part(part):
            clock.now += duration
    return meter.end_step(counts)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_counts_survive_the_array_that_an_all_reduce_sums() -> None:
    other = StepCounts(rows=1, examples=2, tokens=3, supervised_tokens=1, slots=8, attention_pairs=6)
    array = COUNTS.to_array() + other.to_array()
    assert array.dtype == np.int64
    assert array.tolist() == [5, 22, 803, 201, 1008, 9006]
    assert StepCounts.from_array(array) == COUNTS + other
    assert COUNTS + StepCounts() == COUNTS


def test_counts_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(AssertionError, match="contradict"):
        StepCounts(tokens=9, slots=8)
    with pytest.raises(AssertionError, match="contradict"):
        StepCounts(tokens=9, supervised_tokens=10, slots=12)


def test_tasks_get_their_names_and_mean_losses_and_absent_ones_are_left_out() -> None:
    by_task = np.array([[6.0, 4.0], [0.0, 0.0], [3.0, 1.0]])
    named = name_tasks(("artist", "genre", "themes"), by_task, np.array([2, 0, 1]))
    assert named == {"artist": TaskStep(1.5, 2, 4), "themes": TaskStep(3.0, 1, 1)}
    with pytest.raises(ValueError, match="shorter"):
        name_tasks(("artist", "genre", "themes"), by_task[:2], np.array([2, 0, 1]))


def test_rates_divide_each_count_by_the_step_time(clock: FakeClock) -> None:
    rates = run_step(ThroughputMeter(clock=clock), clock, {"forward": 1.0, "backward": 3.0})
    assert rates.step_time_s == pytest.approx(4.0)
    assert rates.samples_per_s == pytest.approx(5.0)
    assert rates.rows_per_s == pytest.approx(1.0)
    assert rates.tokens_per_s == pytest.approx(200.0)
    assert rates.supervised_tokens_per_s == pytest.approx(50.0)
    assert rates.slots_per_s == pytest.approx(250.0)


def test_padding_changes_no_rate_but_that_of_slots(clock: FakeClock) -> None:
    padded = StepCounts(rows=4, examples=20, tokens=800, supervised_tokens=200, slots=4000)
    meter = ThroughputMeter(warmup_steps=0, clock=clock)
    tight, loose = (run_step(meter, clock, {"backward": 2.0}, counts) for counts in (COUNTS, padded))
    assert loose.tokens_per_s == pytest.approx(tight.tokens_per_s)
    assert loose.samples_per_s == pytest.approx(tight.samples_per_s)
    assert loose.slots_per_s == pytest.approx(4 * tight.slots_per_s)
    assert meter.summary().real_slot_share == pytest.approx(1600 / 5000)


def test_parts_of_the_micro_steps_add_up_and_the_rest_is_other(clock: FakeClock) -> None:
    meter = ThroughputMeter(clock=clock)
    meter.start_step()
    for _ in range(3):
        with meter.part("forward"):
            clock.now += 1.0
        with meter.part("backward"):
            clock.now += 2.0
    clock.now += 0.5
    rates = meter.end_step(COUNTS)
    assert rates.parts_s == pytest.approx(
        {"data": 0.0, "forward": 3.0, "loss": 0.0, "backward": 6.0, "wait": 0.0}
        | {"communication": 0.0, "optimizer": 0.0, "other": 0.5}
    )
    assert sum(rates.parts_s.values()) == pytest.approx(rates.step_time_s)


def test_evaluation_and_saving_are_no_part_of_the_step_time(clock: FakeClock) -> None:
    meter = ThroughputMeter(warmup_steps=0, clock=clock)
    inside = run_step(meter, clock, {"backward": 2.0, "eval": 50.0, "save": 7.0})
    assert inside.step_time_s == pytest.approx(2.0)
    assert inside.parts_s["eval"] == pytest.approx(50.0)
    with meter.part("eval"):
        clock.now += 30.0
    after = run_step(meter, clock, {"backward": 2.0})
    assert after.step_time_s == pytest.approx(2.0)
    assert "save" not in after.parts_s
    summary = meter.summary()
    assert summary.step_time_total_s == pytest.approx(4.0)
    assert (summary.eval_s, summary.save_s) == pytest.approx((80.0, 7.0))
    assert summary.time_share_by_part["backward"] == pytest.approx(1.0)


def test_warm_up_steps_are_kept_apart(clock: FakeClock) -> None:
    meter = ThroughputMeter(warmup_steps=2, clock=clock)
    for duration in (90.0, 10.0, 2.0, 4.0, 6.0):
        rates = run_step(meter, clock, {"backward": duration})
        assert rates.is_warmup == (duration >= 10.0)
    summary = meter.summary()
    assert (summary.num_warmup_steps, summary.num_steps) == (2, 3)
    assert summary.warmup_s == pytest.approx(100.0)
    assert summary.counts == StepCounts(12, 60, 2400, 600, 3000, 27000)
    assert summary.samples_per_s == pytest.approx(60 / 12)
    assert summary.tokens_per_example == pytest.approx(40.0)
    assert summary.step_time_median_s == pytest.approx(4.0)
    assert summary.step_time_p20_s == pytest.approx(2.8)
    assert summary.step_time_p80_s == pytest.approx(5.2)


def test_the_summary_rate_is_total_work_over_total_time_not_the_mean_of_rates(clock: FakeClock) -> None:
    meter = ThroughputMeter(warmup_steps=0, clock=clock)
    rates = [run_step(meter, clock, {"backward": duration}).samples_per_s for duration in (1.0, 19.0)]
    assert meter.summary().samples_per_s == pytest.approx(2.0)
    assert sum(rates) / 2 > 10


def test_the_smoothed_rate_is_the_median_of_twenty_steps_without_warm_up(clock: FakeClock) -> None:
    meter = ThroughputMeter(warmup_steps=1, clock=clock)
    assert run_step(meter, clock, {"backward": 100.0}).smoothed["samples_per_s"] == pytest.approx(0.2)
    assert run_step(meter, clock, {"backward": 2.0}).smoothed["samples_per_s"] == pytest.approx(10.0)
    for _ in range(9):
        slow = run_step(meter, clock, {"backward": 4.0})
    assert slow.smoothed["samples_per_s"] == pytest.approx(5.0)
    for _ in range(11):
        fast = run_step(meter, clock, {"backward": 1.0})
    assert fast.smoothed["samples_per_s"] == pytest.approx(20.0)


def test_no_measured_step_gives_nan_rather_than_a_rate(clock: FakeClock) -> None:
    meter = ThroughputMeter(warmup_steps=1, clock=clock)
    run_step(meter, clock, {"backward": 1.0})
    summary = meter.summary()
    assert summary.num_steps == 0
    assert math.isnan(summary.samples_per_s)
    assert math.isnan(summary.step_time_median_s)


def test_parts_do_not_nest_and_a_refused_part_leaves_the_meter_whole(clock: FakeClock) -> None:
    meter = ThroughputMeter(clock=clock)
    meter.start_step()
    with (
        meter.part("forward"),
        pytest.raises(RuntimeError, match="'data' was opened inside part 'forward'"),
        meter.part("data"),
    ):
        pass
    with meter.part("backward"):
        clock.now += 1.0
    assert meter.end_step(COUNTS).parts_s["backward"] == pytest.approx(1.0)


def test_a_part_that_fails_is_closed_and_charged(clock: FakeClock) -> None:
    meter = ThroughputMeter(clock=clock)
    meter.start_step()

    def fail() -> None:
        with meter.part("data"):
            clock.now += 2.0
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert meter.end_step(COUNTS).parts_s["data"] == pytest.approx(2.0)


def test_calls_out_of_order_are_refused(clock: FakeClock) -> None:
    meter = ThroughputMeter(clock=clock)
    with pytest.raises(RuntimeError, match="without start_step"):
        meter.end_step(COUNTS)
    with pytest.raises(RuntimeError, match="outside a step"), meter.part("data"):
        pass
    with pytest.raises(ValueError, match="'sleep'"), meter.part(cast(Part, "sleep")):
        pass
    meter.start_step()
    with pytest.raises(RuntimeError, match="twice"):
        meter.start_step()


def test_the_device_is_waited_for_at_every_edge(clock: FakeClock) -> None:
    waits: list[float] = []
    meter = ThroughputMeter(clock=clock, synchronize=lambda: waits.append(clock.now))
    run_step(meter, clock, {"forward": 1.0, "backward": 2.0})
    assert waits == [100.0, 100.0, 101.0, 101.0, 103.0, 103.0]


def test_the_table_shows_rates_parts_and_the_share_that_is_real(clock: FakeClock) -> None:
    meter = ThroughputMeter(warmup_steps=0, clock=clock)
    run_step(meter, clock, {"forward": 1.0, "backward": 3.0})
    text = print_to_text(meter)
    for expected in ("samples/s", "5.00", "80.0%", "time: backward", "75.0%", "4.000 s"):
        assert expected in text
    assert "No step was measured" in print_to_text(ThroughputMeter(clock=clock))


def print_to_text(meter: ThroughputMeter) -> str:
    out = io.StringIO()
    print_throughput(meter.summary(), Console(file=out, width=120))
    return out.getvalue()


def write_steps(writer: MetricsWriter, steps: range, clock: FakeClock, loss: float = 2.0) -> None:
    meter = ThroughputMeter(warmup_steps=0, clock=clock)
    for step in steps:
        rates = run_step(meter, clock, {"backward": 2.0})
        writer.write_train(
            step=step,
            epoch=step / 10,
            loss=loss,
            learning_rate=1e-4,
            grad_norm=0.5,
            counts=COUNTS,
            rates=rates,
            by_task={"artist": TaskStep(loss=1.75, examples=12, supervised_tokens=150)},
        )


def read_lines(run_dir: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_lines_have_the_documented_keys(tmp_path: Path, clock: FakeClock) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_steps(writer, range(1, 2), clock)
        writer.write_eval(step=1, loss=1.5, by_task={"artist": 1.25}, supervised_tokens=90, time_s=3.0)
        writer.write_summary(1, ThroughputMeter(clock=clock).summary(), extra={"finished": True})
    train, evaluation, summary = read_lines(tmp_path)
    assert set(train) == {"kind", "step", "epoch", "loss", "learning_rate", "grad_norm"} | {
        "skipped",
        "rows",
        "examples",
        "tokens",
        "supervised_tokens",
        "slots",
        "attention_pairs",
        "by_task",
        "step_time_s",
        "parts_s",
        "stalls_s",
        "is_warmup",
        "samples_per_s",
        "rows_per_s",
        "tokens_per_s",
        "supervised_tokens_per_s",
        "slots_per_s",
        "tokens_per_example",
        "smoothed_samples_per_s",
        "smoothed_rows_per_s",
        "smoothed_tokens_per_s",
        "smoothed_supervised_tokens_per_s",
        "smoothed_slots_per_s",
        "smoothed_tokens_per_example",
        "model_flops",
        "hardware_flops",
        "mfu",
        "hfu",
        "mfu_of_ceiling",
        "eta_s",
    }
    assert train["parts_s"]["backward"] == pytest.approx(2.0)
    assert train["by_task"] == {"artist": {"loss": 1.75, "examples": 12, "supervised_tokens": 150}}
    assert evaluation == {
        "kind": "eval",
        "step": 1,
        "loss": 1.5,
        "by_task": {"artist": 1.25},
        "supervised_tokens": 90,
        "time_s": 3.0,
    }
    assert summary["kind"] == "summary"
    assert summary["finished"] is True
    assert summary["samples_per_s"] is None
    assert "samples_per_s" in summary["non_finite"]
    assert not (tmp_path / "tensorboard").exists()


def test_a_loss_that_is_not_finite_stays_valid_json_and_is_named(tmp_path: Path, clock: FakeClock) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_steps(writer, range(1, 2), clock, loss=float("nan"))
        writer.write_eval(step=1, loss=1.0, by_task={"a": float("inf")}, supervised_tokens=1, time_s=1.0)
        write_steps(writer, range(2, 3), clock)
    bad, bad_eval, good = read_lines(tmp_path)
    assert (bad["loss"], bad["non_finite"]) == (None, ["loss"])
    assert (bad_eval["by_task"], bad_eval["non_finite"]) == ({"a": None}, ["by_task.a"])
    assert "non_finite" not in good


def test_each_line_can_be_read_before_the_writer_is_closed(tmp_path: Path, clock: FakeClock) -> None:
    writer = MetricsWriter(tmp_path, tensorboard=False)
    write_steps(writer, range(1, 4), clock)
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3]
    writer.close()
    writer.close()


def test_a_resume_leaves_each_step_once(tmp_path: Path, clock: FakeClock) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_steps(writer, range(1, 6), clock)
        writer.write_eval(step=5, loss=1.0, by_task={}, supervised_tokens=1, time_s=1.0)
        writer.write_summary(5, ThroughputMeter(clock=clock).summary())
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.truncate_after(3)
        assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3]
        write_steps(writer, range(4, 7), clock)
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_without_truncation_a_resume_would_repeat_steps(tmp_path: Path, clock: FakeClock) -> None:
    for steps in (range(1, 6), range(4, 7)):
        with MetricsWriter(tmp_path, tensorboard=False) as writer:
            write_steps(writer, steps, clock)
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3, 4, 5, 4, 5, 6]


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_line_torn_by_a_kill_is_dropped_and_the_next_is_whole(
    tmp_path: Path, clock: FakeClock, cut: int
) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_steps(writer, range(1, 4), clock)
    path = tmp_path / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    # A cut of one byte takes only the newline: that line is whole, and kept.
    kept = [1, 2, 3] if cut == 1 else [1, 2]
    assert [line["step"] for line in read_json_lines(path)] == kept
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_steps(writer, range(4, 5), clock)
    assert [line["step"] for line in read_lines(tmp_path)] == [*kept, 4]


def test_damage_before_the_last_line_is_an_error_with_its_line_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match="line 2"):
        read_json_lines(path)


def read_scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_gets_the_documented_tags_and_no_step_twice(tmp_path: Path, clock: FakeClock) -> None:
    record = MemoryRecord(
        rank=1,
        phase="backward",
        device="cpu",
        num_runs=1,
        peak_bytes=2**29,
        peak_scope="phase",
        last={},
        max={},
    )
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        write_steps(writer, range(1, 6), clock, loss=2.0)
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.truncate_after(3)
        write_steps(writer, range(4, 6), clock, loss=1.0)
        writer.write_eval(step=5, loss=1.5, by_task={"artist": 1.25}, supervised_tokens=9, time_s=1.0)
        writer.write_ranks(
            {"kind": "ranks", "step": 5, "step_time_s": [2.0, 2.5], "parts_s": {"wait": [0.0, 0.25]}}
        )
        writer.write_memory(5, [record])
    scalars = read_scalars(tmp_path)
    assert set(scalars) == {
        "train/loss",
        "train/learning_rate",
        "train/grad_norm",
        "throughput/samples_per_s",
        "throughput/tokens_per_s",
        "throughput/supervised_tokens_per_s",
        "step/rows",
        "step/examples",
        "step/tokens",
        "step/supervised_tokens",
        "step/attention_pairs",
        "train/artist/loss",
        "train/artist/examples",
        "train/artist/supervised_tokens",
        "eval/loss",
        "eval/artist/loss",
        "memory/rank1/backward_gib",
        "throughput/rows_per_s",
        "throughput/slots_per_s",
        "throughput/tokens_per_example",
        "throughput/smoothed_samples_per_s",
        "throughput/smoothed_tokens_per_s",
        "throughput/step_time_s",
        *(f"throughput/rank{rank}/{part}_s" for rank in (0, 1) for part in ("step_time", "wait")),
        *(f"throughput/parts/{part}_s" for part in (*STEP_PARTS, "other")),
    }
    assert scalars["throughput/rank1/wait_s"] == [(5, 0.25)]
    assert scalars["train/loss"] == [(1, 2.0), (2, 2.0), (3, 2.0), (4, 1.0), (5, 1.0)]
    assert scalars["memory/rank1/backward_gib"] == [(5, 0.5)]
    assert scalars["throughput/samples_per_s"][0] == (1, 10.0)


def test_the_first_steps_and_then_one_in_twenty_are_looked_at() -> None:
    assert [step for step in range(50) if is_looked_at(step)] == [0, 1, 2, 20, 40]


def test_a_step_that_is_not_timed_by_parts_waits_at_its_ends_alone_and_counts_in_the_rates() -> None:
    clock = FakeClock()
    waits: list[float] = []
    meter = ThroughputMeter(warmup_steps=0, clock=clock, synchronize=lambda: waits.append(clock()))
    meter.start_step(detailed=False)
    with meter.part("backward"):
        clock.now += 3.0
    rates = meter.end_step(COUNTS)
    assert len(waits) == 2
    assert rates.parts_s == {}
    assert rates.step_time_s == pytest.approx(3.0)
    meter.start_step()
    with meter.part("data"):
        clock.now += 1.0
    meter.end_step(COUNTS)
    assert len(waits) == 6
    summary = meter.summary()
    assert summary.num_steps == 2
    assert summary.time_share_by_part["data"] == pytest.approx(1.0)
