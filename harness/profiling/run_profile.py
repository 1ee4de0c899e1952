"""The end of a profile: traces to disk, and what they add up to, over all ranks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.config import RunConfig
from harness.dist import World
from harness.guard.marks import MARKS
from harness.profiling.breakdown import break_down
from harness.profiling.collect import Failed, collect_traces
from harness.profiling.flops_check import check_flops
from harness.profiling.recorder import StepRecorder
from harness.profiling.steps import describe_missing
from harness.profiling.summary import (
    PROFILE_DIR,
    SUMMARY_FILE,
    FlopsCheck,
    Profile,
    RankProfile,
    write_summary,
)
from harness.profiling.top import format_top
from harness.profiling.trace import read_trace
from preprocess.durable import make_folder, write_text_durably
from preprocess.errors import ConfigError, UserError

if TYPE_CHECKING:
    from harness.run import Run

TOP_FILE = "top.txt"


def open_recorder(config: RunConfig, world: World) -> StepRecorder:
    """What records the steps that a run's settings ask for.

    Raises:
        ConfigError: Nsight Systems is to be told when to record, where there is no GPU.
    """
    if config.profile.tool == "nsys" and config.profile.steps and world.device.type != "cuda":
        raise ConfigError('profile.tool "nsys" records a GPU, and there is none here; use "torch"')
    return StepRecorder(config.profile, world)


def announce_profile(recorder: StepRecorder, first: int, last: int, say: Callable[[str], None]) -> None:
    """Tell the user of steps that are to be profiled and that the run does not take.

    Args:
        recorder: The run's.
        first: The first step that this process takes, from 1.
        last: The run's last step.
        say: Takes a line.
    """
    missing = describe_missing(recorder.steps, first, last) if recorder.steps else None
    if missing is not None:
        say(missing)


def write_profile(run: Run, *, ends: bool = False) -> None:
    """Write the profile once its last step is done; every rank calls this after each step.

    A profile that cannot be written is told of and does not end the run.

    Args:
        run: The run.
        ends: Whether it takes no further step.
    """
    recorder = run.recorder
    if not recorder.is_open:
        return
    step = run.state.step
    if not (ends or step >= run.num_steps or step + 1 not in recorder.steps):
        return
    MARKS.enter("save")  # it may take as long as a checkpoint
    recorder.stop()
    if recorder.settings.tool == "nsys":
        run.say("profile.tool nsys: the steps are done; nsys writes what it recorded")
        return
    folder = run.config.output_dir / PROFILE_DIR
    found = collect_traces(folder, _write_own(run), run.world)
    checked = check_flops(run, step) if recorder.settings.flops and recorder.taken else None
    if run.world.is_main:
        _write_all(run, found, checked)


def _write_own(run: Run) -> RankProfile | Failed:
    """This rank's trace and what it adds up to."""
    world = run.world
    folder = run.config.output_dir / PROFILE_DIR
    try:
        make_folder(folder)
        path = run.recorder.write(folder)
        return break_down(
            read_trace(path),
            rank=world.rank,
            host=socket.gethostname(),
            device=str(world.device),
            trace_file=path.name,
            trace_bytes=path.stat().st_size,
        )
    except (UserError, OSError, RuntimeError) as error:
        return Failed(world.rank, str(error).splitlines()[0])


def _write_all(run: Run, found: list[RankProfile | Failed], checked: FlopsCheck | str | None) -> None:
    """Rank 0's part: the summary, the table, and a line for the user."""
    recorder = run.recorder
    notes = [f"rank {one.rank} has no profile: {one.reason}" for one in found if isinstance(one, Failed)]
    notes += [
        f"the trace of rank {one.rank} {one.trace_note}"
        for one in found
        if isinstance(one, RankProfile) and one.trace_note
    ]
    notes += [checked] if isinstance(checked, str) else []
    profile = Profile(
        asked=str(recorder.settings.steps),
        steps=tuple(recorder.taken),
        world_size=run.world.size,
        ranks=tuple(one for one in found if isinstance(one, RankProfile)),
        notes=tuple(notes),
        flops=checked if isinstance(checked, FlopsCheck) else None,
    )
    folder = run.config.output_dir / PROFILE_DIR
    try:
        write_summary(folder / SUMMARY_FILE, profile)
        write_text_durably(folder / TOP_FILE, format_top(profile))
    except (UserError, OSError) as error:
        notes.append(f"no table: {error}")
    for note in notes:
        run.say(f"profile: {note}")
    run.say(f"profile of steps {', '.join(map(str, profile.steps))}: {folder / TOP_FILE}, traces beside it")
