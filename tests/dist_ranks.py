"""Run one function on several gloo ranks of this machine and collect what each returned."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

T = TypeVar("T")


class RankFailedError(RuntimeError):
    """A rank raised or died; the message carries its traceback."""


def run_ranks(
    function: Callable[..., T],
    world_size: int,
    *args: Any,
    timeout_s: float = 120.0,
    env: Mapping[str, str] | None = None,
) -> list[T]:
    """Run `function(*args)` on `world_size` processes that share one gloo group.

    The group is up when `function` starts, so it asks `torch.distributed` for its rank. RANK, WORLD_SIZE,
    LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set as a launcher would set them, with one thread a rank and
    DS_ACCELERATOR=cpu, so `deepspeed.init_distributed` and `deepspeed.initialize` work too.

    Args:
        function: A picklable function (of a module's top level).
        world_size: Number of ranks.
        *args: Picklable arguments, the same for every rank.
        timeout_s: Seconds after which every rank is killed; also the timeout of a collective.
        env: Further environment variables of the ranks.

    Returns:
        What each rank returned, in order of rank.

    Raises:
        RankFailedError: A rank raised or died. The first one to do so is reported.
        TimeoutError: The ranks did not end in time.
    """
    # The parent serves the store, so the system picks a port and nobody else can take it in between.
    store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    settings = {"WORLD_SIZE": str(world_size), "MASTER_PORT": str(store.port), **(env or {})}
    processes: list[BaseProcess] = []
    pipes: dict[Connection, int] = {}
    try:
        for rank in range(world_size):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (function, args, rank, settings, timeout_s, sender)
            process: BaseProcess = context.Process(target=_serve_rank, args=arguments, daemon=True)
            process.start()
            sender.close()  # the rank holds the only writing end: its death reads as end of file
            processes.append(process)
            pipes[receiver] = rank
        return _collect(pipes, processes, timeout_s)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for receiver in pipes:
            receiver.close()


def _collect(pipes: dict[Connection, int], processes: list[BaseProcess], timeout_s: float) -> list[Any]:
    """Wait for a message of every rank; the first failure ends the wait."""
    deadline = time.monotonic() + timeout_s
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        waiting = [pipe for pipe, rank in pipes.items() if rank not in results]
        ready = wait(waiting, timeout=deadline - time.monotonic())
        if not ready:
            late = sorted(pipes[pipe] for pipe in waiting)
            raise TimeoutError(f"ranks {late} did not end within {timeout_s:g} s")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            rank = pipes[pipe]
            results[rank] = _receive(pipe, rank, processes[rank])
    return [results[rank] for rank in sorted(results)]


def _receive(pipe: Connection, rank: int, process: BaseProcess) -> Any:
    try:
        succeeded, value = pipe.recv()
    except EOFError:
        process.join(timeout=10)
        raise RankFailedError(f"rank {rank} died with exit code {process.exitcode}") from None
    if not succeeded:
        raise RankFailedError(f"rank {rank} raised:\n{value}")
    return value


def _serve_rank(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    rank: int,
    settings: Mapping[str, str],
    timeout_s: float,
    sender: Connection,
) -> None:
    """The body of one rank: join the group, run, send (True, result) or (False, traceback)."""
    os.environ.update(
        {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": str(rank)}
    )
    os.environ.update({"RANK": str(rank), "TORCHELASTIC_USE_AGENT_STORE": "True", **settings})
    try:
        import torch

        torch.set_num_threads(1)
        timeout = timedelta(seconds=timeout_s)
        store = TCPStore("127.0.0.1", int(settings["MASTER_PORT"]), None, is_master=False)
        world_size = int(settings["WORLD_SIZE"])
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)
        result = function(*args)
        dist.barrier()  # nobody leaves while another rank still needs its connection
        sender.send((True, result))
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001 - even SystemExit is a failure of this rank
        sender.send((False, traceback.format_exc()))
        time.sleep(timeout_s)  # killed by the parent; leaving now would make the other ranks fail as well
