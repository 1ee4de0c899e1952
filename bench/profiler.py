"""What does profiling steps cost, and what does it cost where no step is profiled?

The same step in one process, in turns whose order rotates: with a stand-in that does nothing in the recorder's place,
with the recorder but no step to record, and recorded by torch. On a busy machine steps differ by far more than a
recorder that is off costs, so its own actions are timed alone as well, and added up over those that a step makes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from bench.material import FIVE_TASKS
from bench.profile import FULL, QUICK, SameStep
from bench.record import Outcome, WrongResultError, compare, summarize
from bench.training import build_data, make_config, open_folder, open_run, write_model
from harness.config import ProfileSettings
from harness.profiling.breakdown import break_down
from harness.profiling.recorder import StepRecorder
from harness.profiling.trace import read_trace
from harness.recompute import decoder_layers

NOTHING, OFF, ON = "nothing", "off", "on"
FULL_TURNS, QUICK_TURNS = 30, 3
REPEATS = 20_000


class NoRecorder(StepRecorder):
    """A recorder that is not there."""

    @contextmanager
    def step(self, number: int, layers: Iterable[nn.Module] = ()) -> Iterator[None]:
        """Run the block."""
        yield

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run the block."""
        yield


def measure(*, quick: bool) -> Outcome:
    """Take the same step by each way.

    Raises:
        WrongResultError: Losses differ between the ways, or a trace does not hold its step.
    """
    scale, num_turns = (QUICK, QUICK_TURNS) if quick else (FULL, FULL_TURNS)
    with open_folder() as folder:
        model = write_model(folder / "model", scale)
        data = build_data(folder / "data", str(model), FIVE_TASKS, scale)
        # A rate of next to nothing: the ways take the same step, so their losses can be compared.
        config = make_config(folder / "run", data, model, scale, 3 * (num_turns + 1) + 1)
        optimizer = config.optimizer.model_copy(update={"learning_rate": 1e-30})
        steps = SameStep(open_run(config.model_copy(update={"optimizer": optimizer})))
        seconds, writing_s, num_bytes = take_turns(steps, num_turns, folder)
        losses = {round(loss, 6) for loss in steps.losses()}
        part_us, step_us = time_actions(steps)
        num_parts = count_parts(steps)
    if len(losses) != 1:
        raise WrongResultError(f"the same step has the losses {sorted(losses)}")
    step_s = statistics.median(seconds[NOTHING])
    return Outcome(
        baseline=NOTHING,
        figures={
            **{f"{way}: step": summarize([1e3 * s for s in of_way], "ms") for way, of_way in seconds.items()},
            "stop, write, add up one step": summarize(writing_s, "s"),
            "trace of one step": summarize([n / 1e6 for n in num_bytes], "MB"),
            "a part, recorder off": summarize(part_us, "us"),
        },
        ratios={way: compare(seconds[NOTHING], seconds[way]) for way in (OFF, ON)},
        facts={
            "parts_in_a_step": num_parts,
            "off_added_up_percent_of_a_step": (
                num_parts * statistics.median(part_us) + statistics.median(step_us)
            )
            / step_s
            / 1e4,
        },
    )


def take_turns(
    steps: SameStep, num_turns: int, folder: Path
) -> tuple[dict[str, list[float]], list[float], list[int]]:
    """Seconds of each way's steps, seconds to write each recorded one, and its bytes; the first turn is dropped."""
    run = steps.run
    layers = list(decoder_layers(run.engine.module.causal))
    seconds: dict[str, list[float]] = {way: [] for way in (NOTHING, OFF, ON)}
    writing_s, num_bytes = list[float](), list[int]()
    for turn in range(num_turns + 1):
        names = list(seconds)
        for way in names[turn % 3 :] + names[: turn % 3]:
            number = run.state.step + 1
            chosen = ProfileSettings(steps=f"{number}:{number + 1}") if way == ON else ProfileSettings()
            recorder = (NoRecorder if way == NOTHING else StepRecorder)(chosen, run.world)
            run.recorder = recorder
            with recorder.step(number, layers):
                steps.take()
            seconds[way].append(steps.seconds[-1])
            if way == ON:
                elapsed, size = write(recorder, folder)
                writing_s.append(elapsed)
                num_bytes.append(size)
    return {way: values[1:] for way, values in seconds.items()}, writing_s[1:], num_bytes[1:]


def write(recorder: StepRecorder, folder: Path) -> tuple[float, int]:
    """What comes after the last step: seconds, and the trace's bytes.

    Raises:
        WrongResultError: The trace does not hold one step.
    """
    started = time.perf_counter()
    recorder.stop()
    path = recorder.write(folder)
    rank = break_down(read_trace(path), rank=0, host="here", device="cpu")
    if len(rank.steps) != 1:
        raise WrongResultError(f"a trace of one step holds {len(rank.steps)}")
    return time.perf_counter() - started, path.stat().st_size


def time_actions(steps: SameStep) -> tuple[list[float], list[float]]:
    """Microseconds of a part and of a step, for a recorder that is off, each a mean of many."""
    off = StepRecorder(ProfileSettings(), steps.run.world)

    def mean_us(recorder: StepRecorder, name: str) -> float:
        started = time.perf_counter()
        for _ in range(REPEATS):
            with recorder.part("forward") if name == "part" else recorder.step(1):
                pass
        return 1e6 * (time.perf_counter() - started) / REPEATS

    mean_us(off, "part")
    parts, wholes = ([mean_us(off, name) for _ in range(9)] for name in ("part", "step"))
    return parts, wholes


def count_parts(steps: SameStep) -> int:
    """Parts that a step opens."""
    counted: list[str] = []

    class Counting(NoRecorder):
        @contextmanager
        def part(self, name: str) -> Iterator[None]:
            counted.append(name)
            yield

    steps.run.recorder = Counting(ProfileSettings(), steps.run.world)
    steps.take()
    return len(counted)
