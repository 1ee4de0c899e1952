"""How long does training stand still for a checkpoint that is written beside it, against one that it waits for?

The same run takes steps and saves after each, by the two ways in turns. A save's stall is the time in `Run.save`; where
the save goes on in a thread, three more steps follow before it is waited for, as they would in a run whose saves are
further apart, and what is left to wait for then is counted as well. The steps beside a save are compared with the
steps after it, since writing and hashing take a core and memory traffic from them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.material import FIVE_TASKS
from bench.record import Outcome, WrongResultError, compare, summarize
from bench.training import TINY, Scale, Steps, build_data, make_config, open_folder, open_run, write_model
from harness.checkpoints import find_damage

if TYPE_CHECKING:
    from harness.run import Run

WAITING, BESIDE = "sync", "async"
FULL = replace(Scale(), songs=24, length="short", seq_len=512, rows_per_step=1, micro_batch_size=1, rank=128)
QUICK = TINY
FULL_TURNS, QUICK_TURNS = 6, 3
STEPS_BESIDE = 3
MIB = 2**20


@dataclass(slots=True)
class Times:
    """What saves of one way took.

    Attributes:
        stall_s: For each save the seconds in which no step was taken.
        beside_s: For each save the mean seconds of the steps that followed at once.
        after_s: For each save the seconds of a step when nothing was being written.
    """

    stall_s: list[float] = field(default_factory=list)
    beside_s: list[float] = field(default_factory=list)
    after_s: list[float] = field(default_factory=list)


def measure(*, quick: bool) -> Outcome:
    """Save by each way.

    Raises:
        WrongResultError: A checkpoint is not whole, or the two ways wrote different state.
    """
    scale, num_turns = (QUICK, QUICK_TURNS) if quick else (FULL, FULL_TURNS)
    with open_folder() as folder:
        model = write_model(folder / "model", scale)
        data = build_data(folder / "data", str(model), FIVE_TASKS, scale)
        num_steps = 2 * (num_turns + 1) * (STEPS_BESIDE + 2) + 2
        steps = Steps(open_run(make_config(folder / "run", data, model, scale, num_steps)))
        times = take_turns(steps, num_turns)
        facts = count_bytes(steps.run)
        check_same_state(steps.run)
    stalls = {way: found.stall_s for way, found in times.items()}
    return Outcome(
        baseline=WAITING,
        figures={
            f"{way}_stall_ms": summarize([1e3 * s for s in stall], "ms") for way, stall in stalls.items()
        }
        | {f"{BESIDE}_step_beside_ms": summarize([1e3 * s for s in times[BESIDE].beside_s], "ms")}
        | {f"{BESIDE}_step_after_ms": summarize([1e3 * s for s in times[BESIDE].after_s], "ms")},
        ratios={BESIDE: compare(stalls[WAITING], stalls[BESIDE])},
        facts=facts | {"steps_beside_a_save": STEPS_BESIDE, "torch_threads": torch.get_num_threads()},
    )


def take_turns(steps: Steps, num_turns: int) -> dict[str, Times]:
    """Save by each way in turns; the first turn is a warm-up and not among them."""
    times = {WAITING: Times(), BESIDE: Times()}
    for turn in range(num_turns + 1):
        for way, found in times.items():
            one = time_save(steps, beside=way == BESIDE)
            if turn:
                for name in ("stall_s", "beside_s", "after_s"):
                    getattr(found, name).append(one[name])
    return times


def time_save(steps: Steps, *, beside: bool) -> dict[str, float]:
    """One step, a save, three steps, and one step when nothing is being written."""
    run = steps.run
    steps.take()
    run.checkpoints.async_save = beside
    started = time.perf_counter()
    run.save()
    stall = time.perf_counter() - started
    for _ in range(STEPS_BESIDE):
        steps.take()
        run.checkpoints.check()
    started = time.perf_counter()
    run.checkpoints.wait()
    stall += time.perf_counter() - started
    steps.take()
    return {
        "stall_s": stall,
        "beside_s": sum(steps.seconds[-STEPS_BESIDE - 1 : -1]) / STEPS_BESIDE,
        "after_s": steps.seconds[-1],
    }


def newest(run: Run) -> Path:
    """The newest checkpoint."""
    return max(run.config.output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def count_bytes(run: Run) -> dict[str, float | int | str]:
    """Sizes of a checkpoint and of its parts."""
    folder = newest(run)
    if damage := find_damage(folder):
        raise WrongResultError(f"{folder}: {damage}")
    sizes = {path.relative_to(folder).parts[0]: 0 for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*"):
        if path.is_file():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size
    return {
        "checkpoint_mib": sum(sizes.values()) / MIB,
        "state_mib": sizes["state"] / MIB,
        "adapter_mib": sizes["adapter"] / MIB,
    }


def check_same_state(run: Run) -> None:
    """Both ways write the same bytes of the same state.

    Raises:
        WrongResultError: They do not.
    """
    written = []
    for beside in (False, True):
        run.checkpoints.async_save = beside
        run.save()
        run.checkpoints.wait()
        written.append([path.read_bytes() for path in sorted((newest(run) / "state").iterdir())])
    if written[0] != written[1]:
        raise WrongResultError("a save beside training wrote other bytes than one that training waited for")
