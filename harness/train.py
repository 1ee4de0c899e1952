"""Train: the order of events, from the configuration to the adapter.

Started by a launcher on every rank, or by hand as one process::

    deepspeed --hostfile hostfiles/three_nodes --module harness.train --config run.yaml
    python -m harness launch --hostfile hostfiles/three_nodes --config run.yaml
    python -m harness.train --config run.yaml
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

from rich.console import Console

from harness.checkpoints import CheckpointFolder
from harness.cluster.by_hand import check_start, find_start
from harness.cluster.outcome import launch_dir_from_environment, record_exit
from harness.cluster.run_lock import hold_run
from harness.cluster.tether import start_tether
from harness.config import RunConfig, gather_overrides, load_run_config
from harness.dist import World, gather_objects, join_world, leave_world, run_together
from harness.guard.rank import RankGuard, start_guard
from harness.memory.snapshot import record_snapshot
from harness.run import Run
from harness.run_folder import (
    as_user_error,
    check_run_folder,
    describe_run,
    explain_error,
    fingerprint,
    start_logging,
)
from harness.splits import open_data
from preprocess.terminal import make_console


def train(config: RunConfig, console: Console, guard: RankGuard | None = None) -> None:
    """Run one training, from loading to the adapter; every rank calls this.

    Args:
        config: The run's configuration.
        console: Rank 0's terminal.
        guard: This rank's, started.

    Raises:
        UserError: What went wrong, with its exit code.
    """
    world = join_world(config.world_size)
    warning = guard.connect(gather_objects) if guard is not None else None
    if warning is not None and world.is_main:
        console.print(f"warning: {warning}", highlight=False)
    run_together(lambda: check_start(find_start()))
    run_together(lambda: check_run_folder(config))
    with ExitStack() as stack:
        # `harness launch` holds the folder itself.
        if launch_dir_from_environment() is None:
            run_together(lambda: world.is_main and stack.enter_context(hold_run(config.output_dir)))
        go_through(config, console, world)


def go_through(config: RunConfig, console: Console, world: World) -> None:
    """The run itself, in a folder that is its own; every rank calls this.

    Raises:
        UserError: What went wrong, with its exit code.
    """
    manifest, train_split, eval_split = run_together(lambda: open_data(config, world))
    checkpoints = CheckpointFolder(
        config.output_dir,
        world,
        fingerprint(config, manifest),
        config.schedule.keep_checkpoints,
        async_save=config.schedule.async_save,
    )
    if checkpoints.commits and not config.resume:
        describe_run(config)
    start_logging(config.output_dir, world.rank)
    run = Run(config, console, world, manifest, train_split, eval_split, checkpoints)
    snapshot = record_snapshot(config.output_dir, world.rank, world.device, run.say)
    with snapshot if config.memory.snapshot else nullcontext():
        run.go()


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of a rank: what DeepSpeed's launcher adds, and ours."""
    parser = argparse.ArgumentParser(
        "harness.train", description="Train LoRA on packed lyrics with DeepSpeed."
    )
    parser.add_argument("--config", required=True, help="a YAML file, or the name of a shipped config")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one setting")
    parser.add_argument(
        "--vram-target",
        type=float,
        metavar="SHARE",
        help="bring the peak to this share of the memory, as in 0.94; the same as --set memory.target=SHARE",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint")
    parser.add_argument(
        "--memory-snapshot", action="store_true", help="write torch's snapshot of a GPU's memory, also on OOM"
    )
    parser.add_argument(
        "--profile", metavar="steps=FIRST:END", help="look into these steps: steps=10:13 for 10, 11 and 12"
    )
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of every rank. Returns the exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    console = make_console()
    start_tether()  # it ends when this process does
    code = 1  # what an unforeseen exception ends with
    guard: RankGuard | None = None
    try:
        overrides = gather_overrides(
            options.set,
            vram_target=options.vram_target,
            memory_snapshot=options.memory_snapshot,
            profile=options.profile,
            resume=options.resume,
        )
        config = load_run_config(options.config, overrides)
        guard = start_guard(config)
        train(config, console, guard)
        code = 0
    except Exception as error:
        known = as_user_error(error)
        code = 1 if known is None else known.exit_code
        if guard is not None:
            guard.settle(code)  # ends here where another rank is the cause
        if known is None:
            raise
        explain_error(known)
    finally:
        record_exit(launch_dir_from_environment(), int(os.environ.get("RANK", "0")), code)
    if code == 0:
        leave_world()  # with NCCL it waits for every rank, and after an error some may never come
    if code == 0 and guard is not None:
        guard.leave()
    return code


if __name__ == "__main__":
    sys.exit(main())
