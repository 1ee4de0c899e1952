"""Start ranks on the hosts as a run would, let them measure what they send each other, and gather it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.cluster.doctor.ask import (
    BOOTSTRAP,
    Answers,
    HostSilentError,
    end_program,
    ssh_command,
    start_program,
)
from harness.cluster.doctor.link_report import LinkReport, PairRate, ReduceTime
from harness.cluster.environment import (
    extend_python_path,
    read_user_file,
    select_travelling,
    withhold_secrets,
)
from harness.cluster.hostfile import Hostfile
from harness.cluster.hosts import needs_ssh
from preprocess.errors import PreflightError

MARK = "lyrics-link: "
SILENCE_S = 90.0
"""Seconds without a word: importing torch from a slow disk takes most of it."""

STARTER = Path(__file__).with_name("link_start.py")


def measure_links(hostfile: Hostfile, silence_s: float = SILENCE_S) -> LinkReport:
    """Measure between all hosts with one rank on each; on one host alone with as many ranks as it has slots.

    Raises:
        PreflightError: There are no two ranks, or a rank did not start, join or answer.
    """
    names = list(hostfile.names)
    if len(names) == 1:
        names *= hostfile.hosts[0].slots
    if len(names) < 2:
        raise PreflightError(f"{hostfile.path}: one rank sends nothing; name two hosts or give two slots")
    over_ssh = needs_ssh(hostfile)
    program = STARTER.read_text(encoding="utf-8")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name in names:
            command = ssh_command(name) if over_ssh else [sys.executable, "-c", BOOTSTRAP]
            processes.append(start_program(command, program))
        results = _guide(names, processes, silence_s)
    finally:
        for process in processes:
            end_program(process)
    return gather(names, results)


def _guide(
    names: Sequence[str], processes: Sequence[subprocess.Popen[bytes]], silence_s: float
) -> list[dict[str, Any]]:
    """Tell every rank its place, and wait for what it measured."""
    talks = [Answers(process, silence_s, MARK) for process in processes]
    places = [_read(name, talk, "port") for name, talk in zip(names, talks, strict=True)]
    # DeepSpeed sends the others to the first of these addresses.
    address = next(iter(places[0]["addresses"]), "127.0.0.1")
    for rank, process in enumerate(processes):
        group = {
            "RANK": rank,
            "WORLD_SIZE": len(names),
            "MASTER_ADDR": address,
            "MASTER_PORT": places[0]["port"],
        }
        local = {"LOCAL_RANK": rank if len(set(names)) == 1 else 0}
        variables = {**_run_environment(), **{name: str(value) for name, value in {**group, **local}.items()}}
        order = json.dumps({"folder": os.getcwd(), "variables": variables})
        assert process.stdin is not None
        process.stdin.write(f"{order}\n".encode())
        process.stdin.flush()
    with ThreadPoolExecutor(len(names)) as pool:
        waiting = [pool.submit(_read, name, talk, "result") for name, talk in zip(names, talks, strict=True)]
        return [future.result()["result"] for future in waiting]


def _read(name: str, talk: Answers, key: str) -> dict[str, Any]:
    try:
        return talk.read(key)
    except HostSilentError as error:
        raise PreflightError(f"{name}: {error}") from None


def _run_environment() -> dict[str, str]:
    """The variables that a run's ranks get on other hosts, without secrets."""
    kept, _ = withhold_secrets(os.environ)
    lines, _ = read_user_file(os.environ, Path.home(), Path.cwd())
    own = dict(line.split("=", maxsplit=1) for line in lines)
    return {
        **select_travelling(kept),
        **{name: os.path.expandvars(value) for name, value in own.items()},
        "PYTHONPATH": extend_python_path(kept, Path.cwd()),
    }


def gather(names: Sequence[str], results: Sequence[dict[str, Any]]) -> LinkReport:
    """One report of what the ranks measured: the slowest rank's median is the time of an all-reduce."""
    reduces = [
        ReduceTime(int(per_rank[0]["bytes"]), max(float(one["median_s"]) for one in per_rank), len(names))
        for per_rank in zip(*(result["reduces"] for result in results), strict=True)
    ]
    labels = [f"{name}:{rank}" if len(set(names)) == 1 else name for rank, name in enumerate(names)]
    pairs = [
        PairRate(
            (labels[int(pair["low"])], labels[int(pair["high"])]),
            float(pair["latency_s"]),
            float(pair["there_bytes_per_s"]),
            float(pair["back_bytes_per_s"]),
        )
        for result in results
        for pair in result["pairs"]
    ]
    used = {label: result["used"] for label, result in zip(labels, results, strict=True)}
    return LinkReport(str(results[0]["backend"]), tuple(labels), tuple(reduces), tuple(pairs), used)
