"""kill -9 at random moments of a run that `harness launch` started on three hosts, and the way on from there."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.faults.disk import go_on
from bench.faults.hosts import (
    LEFT_OVER_S,
    NODE_LAUNCHER,
    Hosts,
    command_line,
    find_processes,
    hosts_at,
    wait_for,
)
from bench.faults.ranks import ROOT, ForkServer, fork_server, rank_environment
from bench.faults.setting import Reference, Setting, make_reference, steps_done
from bench.faults.trial import Trial
from harness.cluster.keeper import SILENCE_S
from tests.cluster import start_on

Target = Literal["rank", "launcher", "runner", "pdsh", "ssh", "launch", "host"]
TARGETS: tuple[Target, ...] = ("rank", "launcher", "host", "ssh", "runner", "launch", "pdsh")
START_TIMEOUT_S, END_TIMEOUT_S = 180.0, 120.0
LOST = 6
SHARE_AT_START = 0.1
"""Part of the kills that come before the first step."""


@dataclass(frozen=True, slots=True)
class Kill:
    """What is killed and when.

    Attributes:
        target: rank, launcher (of a node), runner (deepspeed), pdsh, ssh (to a host), launch (`harness launch`) or
            host (all of its processes, and the link).
        host: Index of the host where the victim lives or leads to.
        step: Steps that metrics.jsonl must show first; 0 for a kill as soon as the ranks exist.
        delay_s: Seconds after that.
    """

    target: Target
    host: int
    step: int
    delay_s: float

    def __str__(self) -> str:
        """As in "kill -9 of the rank on host 2, 0.13 s after step 17"."""
        return f"kill -9 of the {self.target} on host {self.host + 1}, {self.delay_s:.2f} s after step {self.step}"


def draw_kills(setting: Setting, number: int, seed: int) -> list[Kill]:
    """So many kills, the targets in turn, hosts and moments at random."""
    chance = random.Random(seed)
    kills = []
    for index in range(number):
        target = TARGETS[index % len(TARGETS)]
        host = 0 if target in ("runner", "pdsh", "launch") else chance.randrange(3)
        step = 0 if chance.random() < SHARE_AT_START else chance.randrange(1, setting.num_steps - 3)
        kills.append(Kill(target, host, step, chance.uniform(0, 3.0 if step == 0 else 0.3)))
    return kills


def run_kills(setting: Setting, number: int, seed: int) -> Iterator[Trial]:
    """Kill so often; each run is resumed by three ranks of this machine."""
    with fork_server() as server, hosts_at(setting.root / "cluster", with_servers=False) as hosts:
        reference = make_reference(setting, [server] * 3, "kills-reference")
        for index, kill in enumerate(draw_kills(setting, number, seed)):
            yield try_kill(setting, hosts, server, reference, kill, f"kill-{index}")


def launch(setting: Setting, hosts: Hosts, config: Path, *flags: str) -> subprocess.Popen[str]:
    """`harness launch` on the first host."""
    hostfile = hosts.cluster.write_hostfile(setting.root / "hostfile")
    command = [
        sys.executable,
        "-m",
        "harness",
        "launch",
        "--hostfile",
        str(hostfile),
        "--config",
        str(config),
    ]
    return start_on(hosts.cluster.hosts[0], [*command, *flags], rank_environment(), ROOT)


def try_kill(
    setting: Setting, hosts: Hosts, server: ForkServer, reference: Reference, kill: Kill, name: str
) -> Trial:
    """One kill, the end of everything, and the way on."""
    config, run_dir = setting.write_config(name), setting.run_dir(name)
    process = launch(setting, hosts, config)
    try:
        reached = wait_for(
            lambda: process.poll() is not None or is_due(hosts, kill, run_dir), START_TIMEOUT_S
        )
        time.sleep(kill.delay_s)
        if not reached or process.poll() is not None:
            process.kill()
            printed, _ = process.communicate()
            return Trial(
                "kill", str(kill), (f"the run was over before: {process.returncode}: {printed[-500:]}",)
            )
        since_s = time.monotonic()
        hit = strike(hosts, kill, process)
        code, printed = wait_for_end(process)
        detect_s = time.monotonic() - since_s
        # Where the launch itself is gone, the other hosts notice only that nothing is heard of it.
        left = hosts.wait_until_clean(LEFT_OVER_S + (SILENCE_S if kills_launch(kill) else 0.0))
        if kills_launch(kill):
            detect_s = time.monotonic() - since_s
    finally:
        process.kill()
        if kill.target == "host":
            hosts.revive_host(hosts.cluster.hosts[kill.host])
    problems = [] if hit else ["nothing of that kind ran"]
    problems += judge_code(hosts, kill, code, printed)
    problems += [f"left running after {detect_s:.0f} s: {shorten(left)}"] if left else []
    arguments = ["--config", str(config)]
    trial = go_on([server] * 3, setting, reference, name, arguments, str(kill), kind="kill")
    return Trial("kill", str(kill), (*problems, *trial.problems), trial.lost_steps, trial.wrong, detect_s)


def is_due(hosts: Hosts, kill: Kill, run_dir: Path) -> bool:
    """Whether the run has come to the kill's step."""
    if kill.step:
        return steps_done(run_dir) >= kill.step
    return bool(find_processes(hosts.cluster.hosts[kill.host], "rank"))


def strike(hosts: Hosts, kill: Kill, process: subprocess.Popen[str]) -> bool:
    """Kill; False when there was nothing to kill."""
    first, host = hosts.cluster.hosts[0], hosts.cluster.hosts[kill.host]
    if kill.target == "host":
        hosts.kill_host(host)
        return True
    if kill.target == "launch":
        victims = [process.pid]
    elif kill.target == "ssh":
        lines = {pid: command_line(pid) for pid in find_processes(first, "ssh")}
        leading = [pid for pid, line in lines.items() if host.name in line and NODE_LAUNCHER in line]
        victims = leading or [pid for pid, line in lines.items() if host.name in line]
    else:
        victims = find_processes(host, kill.target)
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(victims)


def wait_for_end(process: subprocess.Popen[str]) -> tuple[int | None, str]:
    """The exit code of the launch and what it printed; None when it did not end."""
    try:
        printed, _ = process.communicate(timeout=END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        return None, ""
    return process.returncode, printed


def kills_launch(kill: Kill) -> bool:
    """Whether the launch itself dies, so that its end says nothing."""
    return kill.target == "launch" or (kill.target == "host" and kill.host == 0)


def judge_code(hosts: Hosts, kill: Kill, code: int | None, printed: str) -> list[str]:
    """What is wrong with the launch's own end."""
    if kills_launch(kill):
        return []
    problems = [] if code == LOST else [f"ended with {code}, not {LOST}"]
    name = hosts.cluster.hosts[kill.host].name
    errors = " ".join(re.findall(r"(?m)^error.*", printed))
    if kill.target in ("rank", "launcher", "ssh", "host") and name not in errors:
        problems.append(f"the error does not name {name}: {errors[-300:]}")
    return problems


def shorten(left: dict[int, str]) -> list[str]:
    """Command lines, cut."""
    return sorted(line[:90] for line in left.values())
