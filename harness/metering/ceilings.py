"""ceilings.json: what a run's devices and link can do at most, as measured on the spot before the first step.

Plain values, without torch; `harness.metering.measure` measures them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.json_lines import replace_text
from preprocess.errors import DataError
from preprocess.outside_text import parse_json

CEILINGS_FILE = "ceilings.json"
FORMAT_VERSION = 1
TERA = 1e12


@dataclass(frozen=True, slots=True)
class RankCeiling:
    """What one rank's device reached, while all ranks measured at the same time.

    Attributes:
        rank: Global rank.
        host: Its host's name.
        device: As in "cuda:0" or "cpu".
        card: The card's name in `harness.cards`, None on a CPU and for a card that is not known there.
        peak_tflops: The card's dense peak in bf16 by its data sheet, None where there is no card.
        matmul_tflops: TFLOP/s of a large square matrix product in the precision that the run computes in.
        matmul_dtype: That precision: "bf16", "fp16" or "fp32".
        copy_gb_per_s: 1e9 bytes a second of the device's memory, read and written, in a large copy.
    """

    rank: int
    host: str
    device: str
    card: str | None
    peak_tflops: float | None
    matmul_tflops: float
    matmul_dtype: str
    copy_gb_per_s: float


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Those of all ranks.

    Attributes:
        ranks: In rank order.
        allreduce_gbps: Gb/s that each rank sends in an all-reduce of a large tensor, taken as a ring:
            2 (n - 1) / n times the tensor's bits over its time (NCCL's bus bandwidth). None for one rank.
        allreduce_latency_s: Seconds of an all-reduce of a few numbers. None for one rank.
    """

    ranks: tuple[RankCeiling, ...]
    allreduce_gbps: float | None = None
    allreduce_latency_s: float | None = None

    @property
    def matmul_flops_per_s(self) -> float:
        """FLOP/s of all ranks together."""
        return sum(rank.matmul_tflops for rank in self.ranks) * TERA

    @property
    def hosts(self) -> list[str]:
        """The host of each rank."""
        return [rank.host for rank in self.ranks]


def name_ceiling(share: float) -> str:
    """What a share of the measured ceiling is a share of.

    Above 1 the ceiling is none: something else ran while it was measured, before the first step.
    """
    return (
        "of the measured ceiling"
        if share <= 1
        else "of a ceiling that was measured too low, beside other work"
    )


def write_ceilings(path: Path, ceilings: Ceilings) -> None:
    """Write them to a file, replacing it in one step."""
    values = {"format_version": FORMAT_VERSION, **asdict(ceilings)}
    replace_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_ceilings(path: Path) -> Ceilings:
    """Read what `write_ceilings` wrote.

    Raises:
        DataError: The file is damaged, or of another format.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {content['format_version']!r}, expected {FORMAT_VERSION}")
        ranks = tuple(RankCeiling(**one) for one in content["ranks"])
        measured = [value for one in ranks for value in (one.matmul_tflops, one.copy_gb_per_s)]
        if not ranks or not all(math.isfinite(value) and value > 0 for value in measured):
            raise ValueError("a rank without figures above 0")
        return Ceilings(ranks, content["allreduce_gbps"], content["allreduce_latency_s"])
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path} does not tell what a run's devices can do ({type(error).__name__}: {error}). Run the training "
            "again, or remove it."
        ) from error
