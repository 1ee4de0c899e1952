"""Start the same module on several ranks, of this machine or of hosts in namespaces, and gather what each says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.record import WrongResultError

MARK = "bench-rank: "
TIMEOUT_S = 600.0
PORT = 29_411

Start = Callable[[int, Sequence[str], Mapping[str, str]], "subprocess.Popen[str]"]
"""Starts a command as a rank with variables on top of the caller's own; stderr goes into stdout."""


def say_result(value: Mapping[str, Any]) -> None:
    """What a rank's program says at its end."""
    print(f"{MARK}{json.dumps(value, allow_nan=False)}", flush=True)


def start_here(rank: int, command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[str]:
    """On this machine."""
    return subprocess.Popen(
        command,
        env={**os.environ, **variables, "LOCAL_RANK": str(rank)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def find_port() -> int:
    """A port that is free on this machine now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_module(
    module: str,
    arguments: Sequence[str],
    num_ranks: int,
    *,
    start: Start = start_here,
    address: str = "127.0.0.1",
    port: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[dict[str, Any]]:
    """Run a module on every rank, and return what each said by `say_result`; see `run_ranks`.

    Raises:
        WrongResultError: A rank failed, said nothing, or was not done in time.
    """
    outputs = run_ranks(
        module, arguments, num_ranks, start=start, address=address, port=port, timeout_s=timeout_s
    )
    return [_read(module, rank, output) for rank, output in enumerate(outputs)]


def run_ranks(
    module: str,
    arguments: Sequence[str],
    num_ranks: int,
    *,
    start: Start = start_here,
    address: str = "127.0.0.1",
    port: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[str]:
    """Run a module on every rank, one thread each, and return what each wrote.

    Args:
        module: Runs by `python -m`.
        arguments: Its own.
        num_ranks: Processes.
        start: Where they are started.
        address: At which rank 0 is found.
        port: There; None for one that is free on this machine.
        timeout_s: Until all ranks must be done.

    Raises:
        WrongResultError: A rank failed, or was not done in time.
    """
    variables = {
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(find_port() if port is None else port),
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        ).rstrip(os.pathsep),
    }
    command = [sys.executable, "-m", module, *arguments]
    ranks = [start(rank, command, {**variables, "RANK": str(rank)}) for rank in range(num_ranks)]
    try:
        # All at once: a rank whose pipe is full stands still, and the others with it.
        with ThreadPoolExecutor(num_ranks) as pool:
            outputs = list(pool.map(lambda rank: rank.communicate(timeout=timeout_s)[0], ranks))
    except subprocess.TimeoutExpired:
        raise WrongResultError(f"{module}: {num_ranks} ranks were not done within {timeout_s:g} s") from None
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for number, (process, output) in enumerate(zip(ranks, outputs, strict=True)):
        if process.returncode:
            raise WrongResultError(
                f"{module}: rank {number} ended with {process.returncode}: {last_line(output)}"
            )
    return outputs


def last_line(output: str) -> str:
    """What a program that failed said last."""
    return (output.strip().splitlines() or ["it said nothing"])[-1]


def _read(module: str, rank: int, output: str) -> dict[str, Any]:
    """The result among a rank's lines.

    Raises:
        WrongResultError: There is none.
    """
    said = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
    if not said:
        raise WrongResultError(f"{module}: rank {rank} told no result: {last_line(output)}")
    result: dict[str, Any] = json.loads(said[-1])
    return result
