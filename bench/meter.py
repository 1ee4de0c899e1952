"""What does the meter cost: clock by parts, FLOPs, times of ranks, lines of metrics.jsonl and TensorBoard?

The same step in one process, in turns whose order changes: with the meter and its files, and without any of it. On a
busy machine steps differ by far more than the meter takes, so what it does in a step is also run by itself, without the
step, and its time held against the step's. On a GPU the meter waits for the device at each part's ends too, in the one
step of twenty that it times by parts; that is not measured on a CPU. The ceilings are measured once, at a run's start.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.material import FIVE_TASKS
from bench.profile import NoProfile, SameStep, percents, time_one
from bench.record import Outcome, WrongResultError, compare, summarize
from bench.training import TINY, Scale, build_data, make_config, open_folder, open_run, write_model
from harness.json_lines import read_json_lines
from harness.metering.efficiency import StepEfficiency
from harness.metering.measure import measure_ceilings
from harness.metering.ranks import NUM_TIMES
from harness.metering.run_meter import RunMeter, StepMeasures
from harness.meters import Part, StepCounts, ThroughputMeter
from harness.metrics_file import METRICS_FILE
from harness.run_records import write_step
from harness.step import MeterSums, StepResult

if TYPE_CHECKING:
    from harness.run import Run

OFF, ON = "off", "on"
FULL = replace(Scale(), songs=24, seq_len=1024, rows_per_step=4, micro_batch_size=2)
QUICK = replace(TINY, seq_len=512)
FULL_TURNS, QUICK_TURNS = 20, 4
REPEATS = 300


class NoClock(ThroughputMeter):
    """A clock that times nothing."""

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Run the block."""
        yield


class NoMeter(RunMeter):
    """A meter that measures nothing, and says the same after every step."""

    def __init__(self) -> None:
        self.clock = NoClock()
        self.steps_here = 0
        self._own = None
        rates = ThroughputMeter()
        rates.start_step()
        self._measures = StepMeasures(rates.end_step(StepCounts()), StepEfficiency(), None, None)

    @property
    def has_compiled(self) -> Callable[[], bool]:
        """No look at the compiler's counters."""
        return bool

    def start_step(self) -> bool:
        """Do nothing."""
        return False

    def end_step(self, step: int, result: StepResult) -> StepMeasures:
        """Say the same as ever."""
        return self._measures


def measure(*, quick: bool) -> Outcome:
    """Take the same step by each way, and the meter's part of it alone.

    Raises:
        WrongResultError: The meter did not write what it is there to write.
    """
    scale, num_turns = (QUICK, QUICK_TURNS) if quick else (FULL, FULL_TURNS)
    with open_folder() as folder:
        model = write_model(folder / "model", scale)
        data = build_data(folder / "data", str(model), FIVE_TASKS, scale)
        config = make_config(folder / "run", data, model, scale, 2 * (num_turns + 1), lora_kernel="lean")
        steps = SameStep(open_run(config))
        seconds = take_turns(steps, num_turns)
        lines = read_json_lines(config.output_dir / METRICS_FILE)
        check_lines(lines, num_turns + 1)
        micros = time_one(lambda: meter_alone(steps), REPEATS)
        start = time.perf_counter()
        measure_ceilings(steps.run.world, config.model.precision)
        ceilings_s = time.perf_counter() - start
    step_s, alone_us = statistics.median(seconds[OFF]), statistics.median(micros)
    return Outcome(
        baseline=OFF,
        figures={f"{way}_s_per_step": summarize(values, "s/step") for way, values in seconds.items()}
        | {
            "percent_slower": summarize(percents(seconds[OFF], seconds[ON]), "%"),
            "meter_alone_us_per_step": summarize(micros, "us"),
            "meter_alone_percent_of_step": summarize([one / step_s / 1e4 for one in micros], "%"),
        },
        ratios={ON: compare(seconds[OFF], seconds[ON])},
        facts={
            "shortest_step_for_half_a_percent_ms": alone_us / 0.005 / 1e3,
            "ceilings_once_s": ceilings_s,
            "micro_steps": scale.rows_per_step // scale.micro_batch_size,
            "tensorboard": "on",
        },
    )


def take_turns(steps: SameStep, num_turns: int) -> dict[str, list[float]]:
    """Seconds of the steps of each way; the first turn is a warm-up and not among them."""
    run = steps.run
    run.memory = NoProfile(0, "cpu")  # its cost is another question
    meter, metrics, nothing = run.meter, run.metrics, NoMeter()
    seconds: dict[str, list[float]] = {OFF: [], ON: []}
    for turn in range(num_turns + 1):
        for way in (OFF, ON) if turn % 2 else (ON, OFF):
            run.meter, run.metrics = (meter, metrics) if way == ON else (nothing, None)
            steps.take()
            seconds[way].append(steps.seconds[-1])
    run.meter, run.metrics = meter, metrics
    return {way: values[1:] for way, values in seconds.items()}


def check_lines(lines: list[dict[str, object]], num_steps: int) -> None:
    """Hold what was written to what the meter is there for.

    Raises:
        WrongResultError: A line is missing, or a figure in it.
    """
    trained = [line for line in lines if line["kind"] == "train"]
    ranks = [line for line in lines if line["kind"] == "ranks"]
    if len(trained) != num_steps or len(ranks) != num_steps - 1:
        raise WrongResultError(f"{len(trained)} lines of {num_steps} steps, {len(ranks)} of ranks")
    if not all(line["parts_s"] and line["model_flops"] and line["mfu_of_ceiling"] for line in trained):
        raise WrongResultError("a step without its parts, its FLOPs or their share of the ceiling")


def meter_alone(steps: SameStep) -> None:
    """All that the meter does in a step of one rank, without the step."""
    run = steps.run
    batches = next(steps).batches
    result = make_result(run, sum((batch.counts for batch in batches), StepCounts()))
    run.meter.start_step()
    for part in ("data", *("forward", "loss", "backward") * len(batches), "optimizer"):
        with run.meter.clock.part(part):  # type: ignore[arg-type] # each is one of the parts
            pass
    run.meter.has_compiled()
    np.concatenate([[0.0, 0.0], np.zeros(NUM_TIMES) if run.meter.own_times is None else run.meter.own_times])
    measures = run.meter.end_step(run.state.step, result)
    write_step(run, 1e-3, result, measures, ())


def make_result(run: Run, counts: StepCounts) -> StepResult:
    """What the engine would give for a step with these counts."""
    num_tasks = len(run.manifest.tasks)
    return StepResult(
        1.0,
        1.0,
        counts,
        np.ones((num_tasks, 2)),
        np.ones(num_tasks, dtype=np.int64),
        applied=True,
        meter=MeterSums(times=np.zeros((1, NUM_TIMES))),
    )
