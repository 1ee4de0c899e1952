"""Does the simulated step time of one to three hosts agree with the measured one, on links of 1 Gb/s and 100 Mb/s?

Three hosts are network namespaces with a shaped cable each (`tests.cluster`); a rank on each trains a small Llama. Two
predictions, neither of which sees the step that it predicts:

    links    computing from the same ranks on the unshaped link, less what that link's own latency and bandwidth
             give for its collectives; then the collectives of the shaped link, from that link's all-reduces
    ranks    computing from one rank alone (seconds a row, and what is fixed), the rows that the slowest rank is dealt,
             times the contention of a pass by all ranks at once: the hosts share this machine's cores

Links are measured as `harness bench-link` measures them, in the group that trains. Bytes are counted at the interface.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench.record import Figure, Outcome, WrongResultError, summarize
from bench.scaling_rank import PROBE, WARM_UPS
from bench.training import TINY, VOCAB_SIZE, Scale, build_data, make_config, open_folder, write_model
from harness.batch_plan import BatchPlan, StepTarget
from harness.config import ATTENTION_AND_MLP, load_deepspeed_config
from harness.linear_flops import LoraShape
from harness.memory.case import MemoryCase, ZeroSettings
from harness.roofline.collectives import Link, communication_seconds, list_collectives
from harness.roofline.scaling import Parts, simulate_step, slowest_rows
from harness.row_sizes import read_row_sizes
from harness.shapes import ModelShape
from preprocess.errors import ConfigError
from preprocess.manifest import read_manifest
from preprocess.tasks.load import DEFAULT_TASKS
from tests.cluster import Cluster, missing_means, start_on, three_hosts

UNSHAPED = "unshaped"
SIZES = (1 << 10, 1 << 16, 1 << 20, 1 << 22)
"""Bytes of the all-reduces that tell a link's latency and bandwidth."""

TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured.

    Attributes:
        scale: Model and songs; a step's rows divide by no number of ranks but one.
        stages: Of ZeRO.
        ranks: Numbers of hosts.
        links: Name to Mb/s.
        turns: Of each stage; a turn goes through all links.
        steps: In a turn, on a link.
    """

    scale: Scale
    stages: tuple[int, ...] = (0, 1, 2, 3)
    ranks: tuple[int, ...] = (1, 2, 3)
    links: tuple[tuple[str, float | None], ...] = (
        (UNSHAPED, None),
        ("1 Gb/s", 1000.0),
        ("100 Mb/s", 100.0),
    )
    turns: int = 5
    steps: int = 2


FULL = Size(
    replace(TINY, songs=48, hidden_size=128, num_layers=2, rows_per_step=7, micro_batch_size=4, rank=128)
)
QUICK = replace(FULL, stages=(0, 3), ranks=(1, 3), turns=2, steps=2)


@dataclass(frozen=True, slots=True)
class Ranks:
    """What ranks measured together; see `bench.scaling_rank.Measured`. Step times are the same on all."""

    reduces: dict[str, list[list[tuple[int, float]]]]
    step_s: dict[int, dict[str, list[float]]]
    sent_bytes: dict[int, dict[str, list[float]]]
    computing_s: dict[int, list[float]]
    alone_s: dict[int, list[float]]
    together_s: dict[int, list[float]]

    def contention(self, stage: int) -> float:
        """How many times longer a pass takes while all ranks compute, in the turns of a stage."""
        pairs = zip(self.alone_s[stage], self.together_s[stage], strict=True)
        return statistics.median(together / alone for alone, together in pairs)


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


def run_ranks(cluster: Cluster, folder: Path, data: Path, model: Path, size: Size, count: int) -> Ranks:
    """Run `bench.scaling_rank` on the first so many hosts.

    Raises:
        WrongResultError: A rank failed.
    """
    folder.mkdir()
    links: dict[str, float | None] = dict(size.links) if count > 1 else {UNSHAPED: None}
    steps = WARM_UPS + size.turns * size.steps * len(links)
    spec = {
        "configs": {
            name: str(write_config(folder, data, model, size.scale, stage, steps, name))
            for name, stage in ((PROBE, 0), *((str(stage), stage) for stage in size.stages))
        },
        "links": list(links),
        "turns": size.turns,
        "steps": size.steps,
        "sizes": SIZES,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    hosts = cluster.hosts[:count]
    group = {
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": "0",
        "LOCAL_SIZE": "1",
        "MASTER_ADDR": hosts[0].address,
        "MASTER_PORT": str(29_500 + count),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    command = [sys.executable, "-m", "bench.scaling_rank", str(folder)]
    logs = [folder / f"log-{rank}" for rank in range(count)]
    processes = [
        start_on(host, ["sh", "-c", f'exec "$@" > {log} 2>&1', "sh", *command], {**group, "RANK": str(rank)})
        for rank, (host, log) in enumerate(zip(hosts, logs, strict=True))
    ]
    try:
        _serve(cluster, folder, links, processes)
    finally:
        for host in cluster.hosts:
            cluster.shape_link(host)
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    written = [folder / f"rank-{rank}.json" for rank in range(count)]
    if not all(path.exists() for path in written):
        raise WrongResultError(f"{count} ranks failed: {' | '.join(log.read_text()[-800:] for log in logs)}")
    return _join([json.loads(path.read_text()) for path in written])


def write_config(
    folder: Path, data: Path, model: Path, scale: Scale, stage: int, steps: int, name: str = ""
) -> Path:
    """A run's YAML at a ZeRO stage."""
    name = name or str(stage)
    config = make_config(folder / f"run-{name}", data, model, scale, steps)
    values = {**config.model_dump(mode="json"), "deepspeed": f"zero{stage}", "tensorboard": False}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def _serve(cluster: Cluster, folder: Path, links: dict[str, float | None], processes: Sequence[Any]) -> None:
    """Shape links as ranks ask, until they have all ended."""
    number, deadline_s = 0, time.monotonic() + TIMEOUT_S
    while any(process.poll() is None for process in processes):
        if any(process.poll() not in (None, 0) for process in processes) or time.monotonic() > deadline_s:
            return
        asked = folder / f"ask-{number}.json"
        if asked.exists():
            mbit = links[json.loads(asked.read_text())["link"]]
            for host in cluster.hosts:
                cluster.shape_link(host, mbit=mbit)
            (folder / f"{number}.done").touch()
            number += 1
        time.sleep(0.01)


def _join(ranks: list[dict[str, Any]]) -> Ranks:
    """The slowest rank's figures, turn by turn; bytes of the rank that sends most."""

    def highest(name: str) -> dict[int, dict[str, list[float]]]:
        return {
            int(stage): {
                link: [max(values) for values in zip(*(one[name][stage][link] for one in ranks), strict=True)]
                for link in by_link
            }
            for stage, by_link in ranks[0][name].items()
        }

    return Ranks(
        reduces={
            link: [
                [(int(a[0][0]), max(float(one[1]) for one in a)) for a in zip(*per_rank, strict=True)]
                for per_rank in zip(*(one["reduces"][link] for one in ranks), strict=True)
            ]
            for link in ranks[0]["reduces"]
        },
        step_s=highest("step_s"),
        sent_bytes=highest("sent_bytes"),
        computing_s={int(stage): values for stage, values in ranks[0]["computing_s"].items()},
        alone_s={int(stage): values for stage, values in ranks[0]["alone_s"].items()},
        together_s={int(stage): values for stage, values in ranks[0]["together_s"].items()},
    )


def find_link(found: Ranks, name: str, ranks: int) -> Link:
    """A link's latency and bandwidth: the median over the times that it was measured, size by size."""
    by_size: dict[int, list[float]] = {}
    for reduces in found.reduces[name]:
        for num_bytes, seconds in reduces:
            by_size.setdefault(num_bytes, []).append(seconds)
    medians = [(num_bytes, statistics.median(seconds)) for num_bytes, seconds in by_size.items()]
    return Link.from_reduces(medians, ranks, "gloo", f"all-reduces on {name}")


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
