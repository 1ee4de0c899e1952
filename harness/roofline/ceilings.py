"""Ceilings of a run's speed, each as if nothing else took time; the lowest is the next bottleneck."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.numbers import format_float
from harness.planning.setting import Efficiency, Setting
from harness.planning.speed import compute_seconds, count_flops
from harness.roofline.bytes_moved import BytesMoved, count_bytes_moved
from harness.roofline.collectives import Collective, Link, communication_seconds, list_collectives

__all__ = ["ASSUMED_LATENCY_S", "Ceiling", "Roof", "describe_roof", "read_loader_rate"]

Name = Literal["compute", "matmul", "memory", "network", "loader"]

TERA, GIGA = 1e12, 1e9
ASSUMED_LATENCY_S = 30e-6
"""Seconds of a ring's round between hosts, where none is measured: NCCL over Ethernet takes 20 to 50 us."""

LOADER_RECORD = Path(__file__).parents[2] / "bench" / "results" / "loader.jsonl"

MOVED_BY: Mapping[Name, str] = {
    "compute": "fewer FLOPs an example (more tasks a song, shorter lyrics, no recomputation), float8, other cards",
    "matmul": "larger products (more rows in a micro-batch), float8, other cards",
    "memory": "more rows in a micro-batch, so that weights are read less often; no recomputation",
    "network": "a lower ZeRO stage, more rows a step, a smaller adapter rank, a faster link",
    "loader": "more processes that read; a step is laid out in a thread beside the one before",
}
"""What would raise a ceiling."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A bound of the speed over all ranks.

    Attributes:
        name: Of what.
        tokens_per_s: Tokens.
        examples_per_s: Examples.
        arithmetic: How it comes about.
        source: Of its figures: "data sheet", "measured", "assumed", or a file.
    """

    name: Name
    tokens_per_s: float
    examples_per_s: float
    arithmetic: str
    source: str


@dataclass(frozen=True, slots=True)
class Roof:
    """All ceilings of a setting, and what the roofline is drawn from.

    Attributes:
        ceilings: In the order of `Name`; those that cannot be told are left out, and `missing` says why.
        missing: A sentence each.
        flops: Hardware FLOPs of the busiest rank's step.
        moved: Bytes that it moves in memory.
        peak_flops: FLOP/s of a rank, at the dense peak, or measured.
        bandwidth_bytes_per_s: Of its memory.
        collectives: Of a step.
        communication_s: Of them.
        compute_s: Of the FLOPs at the dense peak.
        examples: Of a step, over all ranks.
        tokens: Of a step, over all ranks.
    """

    ceilings: tuple[Ceiling, ...]
    missing: tuple[str, ...]
    flops: float
    moved: BytesMoved
    peak_flops: float
    bandwidth_bytes_per_s: float
    collectives: tuple[Collective, ...]
    communication_s: float
    compute_s: float
    examples: float
    tokens: float

    @property
    def intensity(self) -> float:
        """FLOPs for each byte moved."""
        return self.flops / self.moved.total

    @property
    def ridge(self) -> float:
        """Intensity from which on compute bounds, not memory."""
        return self.peak_flops / self.bandwidth_bytes_per_s

    @property
    def attainable_flops(self) -> float:
        """FLOP/s of a rank under the roof at this intensity."""
        return min(self.peak_flops, self.intensity * self.bandwidth_bytes_per_s)

    @property
    def lowest(self) -> Ceiling:
        """The next bottleneck."""
        return min(self.ceilings, key=lambda ceiling: ceiling.examples_per_s)

    @property
    def together_examples_per_s(self) -> float:
        """Examples/s where computing (at the roof) and communication follow one another, as they do."""
        roof_s = max(self.compute_s, self.moved.total / self.bandwidth_bytes_per_s)
        return self.examples / (roof_s + self.communication_s)


def describe_roof(
    setting: Setting,
    link: Link | None = None,
    *,
    matmul_tflops: float | None = None,
    loader_rows_per_s: tuple[float, str] | None = None,
) -> Roof:
    """Every ceiling of a setting with a card.

    Args:
        setting: Model, rows, card, hosts.
        link: Between hosts; the setting's bandwidth with an assumed latency where it is None.
        matmul_tflops: Measured on such a card with large products, or None.
        loader_rows_per_s: Rows that one rank's loader lays out a second, and where that is from.
    """
    card, case, work = setting.card, setting.case, setting.workload
    assert card is not None, "the command asks for one"
    if link is None:
        link = Link(
            ASSUMED_LATENCY_S, setting.link_gbps * GIGA / 8, source="bandwidth given, latency assumed"
        )
    rows, busiest = setting.rows_of_step, setting.rows_of_rank
    flops = count_flops(case, busiest, setting)
    compute_s = compute_seconds(flops, case, card, Efficiency(1.0, 1.0))
    moved = count_bytes_moved(
        case,
        micro_steps=setting.micro_steps,
        tokens=busiest * work.tokens,
        supervised=busiest * work.supervised,
    )
    bandwidth = card.bandwidth_gb_per_s * GIGA
    collectives = (
        list_collectives(case, setting.micro_steps) if setting.nodes > 1 or link.within_hosts else []
    )
    communication_s = communication_seconds(collectives, link, case.ranks)
    examples, tokens = rows * work.examples, rows * work.tokens

    def ceiling(name: Name, seconds: float, arithmetic: str, source: str) -> Ceiling:
        return Ceiling(name, tokens / seconds, examples / seconds, f"{arithmetic} = {seconds:.4g} s", source)

    work_text = f"{flops.total / TERA:.4g} TFLOP of {busiest} rows"
    found, missing = list[Ceiling](), list[str]()
    sheet = "data sheet" if card.memory_mib else "measured"
    if card.memory_mib:
        found.append(ceiling("compute", compute_s, f"{work_text} at the dense peak of a {card.name}", sheet))
    else:
        missing.append("no ceiling by a dense peak: no data sheet is known of this device")
    if matmul_tflops is not None:
        seconds = flops.total / (matmul_tflops * TERA)
        found.append(ceiling("matmul", seconds, f"{work_text} / {matmul_tflops:.4g} TFLOP/s", "measured"))
    else:
        missing.append("no matmul ceiling: no run on such a card has measured one (ceilings.json)")
    text = f"{moved.total / GIGA:.4g} GB / {format_float(card.bandwidth_gb_per_s)} GB/s"
    found.append(ceiling("memory", moved.total / bandwidth, text, sheet))
    if communication_s:
        sent = sum(link.bytes_sent(one, case.ranks) for one in collectives)
        text = f"{sent / GIGA:.4g} GB / {link.gbps:.4g} Gb/s + {_count_rounds(collectives, link, case.ranks)} rounds"
        text += f" x {1e6 * link.latency_s:.4g} us"
        found.append(ceiling("network", communication_s, text, link.source))
    if loader_rows_per_s is not None:
        rate, source = loader_rows_per_s
        found.append(
            ceiling(
                "loader", busiest / rate, f"{busiest} rows / {format_float(rate)} rows/s of a rank", source
            )
        )
    else:
        missing.append("no loader ceiling: no rate was measured (bench/results/loader.jsonl)")
    return Roof(
        ceilings=tuple(found),
        missing=tuple(missing),
        flops=float(flops.total),
        moved=moved,
        peak_flops=flops.total / compute_s,
        bandwidth_bytes_per_s=bandwidth,
        collectives=tuple(collectives),
        communication_s=communication_s,
        compute_s=compute_s,
        examples=examples,
        tokens=tokens,
    )


def _count_rounds(collectives: list[Collective], link: Link, ranks: int) -> int:
    return sum(link.rounds(one.kind, ranks) for one in collectives)


def read_loader_rate(path: Path = LOADER_RECORD) -> tuple[float, str] | None:
    """Rows a second that one process reads and lays out, as the last record of `bench loader` says; or None."""
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    micros = float(record["figures"]["load_us_per_row"]["median"])
    return 1e6 / micros, f"bench loader, on {record['machine']['cpu']}"
