"""A rank of `bench.scaling`: it measures its links, its computing beside the others, and steps of training.

The parent shapes the links: rank 0 asks for one by writing `ask-<n>.json` and goes on when `<n>.done` is there. What a
rank measured is written to `rank-<r>.json`.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console

from bench.training import open_run
from harness.cluster.doctor.link_rank import Bench, measure_reduces
from harness.config import load_run_config
from harness.data import collate
from harness.dist import barrier, join_world, leave_world
from harness.loader import StepLoader
from harness.meters import StepRates
from harness.progress import StepProgress
from harness.run import Run
from harness.throughput import StepCounts

COMPUTING = ("forward", "loss", "backward")
"""Parts of a step in which no rank waits for another, below ZeRO-3."""

WARM_UPS = 3
"""Steps before the first that counts: ZeRO-3 knows its row of modules from the third on."""

WAIT_S = 300.0
PROBE, PROBE_ROWS = "probe", 3
"""Name of the run that is only computed with, beside those of the stages, and rows of its pass."""


@dataclass(slots=True)
class Measured:
    """What one rank measured.

    Attributes:
        reduces: By link, a list for each measurement: bytes and seconds of all-reduces.
        step_s: By stage and link, seconds of a mean step of each turn.
        sent_bytes: By stage and link, bytes that left the host in a mean step of each turn.
        computing_s: By stage, seconds of forward, loss and backward pass of each step on the first link.
        alone_s: By stage, in each turn seconds of a pass over a few rows while the other ranks wait.
        together_s: The same while they compute too, until the last is done.
    """

    reduces: dict[str, list[list[tuple[int, float]]]] = field(default_factory=dict)
    step_s: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    sent_bytes: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    computing_s: dict[str, list[float]] = field(default_factory=dict)
    alone_s: dict[str, list[float]] = field(default_factory=dict)
    together_s: dict[str, list[float]] = field(default_factory=dict)


class Ranks:
    """The group as seen from this rank.

    Args:
        folder: Where ranks and parent meet.
        spec: What to measure; see `bench.scaling`.
    """

    def __init__(self, folder: Path, spec: dict[str, Any]) -> None:
        self.folder, self.spec = folder, spec
        self.world = join_world(None)
        self.asked = itertools.count()
        self.found = Measured()

    def shape(self, link: str) -> None:
        """Have the parent shape all links.

        Raises:
            TimeoutError: It does not answer.
        """
        if self.world.size == 1:
            return
        number = next(self.asked)
        if self.world.is_main:
            new = self.folder / f"ask-{number}.new"
            new.write_text(json.dumps({"link": link}))
            new.rename(new.with_suffix(".json"))
            deadline_s = time.monotonic() + WAIT_S
            while not (self.folder / f"{number}.done").exists():
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"no answer to {new.with_suffix('.json')}")
                time.sleep(0.01)
        barrier()

    def measure(self) -> None:
        """Everything, stage by stage; within a stage link by link in turns."""
        configs = dict(self.spec["configs"])
        self.probe = Probe(open_run(load_run_config(configs.pop(PROBE))))
        for stage, config in configs.items():
            run = open_run(load_run_config(config))
            with run.load_steps(run.train_split, 0, run.num_steps) as steps:
                self.measure_stage(stage, run, steps)

    def measure_stage(self, stage: str, run: Run, steps: StepLoader) -> None:
        """One ZeRO stage. Each turn goes through the links in another order, so that none is always first."""
        links, turns = self.spec["links"], self.spec["turns"]
        self.found.step_s[stage] = {link: [] for link in links}
        self.found.sent_bytes[stage] = {link: [] for link in links}
        for of_stage in (self.found.computing_s, self.found.alone_s, self.found.together_s):
            of_stage[stage] = []
        take = make_take(run, steps)
        for _ in range(WARM_UPS):
            take()
        for turn in range(turns):
            self.measure_contention(stage)
            for number in range(len(links)):
                link = links[(turn + number) % len(links)]
                self.shape(link)
                if self.world.size > 1 and turn in (0, turns // 2):
                    self.measure_link(link)
                self.take_turn(stage, link, take, counts=link == links[0])

    def measure_link(self, link: str) -> None:
        """All-reduces, as `harness bench-link` times them, in this very group."""
        bench = Bench(self.world.rank, self.world.size, torch.device("cpu"), tuple(self.spec["sizes"]))
        found = [(int(one["bytes"]), float(one["median_s"])) for one in measure_reduces(bench)]
        self.found.reduces.setdefault(link, []).append(found)

    def take_turn(self, stage: str, link: str, take: Callable[[], StepRates], *, counts: bool) -> None:
        """Some steps on one link; all ranks begin and end together."""
        number = self.spec["steps"]
        before_bytes = sent_bytes()
        barrier()
        began_s = time.perf_counter()
        rates = [take() for _ in range(number)]
        barrier()
        self.found.step_s[stage][link].append((time.perf_counter() - began_s) / number)
        self.found.sent_bytes[stage][link].append((sent_bytes() - before_bytes) / number)
        if counts:
            self.found.computing_s[stage] += [sum(one.parts_s[part] for part in COMPUTING) for one in rates]

    def measure_contention(self, stage: str) -> None:
        """The same pass, over the same rows, by rank 0 alone, and by all ranks at once."""
        barrier()
        if self.world.is_main:
            self.found.alone_s[stage].append(self.probe.compute())
        barrier()
        began_s = time.perf_counter()
        self.probe.compute()
        barrier()
        self.found.together_s[stage].append(time.perf_counter() - began_s)


class Probe:
    """A pass whose seconds tell how fast this machine computes just now; it needs no other rank.

    Args:
        run: At a stage that shares no weights out.
    """

    def __init__(self, run: Run) -> None:
        self.module = run.engine.module
        rows = [run.train_split.rows[index] for index in range(PROBE_ROWS)]
        self.batch = collate(rows, flat=run.flat)
        for _ in range(WARM_UPS):
            self.compute()

    def compute(self) -> float:
        """Seconds of a forward and backward pass that leaves no gradient."""
        began_s = time.perf_counter()
        loss = self.module(self.batch)[0]
        loss.backward()
        for parameter in self.module.parameters():
            parameter.grad = None
        return time.perf_counter() - began_s


def make_take(run: Run, steps: StepLoader) -> Callable[[], StepRates]:
    """What takes a step, as a run does, and tells its times."""
    progress = StepProgress(Console(quiet=True), run.num_steps, 0, enabled=False)
    told: list[StepRates] = []
    clock = run.meter.clock
    end_step = clock.end_step

    def note(counts: StepCounts, *, compiled: bool = False) -> StepRates:
        told.append(end_step(counts, compiled=compiled))
        return told[-1]

    def take() -> StepRates:
        with patch.object(clock, "end_step", note):
            run.take_step(steps, progress)
        return told.pop()

    return take


def sent_bytes() -> int:
    """Bytes that have left this host's namespace, headers included."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "eth0":
            return int(numbers.split()[8])
    return 0


def main() -> None:
    """Measure, and write down what was found."""
    folder = Path(sys.argv[1])
    os.chdir(Path(__file__).resolve().parents[1])
    torch.set_num_threads(1)
    ranks = Ranks(folder, json.loads((folder / "spec.json").read_text()))
    ranks.measure()
    (folder / f"rank-{ranks.world.rank}.json").write_text(json.dumps(asdict(ranks.found)))
    barrier()
    leave_world()


if __name__ == "__main__":
    main()
