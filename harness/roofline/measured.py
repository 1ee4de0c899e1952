"""What a finished run measured, as far as it wrote it down: counts, seconds by part and rank, ceilings on the spot.

Everything but the summary may be missing (an older run, one that was stopped); what is missing is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.cards import Card, match_card
from harness.config import RunConfig, load_run_config
from harness.json_lines import JsonObject, read_json_lines
from harness.metering.ceilings import CEILINGS_FILE, read_ceilings
from harness.planning.workload import Workload
from harness.roofline.collectives import Backend, Link
from harness.roofline.scaling import Parts
from preprocess.errors import DataError

COMPUTING = ("forward", "loss", "backward")
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run's own figures.

    Attributes:
        name: Of its folder.
        config: Resolved.
        world_size: Ranks.
        hosts: That they were on.
        summary: The last line of kind "summary".
        parts: Seconds of the slowest rank's step without communication.
        communication_s: Of a mean step, exposed; None where the run did not tell it apart.
        ceilings: Of each rank, as `ceilings.json` has them; empty without the file.
        link: Between ranks, None where it was not measured.
        missing: A sentence for what the run did not write down.
    """

    name: str
    config: RunConfig
    world_size: int
    hosts: int
    summary: JsonObject
    parts: Parts
    communication_s: float | None
    ceilings: list[JsonObject] = field(default_factory=list)
    link: Link | None = None
    missing: tuple[str, ...] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        """Work of the measured steps, over all ranks."""
        return dict(self.summary["counts"])

    @property
    def step_s(self) -> float:
        """A mean step."""
        return float(self.summary["step_time_total_s"]) / int(self.summary["num_steps"])

    @property
    def tokens_per_s(self) -> float:
        """Over all ranks."""
        return float(self.counts["tokens"] / self.summary["step_time_total_s"])

    @property
    def examples_per_s(self) -> float:
        """Over all ranks."""
        return float(self.counts["examples"] / self.summary["step_time_total_s"])

    @property
    def rows_of_step(self) -> float:
        """Over all ranks."""
        return float(self.counts["rows"] / self.summary["num_steps"])

    @property
    def matmul_tflops(self) -> float | None:
        """Of the slowest rank, or None."""
        return min((float(one["matmul_tflops"]) for one in self.ceilings), default=None)

    @property
    def card(self) -> Card | None:
        """The card, by its name; a device that no sheet knows as a card of its measured ceilings; None without any."""
        if not self.ceilings:
            return None
        slowest = min(self.ceilings, key=lambda one: float(one["matmul_tflops"]))
        known = match_card(str(slowest["card"])) if slowest.get("card") else None
        if known is not None:
            return known
        # A float32 product runs at half of the bf16 peak there (`planning.speed.compute_seconds`), here as measured.
        times = 2.0 if self.config.model.precision == "fp32" else 1.0
        name = f"{slowest.get('card') or slowest['device']} (measured ceilings)"
        bandwidth = float(slowest["copy_gb_per_s"])
        return Card(name, (), 0, times * float(slowest["matmul_tflops"]), None, bandwidth)


def read_measured(run_dir: Path) -> MeasuredRun:
    """Read a run folder.

    Raises:
        DataError: It holds no finished run, or a damaged file.
    """
    if not (run_dir / "metrics.jsonl").is_file() or not (run_dir / "config.yaml").is_file():
        raise DataError(f"{run_dir}: no metrics.jsonl and config.yaml there; give a run's folder")
    lines = read_json_lines(run_dir / "metrics.jsonl")
    summaries = [line for line in lines if line.get("kind") == "summary"]
    if not summaries or not summaries[-1].get("num_steps"):
        raise DataError(f"{run_dir}: the run has no summary of measured steps; give one that finished")
    path = run_dir / CEILINGS_FILE
    return describe_run(
        run_dir.resolve().name,
        load_run_config(run_dir / "config.yaml"),
        summaries[-1],
        asdict(read_ceilings(path)) if path.is_file() else {},
    )


def describe_run(name: str, config: RunConfig, summary: JsonObject, ceilings: JsonObject) -> MeasuredRun:
    """What the lines tell.

    Args:
        name: Of the run.
        config: Its own.
        summary: Line of kind "summary".
        ceilings: What `ceilings.json` holds, {} without it.
    """
    missing = []
    if not ceilings:
        missing.append(f"{CEILINGS_FILE} is not there: no ceilings were measured on the spot")
    world_size = int(summary.get("world_size", 1))
    hosts = summary.get("hosts")
    if hosts is None:
        missing.append("the summary names no hosts: each rank is taken for a host of its own")
    steps = int(summary["num_steps"])
    step_s = float(summary["step_time_total_s"]) / steps
    rows = float(summary["counts"]["rows"]) / steps / world_size
    computing_s, communication_s, source = split_step(summary, step_s)
    if communication_s is None and world_size > 1:
        missing.append("the run did not tell communication apart: what is fixed includes it")
    fixed_s = max(0.0, step_s - computing_s - (communication_s or 0.0))
    return MeasuredRun(
        name=name,
        config=config,
        world_size=world_size,
        hosts=world_size if hosts is None else len(set(hosts)),
        summary=summary,
        parts=Parts(computing_s / max(rows, 1e-9), fixed_s, source),
        communication_s=communication_s if world_size > 1 else 0.0,
        ceilings=list(ceilings.get("ranks", [])),
        link=find_link(ceilings, world_size),
        missing=tuple(missing),
    )


def split_step(summary: JsonObject, step_s: float) -> tuple[float, float | None, str]:
    """Seconds of computing and of exposed communication in a mean step, and where they are from.

    By rank where the run has it: the slowest rank computes longest, and the others wait for it meanwhile.
    """
    by_rank: Mapping[str, Any] = summary.get("by_rank") or {}
    parts: Mapping[str, Sequence[float]] = by_rank.get("parts_s") or {}
    if parts and by_rank.get("steps"):
        steps = int(by_rank["steps"])
        columns = [parts[name] for name in COMPUTING if name in parts]
        computing_s = max(map(sum, zip(*columns, strict=True)), default=0.0) / steps
        sent = parts.get("communication")
        return computing_s, None if sent is None else max(sent) / steps, "the slowest rank's parts"
    shares = summary.get("time_share_by_part") or {}
    if not any(shares.get(name) for name in COMPUTING):
        return step_s, None, "whole steps, which were not timed by parts"
    computing_s = step_s * sum(float(shares.get(name) or 0.0) for name in COMPUTING)
    communication = shares.get("communication")
    waited = float(shares.get("wait") or 0.0)
    # Waiting for a slower rank is that rank's computing.
    computing_s += step_s * waited
    return computing_s, None if communication is None else step_s * float(communication), "rank 0's parts"


def find_link(ceilings: JsonObject, world_size: int) -> Link | None:
    """The link from an all-reduce that the run measured at its start; None without one."""
    gbps, latency_s = ceilings.get("allreduce_gbps"), ceilings.get("allreduce_latency_s")
    if gbps is None or world_size < 2:
        return None
    on_cpu = all(one["device"] == "cpu" for one in ceilings["ranks"])
    backend: Backend = "gloo" if on_cpu else "nccl"
    # The latency is that of a whole all-reduce of a few bytes, which takes 2 (n - 1) rounds.
    round_s = float(latency_s or 0.0) / (2 * (world_size - 1))
    return Link(
        round_s, float(gbps) * GIGA / 8, backend, "an all-reduce at the run's start", within_hosts=True
    )


def workload_of_counts(run: MeasuredRun) -> Workload:
    """What rows were like, from the counts of the steps, where the data set is not at hand: nothing shared is known."""
    counts = run.counts
    rows = counts["rows"]
    tokens, examples = counts["tokens"] / rows, counts["examples"] / rows
    return Workload(
        source=f"counted in {run.name}, whose data set is not at hand: what rows share is not known",
        assumed=False,
        longest_row=round(counts["slots"] / rows),
        most_supervised=round(counts["supervised_tokens"] / rows),
        examples=examples,
        songs=examples,
        tokens=tokens,
        supervised=counts["supervised_tokens"] / rows,
        unshared_tokens=tokens,
    )
