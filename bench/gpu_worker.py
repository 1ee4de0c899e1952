"""The process that `bench.gpu` measures in: one configuration after another, each on a model of its own.

It reads jobs as lines of JSON and answers each with one line. It is a process of its own because an error of the driver
leaves a process without its card, and a compiler that takes too long can only be stopped from outside.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from bench.cards import (
    GIB,
    PhaseMemory,
    cap_memory,
    describe_card,
    find_device,
    free_memory,
    is_poisoned,
    synchronize,
)
from bench.gpu_jobs import Job, Result, Setting
from bench.gpu_model import Built, NotSupportedError, build, lay_out, no_part, targets_of
from bench.gpu_process import ANSWER
from bench.gpu_rows import make_rows_for
from harness.data import MicroBatch
from harness.flops import LoraShape, StepFlops, count_step_flops
from harness.shapes import find_shape
from preprocess.forest import PackedRow

FILL = 0.94
"""Share of the memory's cap that the largest micro-batch is meant to take."""


def main() -> int:
    """Answer jobs until there are no more, or until the card is gone."""
    setting = Setting(**json.loads(sys.stdin.readline()))
    device = find_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    limit_gib = cap_memory(device, setting.vram_gib)
    bench = Bench(setting, device, dtype, limit_gib)
    answer({**asdict(describe_card(device, dtype)), "limit_gib": limit_gib, "rows_from": bench.rows_from})
    for line in sys.stdin:
        result, usable = bench.run(Job(**json.loads(line)))
        answer(asdict(result))
        if not usable:
            return 3
    return 0


def answer(value: dict[str, Any]) -> None:
    """Hand a value to the parent."""
    print(ANSWER + json.dumps(value), flush=True)


class Bench:
    """Measures configurations on one device."""

    def __init__(
        self, setting: Setting, device: torch.device, dtype: torch.dtype, limit_gib: float | None
    ) -> None:
        self.setting = setting
        self.device = device
        self.dtype = dtype
        self.limit_bytes = None if limit_gib is None or device.type != "cuda" else limit_gib * GIB
        self.shape = find_shape(setting.shape)
        self.max_rows = max(1, setting.max_tokens // setting.seq_len)
        self.rows, self.rows_from = make_rows_for(
            self.shape.vocab_size, setting.seq_len, self.max_rows, quick=setting.shape == "toy"
        )

    def run(self, job: Job) -> tuple[Result, bool]:
        """Measure one configuration; whether the process can go on afterwards."""
        try:
            result = self.measure(job)
        except NotSupportedError as error:
            result = Result(job.name, "not supported", str(error))
        except torch.OutOfMemoryError as error:
            result = Result(job.name, "out of memory", str(error).splitlines()[0])
        except Exception as error:  # noqa: BLE001 - whatever a configuration raises is a line of the table
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            if is_poisoned(error):
                return Result(job.name, "error", describe(error)), False
            result = Result(job.name, "error", describe(error))
        # The frames of an error hold the model; they are gone only here.
        self.clean()
        return result, True

    def clean(self) -> None:
        """Free what a configuration left."""
        torch.compiler.reset()
        gc.collect()
        free_memory(self.device)

    def measure(self, job: Job) -> Result:
        """Build, find the rows that fit, time some steps; fewer rows where they turn out to be too many.

        Raises:
            NotSupportedError: The machine cannot run it.
            torch.OutOfMemoryError: Not even one row fits.
        """
        start, memory = time.perf_counter(), PhaseMemory(self.device)
        built = self.build(job, memory)
        rows = job.rows or self.find_rows(built)
        while True:
            try:
                return self.time_steps(job, built, rows, start, memory)
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
            rows = rows * 3 // 4
            del built
            self.clean()
            built = self.build(job, memory)

    def build(self, job: Job, memory: PhaseMemory) -> Built:
        """The configuration's model."""
        with memory.phase("load"):
            return build(job, self.setting, self.device, self.dtype)

    def find_rows(self, built: Built) -> int:
        """How many rows fill the memory, from what one row and two rows take (it grows in proportion)."""
        if self.limit_bytes is None:
            return self.max_rows
        built.stepper.step(self.batch(built, 1), no_part)  # the optimizer's states come with the first step
        one = self.peak_of(built, 1)
        try:
            two = self.peak_of(built, 2)
        except torch.OutOfMemoryError:
            return 1
        more = (self.limit_bytes * FILL - one) / max(two - one, 1)
        return max(1, min(self.max_rows, 1 + int(more)))

    def peak_of(self, built: Built, rows: int) -> int:
        """Highest memory of a step."""
        memory = PhaseMemory(self.device)
        with memory.phase("step"):
            built.stepper.step(self.batch(built, rows), no_part)
        return memory.peaks["step"]

    def batch(self, built: Built, rows: int) -> MicroBatch:
        """A micro-batch of the first rows."""
        return lay_out(self.rows[:rows], built, self.device)

    def time_steps(self, job: Job, built: Built, rows: int, start: float, memory: PhaseMemory) -> Result:
        """Two steps to warm up, the timed ones, and one more whose parts are looked at."""
        batch = self.batch(built, rows)
        for _ in range(2):
            built.stepper.step(batch, no_part)
        synchronize(self.device)
        build_s = time.perf_counter() - start
        seconds = [
            time_one(lambda: built.stepper.step(batch, no_part), self.device)
            for _ in range(self.setting.num_turns)
        ]
        parts = StepParts(memory, self.device)
        built.stepper.step(batch, parts.part)
        flops = self.count_flops(job, built, self.rows[:rows], batch)
        return Result(
            name=job.name,
            status="measured",
            rows=rows,
            counts=asdict(batch.counts),
            seconds=seconds,
            parts_s=parts.seconds,
            peak_gib={name: peak / GIB for name, peak in memory.peaks.items()},
            model_flops=flops.model.total,
            hardware_flops=flops.hardware.total,
            build_s=build_s,
            used=built.used,
        )

    def count_flops(self, job: Job, built: Built, rows: Sequence[PackedRow], batch: MicroBatch) -> StepFlops:
        """FLOPs of the step. A dense mask computes every pair of a padded row."""
        counts = batch.counts
        dense = None if built.flat else counts.slots**2 // len(rows)
        return count_step_flops(
            self.shape,
            LoraShape(self.setting.r, targets_of(job)),
            tokens=counts.tokens,
            attention_pairs=counts.attention_pairs,
            supervised_tokens=counts.supervised_tokens,
            recompute_layers=built.recompute_layers,
            attention=job.attention,
            slots=counts.slots,
            computed_pairs=dense,
            lora_kernel=job.lora_kernel,
        )


class StepParts:
    """Seconds and peak memory of a step's parts."""

    def __init__(self, memory: PhaseMemory, device: torch.device) -> None:
        self.memory = memory
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the step."""
        synchronize(self.device)
        self.memory.start()
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.memory.end(name)


def time_one(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of an action and of the work that it gave the device."""
    start = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - start


def describe(error: BaseException) -> str:
    """An error's class and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


if __name__ == "__main__":
    sys.exit(main())
