"""How long does a sum over three ranks take, size by size, against a sum through rank 0; what carries each link?

Where this user may make network namespaces, the ranks sit on three hosts of their own, which a bridge joins; else they
talk over loopback. Either is this machine's memory: what is measured is gloo and the kernel's network code, and real
cables are measured by `python -m harness bench-link` on real hosts.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.link_rank import ALL_REDUCE, THROUGH_FIRST, WAYS
from bench.rank_group import PORT, run_module
from bench.record import Figure, Outcome, compare, costs, summarize
from harness.cluster.doctor.link_report import GIGA
from tests.cluster import Cluster, missing_means, start_on, three_hosts

NUM_RANKS = 3


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured: bytes of the tensors, timed turns."""

    bytes: tuple[int, ...]
    num_turns: int


FULL = Size((1 << 10, 1 << 13, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26), 15)
QUICK = Size((1 << 10, 1 << 16, 1 << 20, 1 << 22), 9)


def measure(*, quick: bool) -> Outcome:
    """Time the sums.

    Raises:
        WrongResultError: A rank failed, or a sum is wrong.
    """
    size = QUICK if quick else FULL
    reason = missing_means()
    if reason:
        return report(run_module("bench.link_rank", [_order(size)], NUM_RANKS), size, f"loopback: {reason}")
    with TemporaryDirectory(prefix="bench-") as name, three_hosts(Path(name)) as cluster:
        ranks = run_module(
            "bench.link_rank",
            [_order(size)],
            NUM_RANKS,
            start=partial(start_in, cluster),
            address=cluster.hosts[0].address,
            port=PORT,
        )
    return report(ranks, size, "three network namespaces of this machine, joined by a bridge")


def _order(size: Size) -> str:
    return json.dumps({"sizes": size.bytes, "num_turns": size.num_turns})


def start_in(
    cluster: Cluster, rank: int, command: Sequence[str], variables: Mapping[str, str]
) -> subprocess.Popen[str]:
    """On the rank's own host."""
    return start_on(cluster.hosts[rank], command, {**variables, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"})


def report(ranks: Sequence[Mapping[str, Any]], size: Size, link: str) -> Outcome:
    """Times of the slowest rank, as a cost, a rate and a ratio.

    Args:
        ranks: What each rank said.
        size: What was measured.
        link: Between the ranks, in words.
    """
    figures: dict[str, Figure] = {}
    ratios: dict[str, Figure] = {}
    for num_bytes in size.bytes:
        seconds = {way: slowest(ranks, num_bytes, way) for way in WAYS}
        name = name_size(num_bytes)
        for way, values in seconds.items():
            figures[f"{way} {name}: us"] = summarize(costs(values, 1), "us")
        figures[f"{ALL_REDUCE} {name}: bus_gb_per_s"] = summarize(
            [bus_bytes(num_bytes, len(ranks)) / s / GIGA for s in seconds[ALL_REDUCE]], "GB/s"
        )
        ratios[f"{ALL_REDUCE} {name}"] = compare(seconds[THROUGH_FIRST], seconds[ALL_REDUCE])
    pairs = [pair for rank in ranks for pair in rank["pairs"]]
    figures["pairs: latency_us"] = summarize([1e6 * pair["latency_s"] for pair in pairs], "us")
    rates = [pair[f"{way}_bytes_per_s"] / GIGA for pair in pairs for way in ("there", "back")]
    figures["pairs: gb_per_s"] = summarize(rates, "GB/s")
    return Outcome(
        baseline=THROUGH_FIRST,
        figures=figures,
        ratios=ratios,
        facts={
            "link": link,
            "backend": "gloo",
            "ranks": len(ranks),
            "cores": len(os.sched_getaffinity(0)),
            "bus": "2 (n - 1) / n of the tensor, what each link carries in a ring",
        },
    )


def slowest(ranks: Sequence[Mapping[str, Any]], num_bytes: int, way: str) -> list[float]:
    """Seconds of each turn on the rank that took longest."""
    return [max(turn) for turn in zip(*(rank["sizes"][str(num_bytes)][way] for rank in ranks), strict=True)]


def bus_bytes(num_bytes: int, num_ranks: int) -> float:
    """What each link carries in a ring; see `harness.cluster.doctor.link_report.ReduceTime`."""
    return num_bytes * 2 * (num_ranks - 1) / num_ranks


def name_size(num_bytes: int) -> str:
    """As in "64 KiB"."""
    return f"{num_bytes >> 20} MiB" if num_bytes >= 1 << 20 else f"{num_bytes >> 10} KiB"
