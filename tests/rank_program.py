"""What the launch tests start on every rank: it reports what it sees and ends as its config says.

The config is JSON (and so YAML): {"reports": FOLDER, "ends": {"<rank>": ACTION}, "secret": TEXT, "tether": BOOL}. The
actions:

    reduce             all-reduce the ranks' numbers over gloo, exit 0 (what a rank does that is not listed)
    plain              exit 0 without a process group
    exit:N             record N, exit with N
    fail               end with a traceback
    vanish             exit 0 without a record
    kill, kill-parent  SIGKILL for itself, or for its launcher
    orphan             SIGKILL for its launcher, then end without a record two seconds later
    sleep              sleep for five minutes
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from harness.cluster.launch import launch_dir_from_environment, record_exit
from harness.cluster.tether import start_tether


def reduce_ranks(rank: int) -> float:
    """The sum of rank + 1 over all ranks, through DeepSpeed's communication layer."""
    import torch

    from harness.dist import join_world, leave_world, sum_over_ranks

    torch.set_num_threads(1)
    join_world(int(os.environ["WORLD_SIZE"]))
    total = sum_over_ranks(torch.tensor([rank + 1.0]))
    leave_world()
    return float(total)


def is_on_a_command_line(text: str) -> bool:
    """Whether any process of this machine shows `text` to everybody who lists the processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if text.encode() in path.read_bytes():
                return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--local_rank", type=int)
    options, rest = parser.parse_known_args()
    config = json.loads(options.config.read_text())
    if config.get("tether"):
        start_tether()
    rank = int(os.environ["RANK"])
    action = config.get("ends", {}).get(str(rank), "reduce")
    report = {
        "pid": os.getpid(),
        "world_size": int(os.environ["WORLD_SIZE"]),
        "addresses": subprocess.check_output(["hostname", "-I"], text=True).split(),
        "host": socket.gethostbyname(socket.gethostname()),
        "environment": dict(os.environ),
        "secret_shown": "secret" in config and is_on_a_command_line(config["secret"]),
        "config": str(options.config),
        "rest": rest,
        "total": reduce_ranks(rank) if action == "reduce" else None,
    }
    new = Path(config["reports"]) / f"rank-{rank}.new"
    new.write_text(json.dumps(report))
    new.rename(new.with_suffix(".json"))
    return end(action, rank)


def end(action: str, rank: int) -> int:
    name, _, code = action.partition(":")
    if name == "fail":
        raise RuntimeError("this rank fails on purpose")
    if name == "vanish":
        os._exit(0)
    if name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if name in ("kill-parent", "orphan"):
        os.kill(os.getppid(), signal.SIGKILL)
    if name == "orphan":
        time.sleep(2)
        os._exit(0)
    if name in ("kill-parent", "sleep"):
        time.sleep(300)
    record_exit(launch_dir_from_environment(), rank, int(code or 0))
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
