from __future__ import annotations

import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.dist_ranks import RankFailedError, run_ranks


def add_ranks(offset: int) -> tuple[int, float]:
    total = torch.tensor([float(dist.get_rank() + offset)])
    dist.all_reduce(total)
    assert int(os.environ["RANK"]) == dist.get_rank()
    return dist.get_rank(), float(total)


def fail_on_rank_1_while_the_others_wait() -> None:
    if dist.get_rank() == 1:
        raise KeyError("the reason")
    dist.barrier()


def die_or_sleep(dies: bool) -> None:
    if dies:
        os._exit(17)
    time.sleep(60)


def test_every_rank_takes_part_and_results_come_in_order_of_rank() -> None:
    assert run_ranks(add_ranks, 3, 10) == [(0, 33.0), (1, 33.0), (2, 33.0)]


def test_a_failure_carries_the_traceback_of_its_rank() -> None:
    with pytest.raises(RankFailedError, match=r"(?s)rank 1 raised.*fail_on_rank_1.*the reason"):
        run_ranks(fail_on_rank_1_while_the_others_wait, 2)


def test_a_rank_that_dies_or_hangs_ends_the_run() -> None:
    with pytest.raises(RankFailedError, match="exit code 17"):
        run_ranks(die_or_sleep, 1, True)
    with pytest.raises(TimeoutError, match=r"\[0\]"):
        run_ranks(die_or_sleep, 1, False, timeout_s=1)
