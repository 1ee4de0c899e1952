"""One rank of `bench link`: sums a tensor over all ranks by two ways in turns, size by size, and measures each pair."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from bench.rank_group import say_result
from bench.record import WrongResultError
from harness.cluster.doctor.link_rank import join, measure_pairs

ALL_REDUCE, THROUGH_FIRST = "all_reduce", "through_rank_0"


def through_first(tensor: torch.Tensor) -> None:
    """Every rank's tensor to rank 0, which adds them up and sends the sum to all."""
    dist.reduce(tensor, dst=0)
    dist.broadcast(tensor, src=0)


WAYS: dict[str, Callable[[torch.Tensor], object]] = {
    THROUGH_FIRST: through_first,
    ALL_REDUCE: dist.all_reduce,
}


def time_size(num_bytes: int, num_turns: int) -> dict[str, list[float]]:
    """Seconds of each turn of each way on this rank; the first turn is a warm-up.

    Raises:
        WrongResultError: A sum is wrong.
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    own = torch.arange(num_bytes // 4, dtype=torch.float32) % 1000 + rank
    expected = size * (own - rank) + size * (size - 1) / 2  # whole numbers below 2^24: exact
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(-1, num_turns):
        for way, run in WAYS.items():
            tensor = own.clone()
            dist.barrier()
            started = time.perf_counter()
            run(tensor)
            elapsed = time.perf_counter() - started
            check_sum(way, tensor, expected)
            if turn >= 0:
                seconds[way].append(elapsed)
    return seconds


def check_sum(way: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Refuse times of a sum that is wrong.

    Raises:
        WrongResultError: A value differs.
    """
    if not torch.equal(found, expected):
        wrong = int((found != expected).sum())
        raise WrongResultError(f"{way}: {wrong} of {expected.numel()} sums over ranks are wrong")


def main(order: str) -> None:
    """Measure what is asked for.

    Args:
        order: JSON: `{"sizes": [bytes …], "num_turns": N}`.
    """
    values = json.loads(order)
    torch.set_num_threads(1)
    bench = join()
    sizes = {str(size): time_size(size, values["num_turns"]) for size in values["sizes"]}
    say_result({"sizes": sizes, "pairs": measure_pairs(bench)})
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
