"""A rank that measures: all-reduce by size over all ranks, then every pair's latency and rate in both directions.

Run as a module on each host by `harness.cluster.doctor.link`, with the variables of a process group set. It prints
lines of JSON behind `MARK`, and ends when its standard input does, so that nothing is left where the connection broke.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import combinations
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from harness.cluster.doctor.sockets import find_used_addresses

MARK = "lyrics-link: "
TIMEOUT = timedelta(seconds=60)
CPU_SIZES = tuple(1 << power for power in (10, 13, 16, 18, 20, 22, 24, 26))
GPU_SIZES = (*CPU_SIZES, 1 << 28, 1 << 29)
BUDGET_S, LONGEST_S = 0.5, 5.0
"""Seconds for the repetitions of a size; a size that is expected to take longer than the second is left out."""

MIN_REPEATS, MAX_REPEATS = 3, 20
NUM_PINGS = 20
PAIR_FIRST_BYTES = 1 << 20
PAIR_ENOUGH_S = 0.25


@dataclass(frozen=True, slots=True)
class Bench:
    """The process group as seen from one rank."""

    rank: int
    size: int
    device: torch.device
    sizes: tuple[int, ...]

    def buffer(self, num_bytes: int) -> torch.Tensor:
        """uint8[num_bytes] of zeros, or float32 of as many bytes where they divide by four."""
        if num_bytes % 4:
            return torch.zeros(num_bytes, dtype=torch.uint8, device=self.device)
        return torch.zeros(num_bytes // 4, dtype=torch.float32, device=self.device)

    def time(self, action: Callable[[], object]) -> float:
        """Seconds that an action takes until the device is done."""
        self._settle()
        began_s = time.perf_counter()
        action()
        self._settle()
        return time.perf_counter() - began_s

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def agree(self, seconds: float) -> float:
        """The longest of all ranks' times, on every rank."""
        longest = torch.tensor([seconds], device=self.device)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        return float(longest)


def say(**value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print a line of JSON."""
    print(f"{MARK}{json.dumps(value)}", flush=True)


def main() -> None:
    """Join the group, measure, tell."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    say(joining=True)
    try:
        bench = join()
        reduces = measure_reduces(bench)
        pairs = measure_pairs(bench)
    except (RuntimeError, ValueError, OSError) as error:  # torch.distributed raises these
        say(error=str(error).splitlines()[0] if str(error) else type(error).__name__)
        sys.exit(1)
    used = find_used_addresses({int(os.environ["MASTER_PORT"])})
    say(result={"backend": dist.get_backend(), "reduces": reduces, "pairs": pairs, "used": used})
    dist.barrier()
    dist.destroy_process_group()


def _end_with_input() -> None:
    while sys.stdin.buffer.read(1 << 10):
        pass
    os._exit(1)


def join() -> Bench:
    """Join by the variables that a launcher sets; NCCL where every rank has a device, else gloo."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, size, is_master=rank == 0, timeout=TIMEOUT)
    has_gpu = os.environ.get("DS_ACCELERATOR") != "cpu" and torch.cuda.is_available()
    store.set(f"gpu/{rank}", "1" if has_gpu else "0")
    on_gpu = all(store.get(f"gpu/{other}") == b"1" for other in range(size))
    device = torch.device("cpu")
    if on_gpu:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT
    )
    return Bench(rank, size, device, GPU_SIZES if on_gpu else CPU_SIZES)


def measure_reduces(bench: Bench) -> list[dict[str, float]]:
    """Bytes and median seconds of an all-reduce, size by size."""
    found: list[dict[str, float]] = []
    for num_bytes in bench.sizes:
        expected = found[-1]["median_s"] * num_bytes / found[-1]["bytes"] if found else 0.0
        if bench.agree(expected) > LONGEST_S:
            break
        reduce = partial(dist.all_reduce, bench.buffer(num_bytes))
        first = bench.agree(bench.time(reduce))
        repeats = round(min(MAX_REPEATS, max(MIN_REPEATS, BUDGET_S / max(first, 1e-6))))
        times = [bench.time(reduce) for _ in range(repeats)]
        found.append({"bytes": num_bytes, "median_s": statistics.median(times)})
        say(size=num_bytes)
    return found


def measure_pairs(bench: Bench) -> list[dict[str, float]]:
    """For each pair whose lower rank this is: latency, and bytes a second there and back."""
    found = []
    for low, high in combinations(range(bench.size), 2):
        dist.barrier()
        say(pair=[low, high])
        if bench.rank not in (low, high):
            continue
        other = high if bench.rank == low else low
        latency_s = _measure_latency(bench, other, starts=bench.rank == low)
        there = _measure_rate(bench, other, sends=bench.rank == low)
        back = _measure_rate(bench, other, sends=bench.rank == high)
        if bench.rank == low:
            pair = {"low": low, "high": high, "latency_s": latency_s}
            found.append({**pair, "there_bytes_per_s": there, "back_bytes_per_s": back})
    dist.barrier()
    return found


def _measure_latency(bench: Bench, other: int, *, starts: bool) -> float:
    """Half the median round trip of four bytes, in seconds."""
    token = bench.buffer(4)

    def trip() -> None:
        for sends in (starts, not starts):
            dist.send(token, other) if sends else dist.recv(token, other)

    times = [bench.time(trip) for _ in range(NUM_PINGS + 3)]
    return statistics.median(times[3:]) / 2


def _measure_rate(bench: Bench, other: int, *, sends: bool) -> float:
    """Bytes a second from the one that sends, who times until a word comes back; the same figure on both ranks."""
    token, num_bytes = bench.buffer(4), PAIR_FIRST_BYTES
    while True:
        once = partial(_pass, bench.buffer(num_bytes), token, other, sends=sends)
        seconds = min(bench.time(once) for _ in range(2))
        told = torch.tensor([seconds], device=bench.device)
        dist.send(told, other) if sends else dist.recv(told, other)
        if float(told) >= PAIR_ENOUGH_S or num_bytes >= bench.sizes[-1]:
            return num_bytes / float(told)
        num_bytes *= 4


def _pass(tensor: torch.Tensor, token: torch.Tensor, other: int, *, sends: bool) -> None:
    if sends:
        dist.send(tensor, other)
        dist.recv(token, other)
    else:
        dist.recv(tensor, other)
        dist.send(token, other)


if __name__ == "__main__":
    main()
