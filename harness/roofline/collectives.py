"""The collectives of an optimizer step, and their seconds on a link with latency and bandwidth (alpha-beta).

Over n ranks a ring takes for M bytes, with alpha seconds for each round and beta bytes a second on each link
(Thakur, Rabenseifner & Gropp 2005; Patarasuk & Yuan 2009)::

    all-gather, reduce-scatter     (n - 1) alpha +   (n - 1) / n M / beta
    all-reduce                   2 (n - 1) alpha + 2 (n - 1) / n M / beta

What DeepSpeed 0.19.8 calls in a step, with the harness's engine (a test on ranks compares)::

    every stage    all-reduce of the step's one vector: counts, losses, flags
    stage 0        all-reduce of the gradients, bucket by bucket
    stages 1, 2    the same; all-reduce of the norm; all-gather of the updated weights
    stage 3        in each micro-step the all-gathers of `harness.memory.gathering`; reduce-scatter of the gradients,
                   bucket by bucket; all-reduce of the norm; an all-gather for every small weight that stays whole

gloo has no reduce-scatter: torch does a whole all-reduce in its place (ProcessGroupGloo).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from harness.memory.case import MemoryCase
from harness.memory.gathering import list_gathers, list_persistent
from harness.memory.weights import trained_sizes
from harness.metering.ranks import NUM_TIMES

Kind = Literal["all_reduce", "all_gather", "reduce_scatter"]
Backend = Literal["gloo", "nccl"]

FLOAT32, FLOAT64 = 4, 8
COUNTS, STOP_FLAGS, METERED = 6, 2, 2
"""Numbers in the step's vector besides those of tasks, ranks and micro-steps; see `harness.step`."""


@dataclass(frozen=True, slots=True)
class Collective:
    """One call on all ranks.

    Attributes:
        kind: What it does.
        num_bytes: Of the whole tensor: what is summed, or what is there once it is gathered.
        what: It carries.
    """

    kind: Kind
    num_bytes: int
    what: Literal["vector", "gradients", "norm", "updated_weights", "gathered_weights"]


@dataclass(frozen=True, slots=True)
class Link:
    """What each host's link to the next takes.

    Attributes:
        latency_s: Seconds of one round of a ring, however short.
        bytes_per_s: Beyond that.
        backend: Whose collectives.
        source: Where the figures come from.
        within_hosts: Whether it tells of ranks on one host as well: a run measures between all of its ranks.
    """

    latency_s: float
    bytes_per_s: float
    backend: Backend = "nccl"
    source: str = "assumed"
    within_hosts: bool = False

    @classmethod
    def from_reduces(
        cls, reduces: Sequence[tuple[int, float]], ranks: int, backend: Backend, source: str
    ) -> Self:
        """Alpha and beta from all-reduces that were timed: the least and the largest size fix both.

        Args:
            reduces: Bytes and seconds, two sizes at least.
            ranks: That took part, at least 2.
            backend: Of them.
            source: Where they are from.
        """
        (small, small_s), (large, large_s) = min(reduces), max(reduces)
        rounds = 2 * (ranks - 1)
        seconds_a_byte = max(large_s - small_s, 1e-12) / (large - small)
        latency_s = max(small_s - small * seconds_a_byte, 0.0) / rounds
        return cls(latency_s, rounds / ranks / seconds_a_byte, backend, source)

    @classmethod
    def from_report(cls, report: Mapping[str, Any], source: str) -> Self:
        """From what `harness bench-link --json` printed (`harness.cluster.doctor.link_report.LinkReport.to_json`)."""
        reduces = [(int(one["bytes"]), float(one["median_s"])) for one in report["reduces"]]
        return cls.from_reduces(reduces, len(report["hosts"]), report["backend"], source)

    @property
    def gbps(self) -> float:
        """Gigabits a second."""
        return 8 * self.bytes_per_s / 1e9

    def rounds(self, kind: Kind, ranks: int) -> int:
        """Rounds of a ring in each of which every rank sends an n-th of the tensor."""
        twice = kind == "all_reduce" or (kind == "reduce_scatter" and self.backend == "gloo")
        return (2 if twice else 1) * (ranks - 1)

    def bytes_sent(self, collective: Collective, ranks: int) -> float:
        """Bytes that a rank sends."""
        return self.rounds(collective.kind, ranks) * collective.num_bytes / ranks

    def seconds(self, collective: Collective, ranks: int) -> float:
        """Seconds of one collective."""
        latency_s = self.rounds(collective.kind, ranks) * self.latency_s
        return latency_s + self.bytes_sent(collective, ranks) / self.bytes_per_s


def list_collectives(case: MemoryCase, micro_steps: int, num_tasks: int = 8) -> list[Collective]:
    """The collectives of one optimizer step, in their order; none for one rank.

    Args:
        case: The case.
        micro_steps: Forward and backward passes of the step on each rank.
        num_tasks: Of the data set.
    """
    if case.ranks == 1:
        return []
    stage, sizes = case.zero.stage, trained_sizes(case)
    gathers = [Collective("all_gather", size, "gathered_weights") for size in list_gathers(case)]
    found = [
        *(gathers * micro_steps),
        Collective("all_reduce", vector_bytes(case.ranks, micro_steps, num_tasks), "vector"),
    ]
    if stage == 3:
        sizes = tuple(-(-size // case.ranks) * case.ranks for size in sizes)
    kind: Kind = "reduce_scatter" if stage == 3 else "all_reduce"
    found += [
        Collective(kind, FLOAT32 * values, "gradients")
        for values in buckets(sizes, case.zero.reduce_bucket_size)
    ]
    if stage:
        found.append(Collective("all_reduce", FLOAT64 if stage == 3 else FLOAT32, "norm"))
    if stage in (1, 2):
        padded = 2 * case.ranks * -(-sum(sizes) // (2 * case.ranks))
        found.append(Collective("all_gather", case.value_bytes * padded, "updated_weights"))
    return found + [Collective("all_gather", size, "updated_weights") for size in list_persistent(case)]


def vector_bytes(ranks: int, micro_steps: int, num_tasks: int) -> int:
    """Bytes of the vector that a step sums over ranks: its latency counts, its bytes hardly; see `harness.step`."""
    of_ranks = ranks * (micro_steps + 2 + NUM_TIMES)
    return FLOAT64 * (COUNTS + 3 * num_tasks + of_ranks + STOP_FLAGS + METERED)


def buckets(sizes: Iterable[int], most: int) -> list[int]:
    """Values of the buckets that tensors fill one after another; a larger tensor has one of its own."""
    filled = list[int]()
    for size in sizes:
        if filled and filled[-1] + size <= most:
            filled[-1] += size
        else:
            filled.append(size)
    return filled


def communication_seconds(collectives: Iterable[Collective], link: Link, ranks: int) -> float:
    """Seconds of collectives one after another, nothing overlapping."""
    return sum(link.seconds(one, ranks) for one in collectives)
