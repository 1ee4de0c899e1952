"""Measures what a run's devices and link can do at most: matrix products, copies, all-reduces.

All ranks measure at the same time, as they train at the same time: those of one host share its cores and its bus. The
matrices are square and large enough to keep the device busy, and the fastest turn counts. It takes a third of a
second on a CPU, a fifth of a second on a GPU, and what the link takes for some megabytes.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from functools import partial
from mmap import mmap

import torch

from harness.cards import match_card
from harness.dist import World, gather_objects, max_over_ranks, sum_over_ranks
from harness.memory.case import Precision
from harness.metering.ceilings import TERA, Ceilings, RankCeiling
from harness.model import DTYPES

GPU_SIZE, CPU_SIZE = 8192, 512
"""Rows and columns of the matrices. 512 keep two cores within a few percent of what 2,048 reach, in a hundredth of the
time."""

TURN_LIMIT = 20
CPU_LIMIT_S, CPU_TURN_LIMIT = 0.15, 100
"""No further turn is begun on a CPU after so many seconds of them: fewer would all lie beside a neighbour's work."""

COPY_BYTES = 2**26
"""Two buffers of it are far more than a last-level cache holds."""
GPU_COPY_BYTES = 2**30

FEW = 64
"""Numbers of the small all-reduce: as many as a step adds up, roughly."""

SMALLEST_BYTES, LARGEST_BYTES = 2**20, 2**26
LONG_ENOUGH_S = 0.004
"""A large all-reduce that takes less is tried with eight times the bytes, for its start does not show in it then."""


def measure_ceilings(world: World, precision: Precision) -> Ceilings:
    """Measure what this run's devices and link reach; every rank calls this, and all learn the same.

    Args:
        world: This rank's place.
        precision: What the run computes in.
    """
    ranks = tuple(gather_objects(describe_rank(world, precision)))
    if world.size == 1:
        return Ceilings(ranks)
    latency_s = time_allreduce(FEW * 8, world, turns=5)
    return Ceilings(ranks, measure_link(world), latency_s)


def describe_rank(world: World, precision: Precision) -> RankCeiling:
    """What this rank's device reaches."""
    device = world.device
    card = match_card(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    found = RankCeiling(
        rank=world.rank,
        host=socket.gethostname(),
        device=str(device),
        card=None if card is None else card.name,
        peak_tflops=None if card is None else card.bf16_tflops,
        matmul_tflops=measure_matmul(device, DTYPES[precision]),
        matmul_dtype=precision,
        copy_gb_per_s=measure_copy(device),
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the run finds the card as it was
    return found


def measure_matmul(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of the fastest of some square matrix products: what a training step could reach at best."""
    size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
    generator = torch.Generator(device).manual_seed(0)  # the run's own draws stay as they are
    left, right = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    return 2 * size**3 / time_fastest(partial(torch.mm, left, right), device) / TERA


def measure_copy(device: torch.device) -> float:
    """GB/s, read and written, of the fastest of some large copies within the device's memory."""
    if device.type == "cuda":
        source = torch.zeros(GPU_COPY_BYTES, dtype=torch.uint8, device=device)
        return (
            2 * GPU_COPY_BYTES / time_fastest(partial(torch.empty_like(source).copy_, source), device) / 1e9
        )
    return 2 * COPY_BYTES / _time_host_copy(device) / 1e9


def _time_host_copy(device: torch.device) -> float:
    # Pages of their own: memory that malloc gives back changes where it puts what comes after.
    with mmap(-1, COPY_BYTES) as first, mmap(-1, COPY_BYTES) as second:
        source = torch.frombuffer(first, dtype=torch.uint8).fill_(1)
        target = torch.frombuffer(second, dtype=torch.uint8)
        fastest = time_fastest(partial(target.copy_, source), device)
        del source, target  # a map that is still looked into cannot be closed
    return fastest


def time_fastest(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of an action's fastest turn, after one that does not count."""
    best, started = float("inf"), time.perf_counter()
    for turn in range((TURN_LIMIT if device.type == "cuda" else CPU_TURN_LIMIT) + 1):
        wait_for(device)
        start = time.perf_counter()
        action()
        wait_for(device)
        end = time.perf_counter()
        if turn:
            best = min(best, end - start)
            if device.type != "cuda" and end - started > CPU_LIMIT_S:
                break
    return best


def wait_for(device: torch.device) -> None:
    """Wait for all work of a GPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def measure_link(world: World) -> float:
    """Gb/s that each rank sends in a large all-reduce; see `Ceilings.allreduce_gbps`."""
    num_bytes = SMALLEST_BYTES
    while (
        seconds := time_allreduce(num_bytes, world, turns=2)
    ) < LONG_ENOUGH_S and num_bytes < LARGEST_BYTES:
        num_bytes *= 8
    return 8 * num_bytes * 2 * (world.size - 1) / world.size / seconds / 1e9


def time_allreduce(num_bytes: int, world: World, turns: int) -> float:
    """Seconds of an all-reduce: its median turn, on the rank where that was longest; the first turn does not count."""
    values = torch.zeros(num_bytes // 8, dtype=torch.float64, device=world.device)
    seconds = []
    for _ in range(turns + 1):
        wait_for(world.device)
        start = time.perf_counter()
        sum_over_ranks(values)
        wait_for(world.device)
        seconds.append(time.perf_counter() - start)
    median = torch.tensor(statistics.median(seconds[1:]), dtype=torch.float64, device=world.device)
    return float(max_over_ranks(median))
