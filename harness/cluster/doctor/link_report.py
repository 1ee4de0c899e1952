"""What was measured between the hosts: as values, as JSON that `harness plan` reads, as a table, as a check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.cluster.doctor.findings import Check

FORMAT_VERSION = 1
UNEVEN = 2.0
"""A link that is so many times slower than the fastest is told of."""

BITS = 8
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class ReduceTime:
    """An all-reduce of so many bytes over so many ranks.

    Attributes:
        num_bytes: Of the tensor.
        median_s: Seconds on the slowest rank.
        num_ranks: That took part.
    """

    num_bytes: int
    median_s: float
    num_ranks: int

    @property
    def algorithm_bytes_per_s(self) -> float:
        """Bytes of the tensor over seconds."""
        return self.num_bytes / self.median_s

    @property
    def bus_bytes_per_s(self) -> float:
        """What each link carries in a ring, 2 (n - 1) / n of the tensor: comparable with the link's own rate.

        Source: NVIDIA nccl-tests, doc/PERFORMANCE.md.
        """
        return self.algorithm_bytes_per_s * 2 * (self.num_ranks - 1) / self.num_ranks


@dataclass(frozen=True, slots=True)
class PairRate:
    """One pair of hosts, with nobody else sending.

    Attributes:
        hosts: The two.
        latency_s: One way.
        there_bytes_per_s: From the first to the second.
        back_bytes_per_s: From the second to the first.
    """

    hosts: tuple[str, str]
    latency_s: float
    there_bytes_per_s: float
    back_bytes_per_s: float

    @property
    def bytes_per_s(self) -> float:
        """The slower direction."""
        return min(self.there_bytes_per_s, self.back_bytes_per_s)


@dataclass(frozen=True, slots=True)
class LinkReport:
    """Everything that was measured.

    Attributes:
        backend: "gloo" or "nccl".
        hosts: Names in order of rank.
        reduces: By size.
        pairs: Each once.
        used: For each host, addresses and interfaces that the ranks' connections went through.
    """

    backend: str
    hosts: tuple[str, ...]
    reduces: tuple[ReduceTime, ...]
    pairs: tuple[PairRate, ...]
    used: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)

    @property
    def bus_bytes_per_s(self) -> float:
        """Of the largest all-reduce, which latency matters least to."""
        return self.reduces[-1].bus_bytes_per_s

    @property
    def slowest(self) -> PairRate:
        """The pair with the lowest rate."""
        return min(self.pairs, key=lambda pair: pair.bytes_per_s)

    @property
    def factor(self) -> float:
        """How many times slower the slowest pair is than the fastest."""
        return max(pair.bytes_per_s for pair in self.pairs) / self.slowest.bytes_per_s

    @property
    def slow_hosts(self) -> tuple[str, ...]:
        """Hosts whose every link is slow, while some link without them is not: where to look for the cause."""
        fastest = max(pair.bytes_per_s for pair in self.pairs)
        slow = [pair for pair in self.pairs if pair.bytes_per_s * UNEVEN <= fastest]
        return tuple(
            host
            for host in self.hosts
            if all(pair in slow for pair in self.pairs if host in pair.hosts) and slow
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values; `gbps` is what `harness plan --link-gbps` takes."""
        return {
            "format_version": FORMAT_VERSION,
            "backend": self.backend,
            "gbps": BITS * self.bus_bytes_per_s / GIGA,
            "gb_per_s": self.bus_bytes_per_s / GIGA,
            "latency_s": max(pair.latency_s for pair in self.pairs),
            "hosts": [{"name": host, "used": list(self.used.get(host, ()))} for host in self.hosts],
            "reduces": [
                {
                    "bytes": one.num_bytes,
                    "median_s": one.median_s,
                    "algorithm_gb_per_s": one.algorithm_bytes_per_s / GIGA,
                    "bus_gb_per_s": one.bus_bytes_per_s / GIGA,
                }
                for one in self.reduces
            ],
            "pairs": [_describe_pair(pair) for pair in self.pairs],
            "slowest": {**_describe_pair(self.slowest), "factor": self.factor},
            "slow_hosts": list(self.slow_hosts),
        }


def _describe_pair(pair: PairRate) -> dict[str, Any]:
    return {
        "hosts": list(pair.hosts),
        "latency_s": pair.latency_s,
        "there_gbps": BITS * pair.there_bytes_per_s / GIGA,
        "back_gbps": BITS * pair.back_bytes_per_s / GIGA,
    }


def describe_slowest(report: LinkReport) -> str:
    """The slowest link in one line, and the host that is the cause where that is plain."""
    pair = report.slowest
    text = f"slowest link: {' <-> '.join(pair.hosts)}, {rate(pair.bytes_per_s)}"
    if report.factor < UNEVEN:
        return f"{text}; the links are alike"
    text += f", {report.factor:.1f} times slower than the fastest"
    hosts = report.slow_hosts
    return f"{text}; every link of {', '.join(hosts)} is slow" if hosts else text


def rate(bytes_per_s: float) -> str:
    """Bits a second in the unit that reads best."""
    bits = BITS * bytes_per_s
    return f"{bits / GIGA:.1f} Gb/s" if bits >= GIGA else f"{bits / 1e6:.0f} Mb/s"


def print_links(report: LinkReport, console: Console) -> None:
    """Tables of sizes and pairs, the interfaces, the slowest link."""
    sizes = Table("all-reduce", box=box.SIMPLE_HEAD, show_edge=False)
    for head in ("median", "algorithm GB/s", "bus GB/s"):
        sizes.add_column(head, justify="right")
    for one in report.reduces:
        speeds = (f"{s / GIGA:.3f}" for s in (one.algorithm_bytes_per_s, one.bus_bytes_per_s))
        sizes.add_row(_size(one.num_bytes), f"{1000 * one.median_s:.2f} ms", *speeds)
    console.print(sizes)
    pairs = Table("pair", box=box.SIMPLE_HEAD, show_edge=False)
    for head in ("latency", "there", "back"):
        pairs.add_column(head, justify="right")
    for pair in report.pairs:
        ways = (rate(pair.there_bytes_per_s), rate(pair.back_bytes_per_s))
        pairs.add_row(" <-> ".join(pair.hosts), f"{1e6 * pair.latency_s:.0f} us", *ways)
    console.print(pairs)
    for host in report.hosts:
        console.print(f"{host} through {describe_use(report, host)}", highlight=False)
    console.print(
        f"{report.backend}, {len(report.hosts)} ranks: {rate(report.bus_bytes_per_s)} a link in the largest all-reduce",
        highlight=False,
    )
    console.print(describe_slowest(report), highlight=False)


def describe_use(report: LinkReport, host: str) -> str:
    """Interface and address of a host's connections."""
    used = [f"{one['interface']} ({one['address']})" for one in report.used.get(host, ())]
    return ", ".join(used) or "no TCP connection (InfiniBand, or memory of the host)"


def _size(num_bytes: int) -> str:
    return f"{num_bytes >> 20} MiB" if num_bytes >= 1 << 20 else f"{num_bytes >> 10} KiB"


def check_link(hosts: Sequence[str], measured: LinkReport | str) -> Check:
    """The measurement as a row of the doctor's table.

    Args:
        hosts: Of the hostfile.
        measured: The report, or why there is none.
    """
    check = Check("link")
    if isinstance(measured, str):
        named = [host for host in hosts if measured.startswith(f"{host}:")]
        check.add(
            "refuse",
            named,
            measured,
            "name the interface: NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME",
        )
        return check
    for host in hosts:
        own = [pair.bytes_per_s for pair in measured.pairs if any(_is_of(name, host) for name in pair.hosts)]
        check.cells[host] = rate(max(own))
    if measured.factor >= UNEVEN:
        named = list(measured.slow_hosts or measured.slowest.hosts)
        named = [host for host in hosts if any(_is_of(name, host) for name in named)]
        advice = "look at cable, port and interface there; every step waits for the slowest link"
        check.add("warn", named, describe_slowest(measured), advice)
    return check


def _is_of(label: str, host: str) -> bool:
    """Whether a rank's label, "host" or "host:rank", is of a host."""
    return label == host or label.rpartition(":")[0] == host
