"""A rank for the guard's tests: real processes, guardians and signals, with a toy in place of training.

    python guard_program.py '{"run_dir": FOLDER, "num_steps": 20, ...}'

with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment. Ranks meet in collectives over TCP that break as
gloo's do when a peer dies, and wait for ever when it does nothing. Keys:

    hold       a phase in which every rank writes `here-<rank>`, then stays with its work
    hang       {"rank": R, "step": S}: that rank sleeps for ever in its own work
    fail       {"rank": R, "step": S, "code": C}: that rank ends with an error
    step_s     seconds of a step, or {"<rank>": seconds}
    limits     of `harness.guard.verdict.Limits`
    enabled    whether there are guardians
    broken     Python that the guardians run before they start: a broken build of them
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from harness.cluster.outcome import launch_dir_from_environment, record_exit
from harness.guard import rank as rank_module
from harness.guard.board import STEPPING, Phase
from harness.guard.marks import MARKS
from harness.guard.rank import RankGuard
from harness.guard.verdict import Limits


class Ring:
    """Collectives of all ranks over rank 0."""

    def __init__(self, rank: int, size: int) -> None:
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        self.rank, self.files = rank, []
        if rank == 0:
            server = socket.create_server(address, backlog=size)
            self.files = [server.accept()[0].makefile("rw") for _ in range(size - 1)]
        while rank and not self.files:
            try:
                connection = socket.create_connection(address, timeout=60)
                connection.settimeout(None)
                self.files = [connection.makefile("rw")]
            except OSError:
                time.sleep(0.05)

    def gather(self, value: Any) -> list[Any]:
        with MARKS.waiting():
            if self.rank == 0:
                found = sorted([[0, value], *(self._read(file) for file in self.files)])
                for file in self.files:
                    self._write(file, found)
            else:
                self._write(self.files[0], [self.rank, value])
                found = self._read(self.files[0])
            return [one for _, one in found]

    def _write(self, file: Any, value: Any) -> None:
        file.write(json.dumps(value) + "\n")
        file.flush()

    def _read(self, file: Any) -> Any:
        line = file.readline()
        if not line:
            raise RuntimeError("Connection closed by peer")
        return json.loads(line)


class ToldError(Exception):
    """An error with an exit code."""


def run(config: dict[str, Any], rank: int, guard: RankGuard) -> int:
    """Returns the exit code."""
    ring = Ring(rank, int(os.environ["WORLD_SIZE"]))
    print(guard.connect(ring.gather) or "connected", flush=True)
    hold: Phase | None = config.get("hold")
    if hold is not None and hold not in STEPPING:
        stay(config, hold, rank)
    step_s = config.get("step_s", 0.0)
    own_s = step_s.get(str(rank), 0.0) if isinstance(step_s, dict) else step_s
    for step in range(config.get("num_steps", 5)):
        MARKS.enter("step")
        (Path(config["run_dir"]) / f"stepping-{rank}").touch()
        begin_s = time.monotonic()
        if own_s:
            time.sleep(own_s)
        busy_s = time.monotonic() - begin_s
        act(config, rank, step)
        stop = max(ring.gather(MARKS.asked_to_stop()))
        MARKS.end_step(step + 1, time.monotonic() - begin_s, {"forward": busy_s})
        for event in MARKS.take_events():
            print(json.dumps(event), flush=True)
        if stop:
            (Path(config["run_dir"]) / f"saved-{rank}").write_text(str(step + 1))
            raise ToldError(128 + stop)
        if step == 2 and hold is not None:
            stay(config, hold, rank)
    MARKS.enter("finish")
    return 0


def stay(config: dict[str, Any], phase: Phase, rank: int) -> None:
    """Be in a phase for long, with its marks; a stop ends it where a step would."""
    MARKS.enter(phase)
    (Path(config["run_dir"]) / f"here-{rank}").write_text(str(os.getpid()))
    while not (MARKS.asked_to_stop() and MARKS.is_stepping()):
        time.sleep(0.02)
        MARKS.beat()


def act(config: dict[str, Any], rank: int, step: int) -> None:
    hang, fail = config.get("hang", {}), config.get("fail", {})
    if (hang.get("rank"), hang.get("step")) == (rank, step):
        sleep_in_own_work()
    if (fail.get("rank"), fail.get("step")) == (rank, step):
        raise ToldError(fail["code"])


def sleep_in_own_work() -> None:
    time.sleep(600)


def main() -> int:
    config, rank = json.loads(sys.argv[1]), int(os.environ["RANK"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    limits = Limits(**config.get("limits", {})) if config.get("enabled", True) else None
    guard = RankGuard(limits, Path(config["run_dir"]), launch_dir_from_environment())
    if config.get("broken"):
        rank_module._GUARDIAN = [
            "-S",
            "-c",
            f"import harness.guard.process\n{config['broken']}\nharness.guard.process.main()",
        ]
    guard.start()
    code = 1
    try:
        code = run(config, rank, guard)
    except ToldError as error:
        code = int(error.args[0])
        guard.settle(code)
    except Exception:  # as in training: a broken collective is no error of one's own
        guard.settle(code)
        raise
    finally:
        record_exit(launch_dir_from_environment(), rank, code)
    if code == 0:
        guard.leave()
    return code


if __name__ == "__main__":
    sys.exit(main())
