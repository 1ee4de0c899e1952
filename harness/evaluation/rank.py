"""One rank of an evaluation over hosts: started by the launcher with `--config FILE`, the resolved settings."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.cluster.outcome import launch_dir_from_environment, record_exit
from harness.cluster.tether import start_tether
from harness.dist import World, gather_bytes, host_group, join_world, leave_world, run_together
from harness.evaluation.run import evaluate_model
from harness.evaluation.settings import EvaluationSettings
from harness.evaluation.sharing import Ranks
from harness.run_folder import as_user_error, explain_error
from preprocess.settings import load_settings
from preprocess.terminal import make_console


def join_ranks(world: World) -> Ranks:
    """What the ranks of a process group share an evaluation by."""
    gather = partial(gather_bytes, group=host_group("evaluation"))
    return Ranks(world.rank, world.size, gather, run_together)


def evaluate_on_rank(settings: EvaluationSettings) -> None:
    """This rank's part; rank 0 writes the results.

    Raises:
        UserError: What went wrong, on this rank or on another one, with its exit code.
    """
    evaluate_model(settings, make_console(), join_ranks(join_world(None)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of every rank. Returns the exit code."""
    parser = argparse.ArgumentParser("harness.evaluation.rank")
    parser.add_argument("--config", required=True, help="YAML file of the settings")
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    start_tether()  # it ends when this process does
    code = 1  # what an unforeseen exception ends with
    try:
        evaluate_on_rank(load_settings(EvaluationSettings, Path(options.config)))
        code = 0
    except Exception as error:
        known = as_user_error(error)
        if known is None:
            raise
        code = known.exit_code
        explain_error(known)
    finally:
        record_exit(launch_dir_from_environment(), int(os.environ.get("RANK", "0")), code)
    if code == 0:
        leave_world()
    return code


if __name__ == "__main__":
    sys.exit(main())
