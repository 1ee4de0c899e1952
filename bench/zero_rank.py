"""One rank of `bench zero`: opens a run at each ZeRO stage, takes their steps in turns, tells times and losses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.rank_group import say_result
from bench.training import Steps, open_run
from harness.config import RunConfig
from harness.dist import barrier, leave_world
from harness.memory.measured import measure_parts


def main(path: Path) -> None:
    """Take the steps that a file asks for.

    Args:
        path: JSON: `{"stages": {name: RunConfig as JSON}, "num_turns": N}`.
    """
    order = json.loads(path.read_text(encoding="utf-8"))
    configs = {name: RunConfig.model_validate(value) for name, value in order["stages"].items()}
    runs = {name: Steps(open_run(config)) for name, config in configs.items()}
    for _ in range(order["num_turns"] + 1):
        for run in runs.values():
            barrier()  # or a rank that is late from one stage would make the next one wait
            run.take()
    say_result(
        {
            name: {
                "seconds": run.seconds[1:],
                "losses": run.losses() if run.run.metrics else [],
                "examples": [len(run.examples(step)) for step in range(1, order["num_turns"] + 1)],
                "state_bytes": measure_parts(run.run.engine),
            }
            for name, run in runs.items()
        }
    )
    barrier()
    leave_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
