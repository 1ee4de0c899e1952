"""Does the search for rows and recomputed layers end near the memory target, as fast as the best of a full sweep?

A small model trains on this machine's CPU. First every choice is measured once. Then, for several limits on its memory,
the search looks for one by its few trials, with allocations beyond the limit failing for real, and what it took is
timed in turns with the fastest choices of the sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.record import Outcome, WrongResultError, summarize
from bench.training import Scale, build_data, make_config, open_folder, open_run, write_model
from harness.memory.fit import MemoryFit
from harness.memory.limit import CpuMemory
from harness.memory.search import Choice, Found, Measured
from harness.memory.trials import TrialRun
from preprocess.tasks.load import DEFAULT_TASKS

TARGET = 0.94
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        scale: Model and songs.
        rooms_mib: Limits, above what the process has before the first row.
        every: Only each so many-eth number of recomputed layers is swept.
        num_turns: Of timing the search's choice beside the sweep's best.
    """

    scale: Scale
    rooms_mib: tuple[int, ...]
    every: int
    num_turns: int


FULL = Size(
    Scale(
        songs=40,
        length="short",
        hidden_size=128,
        num_layers=12,
        seq_len=512,
        rows_per_step=6,
        precision="fp32",
    ),
    (90, 140, 200),
    2,
    3,
)
QUICK = Size(
    Scale(
        songs=16, length="short", hidden_size=64, num_layers=4, seq_len=512, rows_per_step=3, precision="fp32"
    ),
    (60,),
    2,
    2,
)


def measure(*, quick: bool) -> Outcome:
    """Sweep, search under each limit, and compare.

    Raises:
        WrongResultError: A search took a choice above the target, or none.
    """
    size = QUICK if quick else FULL
    with open_folder() as folder:
        model = write_model(folder / "model", size.scale)
        data = build_data(folder / "data", str(model), DEFAULT_TASKS[:4], size.scale)
        fit = open_run(make_config(folder / "run", data, model, size.scale, 4)).fit
        base = fit.memory.used()
        sweep = sweep_choices(fit, size)
        found = [search_under(fit, base + room * MIB) for room in size.rooms_mib]
        lift_limit(fit)
        reports = [
            compare_with_sweep(fit, one, sweep, base + room * MIB, size)
            for one, room in zip(found, size.rooms_mib, strict=True)
        ]
    below, nearest, ratios = zip(*reports, strict=True)
    facts: dict[str, float | int | str] = {
        "choices_swept": len(sweep),
        "model": f"random Llama, hidden {size.scale.hidden_size}, {size.scale.num_layers} layers, fp32, rows of "
        f"{size.scale.seq_len} slots, {size.scale.rows_per_step} a step",
        "target": TARGET,
        "process_before_the_first_row_mib": base // MIB,
        "ran_out_in_trials": sum(trial.measured.peak_bytes is None for one in found for trial in one.trials),
    }
    for room, one, points, near, ratio in zip(size.rooms_mib, found, below, nearest, ratios, strict=True):
        assert one.choice is not None
        facts[f"limit_{room}_mib_above"] = (
            f"rows {one.choice.rows}, layers {one.choice.layers}; {points:.2f} points under the target "
            f"(of the sweep's fastest within 1 %: {near:.2f}), "
            f"{ratio:.3f} of the sweep's best speed, {len(one.trials)} trials"
        )
    return Outcome(
        baseline="sweep",
        figures={
            "points under the target": summarize(below, "points"),
            "speed / best of the sweep": summarize(ratios, "of the best"),
            "trials": summarize([float(len(one.trials)) for one in found], "trials"),
        },
        ratios={},
        facts=facts,
    )


def sweep_choices(fit: MemoryFit, size: Size) -> dict[Choice, Measured]:
    """Measure every choice once, without a limit."""
    trials = fit.open_trials(TARGET)
    layers = range(0, fit.num_layers + 1, size.every)
    choices = [Choice(rows, layer) for rows in range(1, size.scale.rows_per_step + 1) for layer in layers]
    trials.measure(choices[0])  # the first pass of all makes what later ones find
    return {choice: trials.measure(choice) for choice in choices}


def search_under(fit: MemoryFit, limit_bytes: int) -> Found:
    """Search with allocations beyond a limit failing.

    Raises:
        WrongResultError: What it took is above the target, or nothing fits.
    """
    lift_limit(fit)
    fit.memory = CpuMemory(limit_bytes, 1)
    fit.memory.enforce()
    found = fit.open_trials(TARGET).run()
    if found.peak_bytes is None or found.peak_bytes > TARGET * limit_bytes:
        raise WrongResultError(f"the search ended with {found}, above {TARGET} of {limit_bytes}")
    return found


def lift_limit(fit: MemoryFit) -> None:
    """Let the process allocate what it wants."""
    fit.memory = CpuMemory(2**50, 1)
    fit.memory.enforce()


def compare_with_sweep(
    fit: MemoryFit, found: Found, sweep: dict[Choice, Measured], limit_bytes: int, size: Size
) -> tuple[float, float, float]:
    """How a search did beside a sweep.

    Returns:
        Points of the limit that its choice lies under the target; those of the nearest one among the sweep's choices
        that are within 1 % of the fastest; its speed as a share of the best.
    """
    assert found.choice is not None
    assert found.peak_bytes is not None
    rows = size.scale.rows_per_step
    fits = {choice: one for choice, one in sweep.items() if (one.peak_bytes or 0) <= TARGET * limit_bytes}
    fastest = sorted(fits, key=lambda choice: step_seconds(choice, fits[choice].seconds, rows))
    rivals = [choice for choice in fastest if choice != found.choice][:3]
    seconds = time_in_turns(fit, [found.choice, *rivals], size)
    times = {choice: step_seconds(choice, one.seconds, rows) for choice, one in fits.items()}
    near = max(fits[one].peak_bytes or 0 for one in fits if times[one] <= 1.01 * min(times.values()))
    return (
        100 * (TARGET - found.peak_bytes / limit_bytes),
        100 * (TARGET - near / limit_bytes),
        min(seconds) / seconds[0],
    )


def step_seconds(choice: Choice, seconds: float | None, rows: int) -> float:
    """Of a step of so many rows: that many micro-batches, the last one in proportion to its rows."""
    assert seconds is not None
    return seconds * rows / choice.rows


def time_in_turns(fit: MemoryFit, choices: Sequence[Choice], size: Size) -> list[float]:
    """Seconds of a step with each choice: of its turns the one that other work on the machine disturbed least."""
    trials = fit.open_trials(TARGET)
    rows = size.scale.rows_per_step
    taken: list[list[float]] = [[] for _ in choices]
    for _ in range(size.num_turns):
        for times, choice in zip(taken, choices, strict=True):
            times.append(time_step(trials, choice, rows))
    return [min(times) for times in taken]


def time_step(trials: TrialRun, choice: Choice, rows: int) -> float:
    """Seconds of a step: its whole micro-batches and its last one, each as long as a trial says."""
    whole, rest = divmod(rows, choice.rows)
    seconds = whole * (trials.measure(choice).seconds or 0.0)
    if rest:
        seconds += trials.measure(choice._replace(rows=rest)).seconds or 0.0
    return seconds
