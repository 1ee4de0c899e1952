"""Does the simulated step time of one to three hosts agree with the measured one, on links of 1 Gb/s and 100 Mb/s?

Three hosts are network namespaces with a shaped cable each (`tests.cluster`); a rank on each trains a small Llama. Two
predictions, neither of which sees the step that it predicts:

    links    computing from the same ranks on the unshaped link, less what that link's own latency and bandwidth
             give for its collectives; then the collectives of the shaped link, from that link's all-reduces
    ranks    computing from one rank alone (seconds a row, and what is fixed), the rows that the slowest rank is dealt,
             times the contention of a pass by all ranks at once: the hosts share this machine's cores

Links are measured as `harness bench-link` measures them, in the group that trains. Bytes are counted at the interface.
A cable shaped to 1 Gb/s gives a third of that on a machine with two cores; what its all-reduces took is what counts.

At ZeRO-3 the second way predicts too much: what its hooks cost in each micro-step is taken for the rows' own, and one
rank has more micro-steps than three.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.record import Figure, Outcome, summarize
from bench.scaling_hosts import UNSHAPED, Ranks, Size, find_link, run_ranks
from bench.training import TINY, VOCAB_SIZE, Scale, build_data, open_folder, write_model
from harness.batch_plan import BatchPlan, StepTarget
from harness.config import ATTENTION_AND_MLP
from harness.deepspeed_config import load_deepspeed_config
from harness.linear_flops import LoraShape
from harness.memory.case import MemoryCase, ZeroSettings
from harness.roofline.collectives import Link, communication_seconds, list_collectives
from harness.roofline.scaling import Parts, simulate_step, slowest_rows
from harness.row_sizes import read_row_sizes
from harness.shapes import ModelShape
from preprocess.errors import ConfigError
from preprocess.manifest import read_manifest
from preprocess.tasks.load import DEFAULT_TASKS
from tests.cluster import missing_means, three_hosts

FULL = Size(
    replace(TINY, songs=48, hidden_size=128, num_layers=2, rows_per_step=7, micro_batch_size=4, rank=128)
)
QUICK = replace(FULL, stages=(0, 3), ranks=(1, 3), turns=2, steps=2)


@dataclass(frozen=True, slots=True)
class Point:
    """A predicted step beside the measured one."""

    ranks: int
    stage: int
    link: str
    way: str
    predicted_s: float
    communication_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_s / self.measured_s - 1


@dataclass(frozen=True, slots=True)
class ScalingOutcome(Outcome):
    """The outcome with every point.

    Attributes:
        points: Ranks, stage, link, way of predicting, seconds.
    """

    points: list[dict[str, Any]] = field(default_factory=list)


def measure(*, quick: bool) -> ScalingOutcome:
    """Measure and predict; the figures are errors in percent.

    Raises:
        ConfigError: This machine cannot make hosts.
        WrongResultError: A rank failed.
    """
    if missing := missing_means():
        raise ConfigError(f"bench scaling: {missing}")
    size = QUICK if quick else FULL
    with open_folder() as folder:
        model = write_model(folder / "model", size.scale)
        data = build_data(folder / "data", str(model), DEFAULT_TASKS, size.scale)
        found = {}
        (folder / "hosts").mkdir()
        with three_hosts(folder / "hosts") as cluster:
            for count in size.ranks:
                found[count] = run_ranks(cluster, folder / f"ranks-{count}", data, model, size, count)
        points = [*predict_links(size, found), *predict_ranks(size, data, found)]
    return summarize_points(size, describe_links(size, found), points, found)


def make_case(scale: Scale, stage: int, ranks: int) -> MemoryCase:
    """The run's sizes, as `bench.training` writes its model."""
    hidden, heads = scale.hidden_size, max(scale.hidden_size // 32, 2)
    shape = ModelShape(
        hidden,
        scale.num_layers,
        heads,
        max(hidden // 64, 1),
        hidden // heads,
        4 * hidden,
        VOCAB_SIZE,
        tied=True,
    )
    zero = ZeroSettings.read(load_deepspeed_config(f"zero{stage}"))
    return MemoryCase(
        shape,
        LoraShape(scale.rank, ATTENTION_AND_MLP),
        zero,
        ranks,
        slots=scale.seq_len,
        supervised=1,
        precision="bf16",
        device="cpu",
    )


def predict_links(size: Size, found: dict[int, Ranks]) -> Iterator[Point]:
    """Shaped links from the same ranks' steps on the unshaped one."""
    for count, ranks in found.items():
        if count == 1:
            continue
        links = {name: find_link(ranks, name, count) for name, _ in size.links}
        for stage, by_link in ranks.step_s.items():
            calls = list_collectives(make_case(size.scale, stage, count), micro_steps(size.scale, count))
            seconds = {name: communication_seconds(calls, link, count) for name, link in links.items()}
            compute_s = statistics.median(by_link[UNSHAPED]) - seconds[UNSHAPED]
            for name in [name for name in links if name != UNSHAPED]:
                yield Point(
                    count,
                    stage,
                    name,
                    "links",
                    compute_s + seconds[name],
                    seconds[name],
                    statistics.median(by_link[name]),
                )


def micro_steps(scale: Scale, ranks: int) -> int:
    """Passes of a step on each rank."""
    return -(-scale.rows_per_step // (scale.micro_batch_size * ranks))


def predict_ranks(size: Size, data: Path, found: dict[int, Ranks]) -> Iterator[Point]:
    """Several ranks, on every link, from one rank's parts."""
    scale = size.scale
    rows = read_row_sizes(data, "train", read_manifest(data))
    for count, ranks in found.items():
        if count == 1:
            continue
        plan = BatchPlan(rows, StepTarget("rows", scale.rows_per_step), scale.micro_batch_size, count, seed=0)
        slowest = slowest_rows(plan, range(20))
        for stage, by_link in ranks.step_s.items():
            parts = alone_parts(found[1], ranks, stage, scale.rows_per_step)
            for name, _ in size.links:
                scaled = simulate_step(
                    parts,
                    make_case(scale, stage, count),
                    find_link(ranks, name, count),
                    rows=scale.rows_per_step,
                    slowest=slowest,
                    micro_steps=micro_steps(scale, count),
                    examples=float(scale.rows_per_step),
                    contention=ranks.contention(stage),
                )
                yield Point(
                    count,
                    stage,
                    name,
                    "ranks",
                    scaled.step_s,
                    scaled.communication_s,
                    statistics.median(by_link[name]),
                )


def alone_parts(alone: Ranks, ranks: Ranks, stage: int, rows: int) -> Parts:
    """One rank's parts, as fast as this machine was while the others were measured.

    Minutes lie between the two, in which other work may come and go: both are counted in probes, passes over the same
    rows by one rank while nobody else computes.
    """
    probe_s = statistics.median(alone.alone_s[stage])
    computing = statistics.median(alone.computing_s[stage]) / probe_s
    step = statistics.median(alone.step_s[stage][UNSHAPED]) / probe_s
    now_s = statistics.median(ranks.alone_s[stage])
    return Parts(now_s * computing / rows, now_s * (step - computing), "one rank alone")


def describe_links(size: Size, found: dict[int, Ranks]) -> dict[str, float | int | str]:
    """Settings, and what the links and the shared cores were found to be."""
    scale = size.scale
    facts: dict[str, float | int | str] = {
        "model": f"random Llama, hidden {scale.hidden_size}, {scale.num_layers} layers, {VOCAB_SIZE} ids",
        "lora_rank": scale.rank,
        "rows_per_step": scale.rows_per_step,
        "cores": len(os.sched_getaffinity(0)),
    }
    for count, ranks in found.items():
        if count == 1:
            continue
        for stage in ranks.alone_s:
            facts[f"{count} ranks, ZeRO-{stage}: contention"] = ranks.contention(stage)
        for name, _ in size.links:
            link = find_link(ranks, name, count)
            facts[f"{count} ranks, {name}: gbps"] = link.gbps
            facts[f"{count} ranks, {name}: latency_us"] = 1e6 * link.latency_s
    return facts


def summarize_points(
    size: Size, facts: dict[str, float | int | str], points: list[Point], found: dict[int, Ranks]
) -> ScalingOutcome:
    """Errors by way, and each point with the bytes that left a host beside those predicted."""
    figures: dict[str, Figure] = {}
    for way in ("links", "ranks"):
        errors = [100 * abs(point.error) for point in points if point.way == way]
        figures[f"{way}: error"] = summarize(errors, "%")
        facts[f"{way}: points"] = len(errors)
        facts[f"{way}: points within 15 %"] = sum(error <= 15 for error in errors)
        facts[f"{way}: largest error, %"] = max(errors)
    for count, ranks in found.items():
        for stage, by_link in ranks.sent_bytes.items() if count > 1 else ():
            calls = list_collectives(make_case(size.scale, stage, count), micro_steps(size.scale, count))
            predicted = sum(Link(0.0, 1.0, "gloo").bytes_sent(one, count) for one in calls)
            ratios = [sent / predicted for values in by_link.values() for sent in values]
            figures[f"{count} ranks, ZeRO-{stage}: bytes sent / predicted"] = summarize(ratios, "ratio")
    rows = [
        {
            "ranks": point.ranks,
            "stage": point.stage,
            "link": point.link,
            "way": point.way,
            "predicted_s": point.predicted_s,
            "communication_s": point.communication_s,
            "measured_s": point.measured_s,
            "error": point.error,
        }
        for point in points
    ]
    return ScalingOutcome("measured", figures, {}, facts, rows)
