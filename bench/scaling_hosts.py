"""Hosts for `bench.scaling`: ranks of `bench.scaling_rank` on namespaces whose links are shaped as they ask."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.record import WrongResultError
from bench.scaling_rank import PROBE, WARM_UPS
from bench.training import Scale, make_config
from harness.roofline.collectives import Link
from tests.cluster import Cluster, start_on

UNSHAPED = "unshaped"
SIZES = (1 << 10, 1 << 16, 1 << 20, 1 << 22)
"""Bytes of the all-reduces that tell a link's latency and bandwidth."""

TIMEOUT_S = 900.0
"""Of all that a number of ranks measure."""


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
