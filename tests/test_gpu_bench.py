"""The GPU benchmark on a CPU: its plan, its clock, what it does about errors, its record, and one real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from rich.console import Console

from bench import gpu, gpu_worker
from bench.cards import PhaseMemory, cap_memory, describe_card, is_poisoned, supports_fp8
from bench.gpu_jobs import PLAN, QUICK_PLAN, Job, Result, Setting, choose_jobs
from bench.gpu_model import Built, NotSupportedError, PlainStepper, build, check_float8, lay_out, no_part
from bench.gpu_process import Worker, run_jobs, with_hint
from bench.gpu_report import make_outcome, print_results, rates_of
from bench.gpu_rows import draw_rows, make_rows_for
from bench.gpu_worker import Bench
from bench.record import WrongResultError, make_record, to_line
from preprocess.forest import check_row

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
CARD: dict[str, Any] = {
    "name": "NVIDIA L40S",
    "memory_gib": 44.5,
    "peak_tflops": 362.0,
    "ceiling_tflops": 300.0,
    "driver": None,
}


def measured(name: str = "flash", seconds: float = 2.0, rows: int = 8) -> Result:
    return Result(
        name,
        "measured",
        rows=rows,
        counts={"tokens": 16_000, "examples": 120, "supervised_tokens": 4_000},
        seconds=[seconds, seconds * 1.1],
        parts_s={"forward": 1.0},
        peak_gib={"load": 7.0, "forward": 30.0},
        model_flops=200 * 10**12,
        hardware_flops=220 * 10**12,
    )


def test_a_cpu_answers_what_a_card_is_asked() -> None:
    card = describe_card(CPU, torch.float32)
    assert (card.name, card.peak_tflops) == ("cpu", None)
    assert card.ceiling_tflops > 0
    assert cap_memory(CPU, 48.0) > 0
    assert not supports_fp8(CPU)
    memory = PhaseMemory(CPU)
    with memory.phase("load"):
        pass
    assert memory.peaks["load"] > 2**20


def test_drawn_rows_are_well_formed_fit_and_are_the_same_every_time() -> None:
    rows = draw_rows(seq_len=512, num_rows=6)
    assert len(rows) == 6
    for row in rows:
        check_row(row)
        assert 256 < len(row.input_ids) <= 512
        assert row.num_examples % 5 == 0
    again = draw_rows(seq_len=512, num_rows=6)
    assert [row.seq_lens.tolist() for row in rows] == [row.seq_lens.tolist() for row in again]
    folded, source = make_rows_for(100, 512, 6, quick=True)
    assert source == "drawn lengths"
    assert max(int(row.input_ids.max()) for row in folded) < 100


def test_the_plan_starts_with_the_plainest_job_and_names_each_once() -> None:
    assert PLAN[0] == Job("flash")
    assert len({job.name for job in PLAN}) == len(PLAN)
    assert len({replace(job, name="") for job in PLAN}) == len(PLAN)
    assert set(QUICK_PLAN) <= set(PLAN)
    assert [job.name for job in choose_jobs("sdpa,flash", quick=True, head_lora=True)] == ["sdpa", "flash"]
    assert all(job.head_lora for job in choose_jobs(None, quick=False, head_lora=True))
    assert choose_jobs(None, quick=True, head_lora=False) == list(QUICK_PLAN)


def test_a_compiled_job_takes_the_rows_that_fitted_uncompiled() -> None:
    compiled = next(job for job in PLAN if job.name == "flash_compile")
    assert with_hint(compiled, [measured(rows=12)]).rows == 12
    assert with_hint(compiled, [measured("sdpa", rows=12)]).rows is None
    assert with_hint(PLAN[0], [measured(rows=12)]).rows is None


class FakeWorker:
    """Answers from a list; "die" ends it, "hang" takes too long."""

    def __init__(self, answers: Iterator[str]) -> None:
        self.answers = answers
        self.stopped = False

    def receive(self, seconds: float) -> dict[str, Any] | None:
        answer = next(self.answers)
        if answer == "hang":
            raise TimeoutError
        return None if answer == "die" else CARD

    def ask(self, job: Job, seconds: float) -> dict[str, Any] | None:
        found = self.receive(seconds)
        return None if found is None else asdict(measured(job.name))

    def stop(self) -> None:
        self.stopped = True


def run_with(answers: list[str], num_jobs: int, seconds: float = 60.0) -> tuple[list[str], list[FakeWorker]]:
    """The jobs' statuses, and the processes that were started."""
    script, started = iter(answers), list[FakeWorker]()

    def start() -> Worker:
        started.append(FakeWorker(script))
        return cast("Worker", started[-1])

    results, _ = run_jobs(PLAN[:num_jobs], Setting.quick(), time.monotonic() + seconds, start)
    return [result.status for result in results], started


def test_a_process_serves_one_job_after_another() -> None:
    statuses, workers = run_with(["ready", "done", "done", "done"], 3)
    assert statuses == ["measured"] * 3
    assert [worker.stopped for worker in workers] == [True]


def test_a_process_that_dies_costs_its_job_alone() -> None:
    statuses, workers = run_with(["ready", "die", "ready", "done"], 2)
    assert statuses == ["error", "measured"]
    assert len(workers) == 2


def test_a_job_that_takes_too_long_is_stopped_and_the_rest_goes_on() -> None:
    statuses, workers = run_with(["ready", "hang", "ready", "done"], 2)
    assert statuses == ["out of time", "measured"]
    assert all(worker.stopped for worker in workers)


def test_when_the_time_is_up_the_rest_is_listed_as_not_reached() -> None:
    statuses, workers = run_with([], 3, seconds=0.0)
    assert statuses == ["not reached"] * 3
    assert workers == []


def test_a_process_that_does_not_start_is_an_error_of_the_job() -> None:
    assert run_with(["die", "hang", "ready", "done"], 3)[0] == ["error", "error", "measured"]


@pytest.fixture
def bench() -> Bench:
    return Bench(Setting.quick(), CPU, torch.float32, limit_gib=None)


def raise_if(condition: Callable[[int], bool], error: Exception) -> Callable[..., Result]:
    """What stands for `Bench.time_steps`: an error where a condition on the rows holds."""

    def time_steps(job: Job, built: Built, rows: int, *_: object) -> Result:
        if condition(rows):
            raise error
        return measured(job.name, rows=rows)

    return time_steps


def test_rows_are_taken_away_until_a_micro_batch_fits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "build", lambda job, memory: None)
    monkeypatch.setattr(
        bench, "time_steps", raise_if(lambda rows: rows > 5, torch.OutOfMemoryError("too much"))
    )
    result, usable = bench.run(Job("flash", rows=12))
    assert (result.status, result.rows, usable) == ("measured", 4, True)


@pytest.mark.parametrize(
    ("error", "status", "usable"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), "out of memory", True),
        (NotSupportedError("no float8"), "not supported", True),
        (TypeError("unexpected"), "error", True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "error", False),
    ],
)
def test_an_error_of_a_job_is_a_line_of_the_table(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, usable: bool
) -> None:
    monkeypatch.setattr(bench, "build", lambda job, memory: None)
    monkeypatch.setattr(bench, "time_steps", raise_if(lambda rows: True, error))
    result, goes_on = bench.run(Job("flash", rows=1))
    assert (result.status, goes_on) == (status, usable)
    assert str(error).split("\n")[0] in result.note
    assert is_poisoned(error) != usable


def test_the_rows_that_fill_the_memory_follow_from_one_and_two(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Idle:
        def step(self, batch: object, part: object) -> None:
            pass

    built = cast("Built", type("Built", (), {"stepper": Idle()}))
    bench.max_rows, bench.limit_bytes = 100, 48e9
    monkeypatch.setattr(bench, "batch", lambda built, rows: None)
    monkeypatch.setattr(bench, "peak_of", lambda built, rows: int(8e9 + rows * 2e9))
    rows = bench.find_rows(built)
    assert 8e9 + rows * 2e9 <= 48e9 * gpu_worker.FILL < 8e9 + (rows + 1) * 2e9
    bench.max_rows = 4
    assert bench.find_rows(built) == 4


def test_the_plain_step_moves_its_float32_masters_and_the_model_follows() -> None:
    setting = Setting.quick()
    built = build(Job("sdpa", attention="sdpa", lora_kernel="peft"), setting, CPU, torch.bfloat16)
    stepper = PlainStepper(built.model, CPU)
    before = [master.clone() for master in stepper.masters]
    rows, _ = make_rows_for(512, setting.seq_len, 1, quick=True)
    stepper.step(lay_out(rows, built, CPU), no_part)
    assert all(master.dtype == torch.float32 for master in stepper.masters)
    for old, master, parameter in zip(before, stepper.masters, stepper.trained, strict=True):
        assert not torch.equal(old, master)
        assert torch.equal(parameter, master.bfloat16())
        assert parameter.grad is None


def test_a_model_without_a_float8_weight_is_not_measured_as_float8() -> None:
    projection: Any = torch.nn.Linear(4, 4)
    model = torch.nn.Sequential(projection)
    with pytest.raises(NotSupportedError, match="float8"):
        check_float8(model)
    projection.quantized = (torch.ones(1), torch.ones(1), torch.ones(1))
    check_float8(model)


def test_utilization_is_the_flops_over_time_and_peak() -> None:
    rates = rates_of(replace(measured(), seconds=[2.0]), CARD)
    assert rates["mfu"].median == pytest.approx(200 / 2 / 362)
    assert rates["hfu"].median == pytest.approx(220 / 2 / 362)
    assert rates["ceiling_share"].median == pytest.approx(220 / 2 / 300)
    assert rates["tokens_per_s"].median == 8_000
    assert "mfu" not in rates_of(measured(), {**CARD, "peak_tflops": None})


def test_the_record_holds_what_was_measured_and_why_the_rest_was_not() -> None:
    results = [measured(), measured("sdpa", 4.0), Result("flex", "out of memory", "Tried to allocate")]
    outcome = make_outcome(results, CARD, Setting("llama-3.2-3b", 48.0))
    assert outcome.ratios["sdpa"].median == pytest.approx(0.5)
    assert outcome.facts["flex_status"] == "out of memory"
    assert outcome.facts["flash_peak_gib_forward"] == 30.0
    assert outcome.facts["card_name"] == "NVIDIA L40S"
    assert json.loads(to_line(make_record("gpu", "?", outcome, "", {})))["baseline"] == "flash"
    console = Console(width=150, record=True, file=StringIO())
    print_results(results, CARD, console)
    text = console.export_text()
    assert "out of memory: Tried to allocate" in text
    assert "26.4%" in text  # 200 TFLOP at a peak of 362, halfway between 2 and 2.2 seconds
    with pytest.raises(WrongResultError, match="flex: out of memory"):
        make_outcome(results[2:], CARD, Setting.quick())


def test_options_are_checked_and_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    options, alone = gpu.parse_arguments(["--shape", "toy", "--jobs", "sdpa", "--lm-head", "--json"])
    assert (options.shape, options.jobs, options.head_lora, alone) == ("toy", "sdpa", True, True)
    with pytest.raises(SystemExit):
        gpu.parse_arguments(["--jobs", "sdap"])
    assert "no configuration sdap" in capsys.readouterr().err


def test_a_shape_that_there_is_not_is_one_line_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--shape", "nope", "--quick"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "nope" in said.err
    assert "llama-3.2-3b" in said.err


def test_the_program_runs_from_end_to_end_without_a_card() -> None:
    command = [
        sys.executable,
        "-m",
        "bench.gpu",
        "--quick",
        "--jobs",
        "flash,flash_fp8,sdpa_peft_recompute_all",
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=env, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["name"] == "gpu"
    facts = record["facts"]
    assert facts["flash_status"] == facts["sdpa_peft_recompute_all_status"] == "measured"
    assert facts["flash_fp8_status"] == "not supported"
    assert facts["sdpa_peft_recompute_all_hardware_flops"] > facts["flash_hardware_flops"]
    assert facts["sdpa_peft_recompute_all_model_flops"] == facts["flash_model_flops"]
    assert record["figures"]["flash_tokens_per_s"]["median"] > 0
