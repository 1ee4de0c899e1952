"""What the restart tests start on every rank: it counts steps, saves now and then, and dies where its config says.

The config is JSON: {"num_steps": N, "save_every": N, "deaths": [[RANK, STEP], …]}; in attempt number i (from 0) the
i-th pair kills that rank in that step. Rank 0 writes what a run writes: metrics.jsonl and folders checkpoint-<step>.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from harness.cluster.keeper import last_step, newest_checkpoint
from harness.cluster.launch import launch_dir_from_environment, record_exit


def find_first_step(run_dir: Path, *, resume: bool) -> int:
    """The step before the first one; ends as a run would that may not start so."""
    checkpoint = newest_checkpoint(run_dir)
    if resume and checkpoint is None:
        sys.exit(5)
    if not resume and (checkpoint is not None or last_step(run_dir) is not None):
        sys.exit(2)
    return checkpoint or 0


def main() -> int:
    launch_dir = launch_dir_from_environment()
    assert launch_dir is not None
    run_dir, rank = launch_dir.parent.parent, int(os.environ["RANK"])
    config = json.loads((launch_dir / "config.yaml").read_text())
    attempt = sum(path.is_dir() for path in launch_dir.parent.iterdir()) - 1
    deaths = config["deaths"]
    death = deaths[attempt] if attempt < len(deaths) else None
    if rank == 0:
        first = find_first_step(run_dir, resume="--resume" in sys.argv)
        with (run_dir / "metrics.jsonl").open("a") as file:
            for step in range(first + 1, config["num_steps"] + 1):
                time.sleep(config.get("step_s", 0.05))
                file.write(json.dumps({"step": step, "world_size": int(os.environ["WORLD_SIZE"])}) + "\n")
                file.flush()
                if death and death[1] == step:
                    time.sleep(0.5 if death[0] == 0 else 300)
                    os.kill(os.getpid(), signal.SIGKILL)
                if step % config["save_every"] == 0:
                    (run_dir / f"checkpoint-{step}").mkdir(exist_ok=True)
    elif death and death[0] == rank:
        while last_step(run_dir) != death[1]:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    record_exit(launch_dir, rank, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
