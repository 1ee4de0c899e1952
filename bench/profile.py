"""What does profiling a run's memory cost: each phase of every step, the timeline of one step in twenty?

Three ways of taking the same step in one process, in turns whose order rotates: without a profile, with its phases
alone, and looked at closely (malloc's count, a point at each layer's boundary). A run takes the third way one step in
twenty, after its first three. On a busy machine steps differ by far more than that costs, so each of the profile's own
actions is also timed by itself, and added up over those that a step makes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.material import FIVE_TASKS
from bench.record import Outcome, WrongResultError, compare, summarize
from bench.training import TINY, Scale, Steps, build_data, make_config, open_folder, open_run, write_model
from harness.loader import LoadedStep
from harness.memory.case import Phase
from harness.memory.measured import measure_parts
from harness.memory.profile import MemoryProfile
from harness.memory.timeline import MemoryTimeline
from harness.metering.run_meter import CLOSE_LOOK_EVERY, FIRST_LOOKS
from harness.recompute import decoder_layers

if TYPE_CHECKING:
    from harness.run import Run

OFF, PHASES, TIMELINE = "off", "phases", "timeline"
FULL = replace(Scale(), songs=24, seq_len=1024, rows_per_step=4, micro_batch_size=2)
QUICK = replace(TINY, seq_len=512)
FULL_TURNS, QUICK_TURNS = 60, 4
REPEATS = 300


class NoProfile(MemoryProfile):
    """A profile that looks at nothing."""

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Run the block."""
        yield

    def start_step(self, step: int, *, closely: bool) -> None:
        """Do nothing."""

    def end_step(self) -> None:
        """Do nothing."""


class SameStep(Steps):
    """Steps that all have the rows of the first: the ways differ in the profile alone."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._first = self.load(0)

    def __next__(self) -> LoadedStep:
        """The first step again."""
        return self._first


def measure(*, quick: bool) -> Outcome:
    """Take the same step by each way.

    Raises:
        WrongResultError: A way did not look at what it is there to look at.
    """
    scale, num_turns = (QUICK, QUICK_TURNS) if quick else (FULL, FULL_TURNS)
    with open_folder() as folder:
        model = write_model(folder / "model", scale)
        data = build_data(folder / "data", str(model), FIVE_TASKS, scale)
        config = make_config(folder / "run", data, model, scale, 3 * (num_turns + 1))
        steps = SameStep(open_run(config))
        seconds = take_turns(steps, num_turns)
        micros = time_actions(steps.run)
        timeline = steps.run.memory.timeline
    if timeline is None or len(timeline.points) < 4:
        raise WrongResultError(f"the last step's timeline is {timeline}")
    extra = {way: percents(seconds[OFF], seconds[way]) for way in (PHASES, TIMELINE)}
    return Outcome(
        baseline=OFF,
        figures={f"{way}_s_per_step": summarize(values, "s/step") for way, values in seconds.items()}
        | {f"{way}_percent_slower": summarize(values, "%") for way, values in extra.items()}
        | {f"{name}_us": summarize(values, "us") for name, values in micros.items()},
        ratios={way: compare(seconds[OFF], seconds[way]) for way in (PHASES, TIMELINE)},
        facts=add_up(micros, timeline, statistics.median(seconds[OFF]))
        | {
            "percent_slower_one_step_in_twenty_closely": mix(
                statistics.median(extra[PHASES]), statistics.median(extra[TIMELINE])
            ),
            "layers": scale.num_layers,
            "micro_steps": scale.rows_per_step // scale.micro_batch_size,
        },
    )


def percents(base: Sequence[float], other: Sequence[float]) -> list[float]:
    """By how many percent each turn is slower than the baseline's."""
    return [100 * (theirs / own - 1) for own, theirs in zip(base, other, strict=True)]


def mix(rarely: float, closely: float) -> float:
    """What a long run pays of two costs, the second in one step of `CLOSE_LOOK_EVERY`."""
    return rarely + (closely - rarely) / CLOSE_LOOK_EVERY


def take_turns(steps: Steps, num_turns: int) -> dict[str, list[float]]:
    """Seconds of the step by each way; the first turn is a warm-up and not among them."""
    run = steps.run
    profile, nothing = run.memory, NoProfile(0, "cpu")
    seconds: dict[str, list[float]] = {way: [] for way in (OFF, PHASES, TIMELINE)}
    for turn in range(num_turns + 1):
        names = list(seconds)
        for way in names[turn % 3 :] + names[: turn % 3]:
            run.memory = nothing if way == OFF else profile
            run.meter.steps_here = (
                0 if way == TIMELINE else FIRST_LOOKS
            )  # decides whether the step is looked at closely
            steps.take()
            seconds[way].append(steps.seconds[-1])
    run.memory = profile
    return {way: values[1:] for way, values in seconds.items()}


def time_actions(run: Run) -> dict[str, list[float]]:
    """Microseconds of each thing that the profile does, in the process as training has left it."""
    profile = MemoryProfile(0, "cpu")
    layers = list(decoder_layers(run.engine.module.causal))

    def pass_phase() -> None:
        with profile.phase("forward"):
            pass

    def hook_layers() -> None:
        profile.start_step(1, closely=True)
        profile.end_step()

    profile.start_step(1, closely=False)
    found = {"phase": time_one(pass_phase)}
    profile.start_step(1, closely=True)
    found["phase_closely"] = time_one(pass_phase)
    profile.end_step()
    found["point"] = time_one(profile.read_allocated)
    profile.watch(layers, dict)
    found["hooks_of_a_step"] = time_one(hook_layers)
    found["parts"] = time_one(lambda: measure_parts(run.engine), REPEATS // 10)
    return found


def time_one(action: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Microseconds of each call."""
    micros = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        micros.append(1e6 * (time.perf_counter() - started))
    return micros


def add_up(
    micros: dict[str, list[float]], timeline: MemoryTimeline, step_s: float
) -> dict[str, float | int | str]:
    """Percent of a step that the profile's actions take, added up over those that the step made."""
    cost = {name: statistics.median(values) for name, values in micros.items()}
    num_phases = sum(point.where.endswith(" ends") for point in timeline.points)
    num_layer_points = len(timeline.points) - 2 * num_phases
    rarely = num_phases * cost["phase"]
    # A phase's own two points are within "phase_closely".
    closely = num_phases * cost["phase_closely"] + num_layer_points * cost["point"] + cost["hooks_of_a_step"]
    return {
        "added_up_percent_phases": rarely / step_s / 1e4,
        "added_up_percent_timeline": closely / step_s / 1e4,
        "added_up_percent_one_step_in_twenty_closely": mix(rarely, closely) / step_s / 1e4,
        "phases_in_a_step": num_phases,
        "points_in_a_timeline": len(timeline.points),
    }
