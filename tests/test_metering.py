"""What a run measures beside its clock: ceilings, shares of them, energy, times of ranks, time left."""

from __future__ import annotations

import ctypes
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from harness.cards import find_card
from harness.dist import World
from harness.flops import count_step_flops
from harness.linear_flops import LoraShape
from harness.memory.case import MemoryCase, ZeroSettings
from harness.metering import measure
from harness.metering.ceilings import Ceilings, RankCeiling, name_ceiling, read_ceilings, write_ceilings
from harness.metering.compiling import CompileWatch
from harness.metering.efficiency import FlopCount, StepEfficiency
from harness.metering.energy import (
    EnergyMeter,
    NvmlCounter,
    RaplCounter,
    add_up_energy,
    find_packages,
)
from harness.metering.ranks import describe_ranks, keep_times, total_by_rank
from harness.metering.tables import print_efficiency, print_time_by_rank
from harness.metering.time_left import TimeLeft, count_due
from harness.meters import StepCounts, ThroughputMeter
from harness.shapes import SHAPES
from preprocess.errors import DataError

COUNTS = StepCounts(rows=4, examples=20, tokens=800, supervised_tokens=200, slots=1000, attention_pairs=9000)
L40S, H100 = find_card("L40S"), find_card("H100 SXM")
CPU = RankCeiling(0, "one", "cpu", None, None, 0.1, "fp32", 10.0)
CASE = MemoryCase(
    shape=next(iter(SHAPES.values())),
    lora=LoraShape(8, ("q_proj", "down_proj")),
    zero=ZeroSettings(),
    ranks=2,
    slots=1000,
    supervised=200,
    attention="sdpa",
)


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def of_card(rank: int, name: str, peak: float) -> RankCeiling:
    return RankCeiling(rank, f"host{rank}", f"cuda:{rank}", name, peak, 0.7 * peak, "bf16", 700.0)


CARDS = Ceilings((of_card(0, "L40S", 362), of_card(1, "L40S", 362)), 25.0, 1e-4)


# The clock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_waiting_and_communication_are_taken_out_of_the_part_they_stand_in(clock: FakeClock) -> None:
    meter = ThroughputMeter(clock=clock)
    meter.start_step()
    with meter.part("optimizer"):
        clock.now += 1.0
        with meter.part("wait"):
            clock.now += 5.0
        with meter.part("communication"):
            clock.now += 3.0
        clock.now += 0.5
    parts = meter.end_step(COUNTS).parts_s
    assert (parts["optimizer"], parts["wait"], parts["communication"]) == pytest.approx((1.5, 5.0, 3.0))
    assert parts["other"] == pytest.approx(0.0)


@pytest.mark.parametrize(("waited", "expected"), [(5.0, (4.75, 0.25)), (0.125, (0.0, 0.125))])
def test_a_transfer_in_the_first_collective_is_communication_and_not_waiting(
    clock: FakeClock, waited: float, expected: tuple[float, float]
) -> None:
    meter = ThroughputMeter(clock=clock)
    meter.transfer_s = 0.25
    meter.start_step()
    with meter.part("wait"):
        clock.now += waited
    parts = meter.end_step(COUNTS).parts_s
    assert (parts["wait"], parts["communication"]) == pytest.approx(expected)


def test_what_lies_between_steps_is_a_stall_unless_it_is_evaluation_or_saving(clock: FakeClock) -> None:
    meter = ThroughputMeter(warmup_steps=0, clock=clock)
    meter.start_step()
    meter.end_step(COUNTS)
    with meter.part("eval"):
        clock.now += 30.0
    clock.now += 2.0
    with meter.part("save"):
        clock.now += 5.0
    meter.start_step()
    clock.now += 1.0
    rates = meter.end_step(COUNTS)
    assert (rates.stalls_s, rates.step_time_s) == pytest.approx((2.0, 1.0))
    meter.start_step()
    assert meter.end_step(COUNTS).stalls_s == 0
    assert meter.summary().stalls_s == pytest.approx(2.0)
    seconds, steps = meter.totals()
    assert steps == 3
    assert (seconds["eval"], seconds["save"], seconds["stalls"]) == pytest.approx((30.0, 5.0, 2.0))


def test_a_later_step_that_compiled_is_warm_up_too_and_moves_no_smoothed_rate(clock: FakeClock) -> None:
    meter = ThroughputMeter(warmup_steps=1, clock=clock)
    seen = []
    for seconds, compiled in ((9.0, True), (2.0, False), (50.0, True), (2.0, False)):
        meter.start_step()
        clock.now += seconds
        seen.append(meter.end_step(COUNTS, compiled=compiled))
    assert [rates.is_warmup for rates in seen] == [True, False, True, False]
    assert [rates.smoothed["samples_per_s"] for rates in seen[1:]] == pytest.approx([10.0] * 3)
    summary = meter.summary()
    assert (summary.num_warmup_steps, summary.num_steps) == (2, 2)
    assert summary.warmup_s == pytest.approx(59.0)
    assert summary.samples_per_s == pytest.approx(10.0)


def test_a_compilation_is_noticed_once_and_a_second_run_of_the_same_code_is_none() -> None:
    watch = CompileWatch()
    assert not watch.has_compiled()
    function = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    function(torch.zeros(3))
    assert watch.has_compiled()
    function(torch.zeros(3))
    assert not watch.has_compiled()
    function(torch.zeros(4))  # another shape: compiled anew
    assert watch.has_compiled()


# Ranks


def test_the_times_of_all_ranks_add_up_in_one_vector_and_come_back_by_rank(clock: FakeClock) -> None:
    meter = ThroughputMeter(clock=clock)
    kept = []
    for seconds in (1.0, 2.5):
        meter.start_step()
        with meter.part("forward"):
            clock.now += seconds
        clock.now += 0.5
        kept.append(keep_times(7, meter.end_step(COUNTS)))
        clock.now += 0.25
    rows = [np.zeros((2, len(kept[0].seconds))) for _ in range(2)]
    for rank in range(2):
        rows[rank][rank] = kept[rank].seconds
    line = describe_ranks(7, rows[0] + rows[1])
    assert (line["kind"], line["step"]) == ("ranks", 7)
    assert line["step_time_s"] == pytest.approx([1.5, 3.0])
    assert line["stalls_s"] == pytest.approx([0.0, 0.25])
    assert line["parts_s"]["forward"] == pytest.approx([1.0, 2.5])
    assert line["parts_s"]["other"] == pytest.approx([0.5, 0.5])
    assert "eval" not in line["parts_s"]
    assert json.loads(json.dumps(line)) == line


def test_a_step_that_was_not_timed_by_parts_says_so(clock: FakeClock) -> None:
    meter = ThroughputMeter(clock=clock)
    meter.start_step(detailed=False)
    assert not keep_times(1, meter.end_step(COUNTS)).by_part


def test_totals_by_rank_keep_the_order_of_ranks() -> None:
    totals = total_by_rank([({"data": 1.0, "wait": 0.0}, 3), ({"data": 2.0, "wait": 4.0}, 3)])
    assert totals == {"parts_s": {"data": [1.0, 2.0], "wait": [0.0, 4.0]}, "steps": 3}
    text = print_to_text(lambda console: print_time_by_rank(totals, console))
    assert "rank 1" in text
    assert "1.333" in text
    assert print_to_text(lambda console: print_time_by_rank(total_by_rank([({}, 0)]), console)) == ""


# Efficiency


def count(ceilings: Ceilings, case: MemoryCase | None = CASE, dense_pairs: int = 250_000) -> StepEfficiency:
    return FlopCount(case, ceilings).add_step(COUNTS, dense_pairs, 0.5, is_warmup=False)


def test_mfu_is_model_flops_over_time_and_the_peaks_of_all_cards() -> None:
    found = count(CARDS)
    needed = count_step_flops(
        CASE.shape, CASE.lora, tokens=800, attention_pairs=9000, supervised_tokens=200
    ).model.total
    assert found.model_flops == needed
    assert found.mfu == pytest.approx(needed / (0.5 * 2 * 362e12))
    assert found.mfu_of_ceiling == pytest.approx(needed / (0.5 * 2 * 0.7 * 362e12))
    mixed = Ceilings((CARDS.ranks[0], of_card(1, "H100 SXM", 989)))
    assert count(mixed).mfu == pytest.approx(needed / (0.5 * (362e12 + 989e12)))


def test_hfu_counts_padding_recomputation_and_a_dense_mask_and_mfu_none_of_them() -> None:
    plain = count(CARDS, dense_pairs=9000)
    masked = count(CARDS)
    assert plain.model_flops == masked.model_flops
    assert plain.hardware_flops is not None
    assert masked.hardware_flops is not None
    assert plain.hardware_flops < masked.hardware_flops
    # a kernel without a mask computes the pairs that see each other alone
    flash = count(CARDS, replace(CASE, attention="flash"))
    assert flash.hardware_flops == plain.hardware_flops
    again = FlopCount(CASE, CARDS)
    again.set_recompute(CASE.shape.num_layers)
    repeated = again.add_step(COUNTS, 250_000, 0.5, is_warmup=False)
    assert repeated.model_flops == masked.model_flops
    assert repeated.hardware_flops is not None
    assert repeated.hardware_flops > masked.hardware_flops
    assert repeated.hfu is not None
    assert repeated.mfu is not None
    assert repeated.hfu > repeated.mfu


def test_without_a_known_peak_mfu_is_not_known_but_the_share_of_the_measured_ceiling_is() -> None:
    found = count(Ceilings((CPU,)))
    assert (found.mfu, found.hfu) == (None, None)
    assert found.model_flops is not None
    assert found.mfu_of_ceiling == pytest.approx(found.model_flops / (0.5 * 1e11))
    partly = Ceilings((CARDS.ranks[0], replace(CPU, rank=1)))
    assert count(partly).mfu is None
    assert count(CARDS, None) == StepEfficiency()


def test_the_summary_leaves_warm_up_out() -> None:
    flops = FlopCount(CASE, CARDS)
    flops.add_step(COUNTS, 0, 100.0, is_warmup=True)
    steps = [flops.add_step(COUNTS, 0, seconds, is_warmup=False) for seconds in (0.5, 1.5)]
    summary = flops.summary()
    assert summary.model_flops == 2 * (steps[0].model_flops or 0)
    assert summary.mfu == pytest.approx((summary.model_flops or 0) / (2.0 * 2 * 362e12))


def test_the_table_shows_what_is_known_and_nothing_else() -> None:
    measured = {
        **dict.fromkeys(("mfu", "hfu", "energy_j", "joules_per_example")),
        "model_flops": 2 * 10**15,
        "hardware_flops": 3 * 10**15,
        "mfu_of_ceiling": 0.125,
    }
    text = print_to_text(lambda console: print_efficiency(measured, Ceilings((CPU,)), console))
    assert "12.5%" in text
    assert "2e+15" in text
    assert "MFU" not in text
    assert "energy" not in text


def print_to_text(draw: Any) -> str:
    out = io.StringIO()
    draw(Console(file=out, width=120))
    return out.getvalue()


# Ceilings


def test_ceilings_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "ceilings.json"
    write_ceilings(path, CARDS)
    assert read_ceilings(path) == CARDS
    content = json.loads(path.read_text())
    assert content["format_version"] == 1
    assert content["ranks"][1] == {
        "rank": 1,
        "host": "host1",
        "device": "cuda:1",
        "card": "L40S",
        "peak_tflops": 362,
        "matmul_tflops": pytest.approx(253.4),
        "matmul_dtype": "bf16",
        "copy_gb_per_s": 700.0,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 9},
        {"ranks": []},
        {"ranks": [{"rank": 0}]},
        {"ranks": None},
        {"allreduce_gbps": ...},
    ],
)
def test_a_file_of_ceilings_that_is_none_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "ceilings.json"
    write_ceilings(path, CARDS)
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    with pytest.raises(DataError, match=r"ceilings\.json does not tell"):
        read_ceilings(path)


def test_a_cpu_is_measured_as_it_stands_and_no_draw_of_the_run_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CPU_SIZE", 64)
    monkeypatch.setattr(measure, "COPY_BYTES", 2**20)
    before = torch.random.get_rng_state()
    found = measure.describe_rank(World(0, 1, 0, torch.device("cpu")), "bf16")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (found.device, found.card, found.peak_tflops, found.matmul_dtype) == ("cpu", None, None, "bf16")
    assert found.matmul_tflops > 0
    assert found.copy_gb_per_s > 0


def test_the_fastest_of_several_turns_counts_and_the_first_one_never(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    monkeypatch.setattr("harness.metering.measure.time.perf_counter", clock)
    turns = iter((0.001, 0.004, 0.003, 0.005, 0.2, 0.001, 0.001))

    def act() -> None:
        clock.now += next(turns)

    assert measure.time_fastest(act, torch.device("cpu")) == pytest.approx(0.003)
    assert next(turns) == 0.001  # the limit was over after the turn of 0.2 s


# Time left


def test_what_is_due_is_counted_as_a_run_does_it() -> None:
    for num_steps in (1, 7, 12):
        for intervals in ((None, None), (3, None), (3, 4), (2, 4), (5, 5), (None, 6)):
            for step in range(num_steps + 1):
                due = [
                    one
                    for one in range(step, num_steps + 1)
                    if one == num_steps or any(every and one and one % every == 0 for every in intervals)
                ]
                assert count_due(step, num_steps, *intervals) == len(due), (num_steps, intervals, step)


def test_the_time_left_has_steps_evaluations_and_checkpoints_in_it() -> None:
    left = TimeLeft(num_steps=10, eval_every=4, save_every=5, eval_tokens=300)
    assert left.estimate(0) is None
    left.note_step(60.0, is_warmup=True)
    left.note_forward(1.0, 100)
    # 9 steps, evaluations at 4, 5, 8, 10, each guessed from the tokens
    assert left.estimate(1) == pytest.approx(9 * 60.0 + 4 * 3.0)
    left.note_step(2.0, is_warmup=False)
    left.note_step(90.0, is_warmup=True)
    left.note_eval(7.0)
    left.note_save(1.5)
    assert left.estimate(4) == pytest.approx(6 * 2.0 + 4 * 7.0 + 2 * 1.5)
    assert left.estimate(10) == pytest.approx(7.0 + 1.5)


# Energy


def make_zone(folder: Path, name: str, label: str, energy_uj: int) -> Path:
    zone = folder / name
    zone.mkdir(parents=True)
    (zone / "name").write_text(label + "\n")
    (zone / "max_energy_range_uj").write_text("1000000\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    return zone


def test_packages_are_counted_over_the_end_of_their_range_and_their_parts_are_not(tmp_path: Path) -> None:
    first = make_zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    second = make_zone(tmp_path, "intel-rapl:1", "package-1", 0)
    make_zone(tmp_path, "intel-rapl:0:0", "core", 5)
    assert find_packages(tmp_path) == [first, second]
    meter = EnergyMeter(RaplCounter([first, second]))
    meter.start()
    (first / "energy_uj").write_text("100000")
    (second / "energy_uj").write_text("400000")
    meter.look()
    (first / "energy_uj").write_text("300000")
    meter.start()  # only the first call begins
    assert meter.joules() == pytest.approx(0.2 + 0.4 + 0.2)
    (first / "energy_uj").unlink()
    assert meter.joules() is None
    assert find_packages(tmp_path) == [second]


def test_without_a_counter_no_energy_is_told() -> None:
    meter = EnergyMeter(None)
    meter.start()
    meter.look()
    assert meter.joules() is None


class FakeNvml:
    """NVML as ctypes calls it: output through pointers, 0 for success."""

    def __init__(self, millijoules: int | None) -> None:
        self.millijoules = millijoules

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's name
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        return 0 if uuid == b"GPU-1" else 2

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:  # noqa: N802
        if self.millijoules is None:
            return 3
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return 0


def test_a_card_counts_its_own_millijoules() -> None:
    library = FakeNvml(5_000)
    meter = EnergyMeter(NvmlCounter(library, "GPU-1"))
    meter.start()
    library.millijoules = 12_500
    assert meter.joules() == pytest.approx(7.5)
    library.millijoules = None
    assert meter.joules() is None
    with pytest.raises(OSError, match="GPU-2"):
        NvmlCounter(library, "GPU-2")


def test_energy_of_a_run_is_that_of_every_card_and_of_each_host_once() -> None:
    assert add_up_energy([1.0, 2.0], ["cuda:0", "cuda:1"], [0, 1]) == pytest.approx(3.0)
    assert add_up_energy([1.0, None], ["cuda:0", "cuda:1"], [0, 1]) is None
    assert add_up_energy([1.0, None, 4.0], ["cpu"] * 3, [0, 1, 0]) == pytest.approx(5.0)
    assert add_up_energy([None, None], ["cpu"] * 2, [0, 1]) is None


def test_a_share_above_1_is_told_as_the_ceilings_fault() -> None:
    assert name_ceiling(1.0) == "of the measured ceiling"
    assert "too low" in name_ceiling(1.01)
