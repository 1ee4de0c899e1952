"""What does each ZeRO stage cost in time and hold in memory, over one to three ranks, against stage 0?

The ranks are processes of this machine, one thread each, which talk by gloo over loopback. In one process group all
stages take turns, step by step, on the same rows; their losses must stay together, and must be those of one rank.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.material import FIVE_TASKS
from bench.rank_group import run_module
from bench.record import Figure, Outcome, WrongResultError, compare, summarize
from bench.training import TINY, VOCAB_SIZE, Scale, build_data, make_config, open_folder, write_model

STAGES = ("zero0", "zero1", "zero2", "zero3")
TOLERANCE = 1e-4
"""Largest difference of a step's mean token loss between stages and numbers of ranks, in nats; float32."""

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured: model and songs, stages, numbers of ranks, timed steps."""

    scale: Scale
    stages: tuple[str, ...]
    ranks: tuple[int, ...]
    num_turns: int


FULL = Size(replace(Scale(), rows_per_step=6, micro_batch_size=1, precision="fp32"), STAGES, (1, 2, 3), 5)
QUICK = Size(replace(TINY, songs=12, rows_per_step=2, micro_batch_size=1, precision="fp32"), STAGES, (2,), 3)


def measure(*, quick: bool) -> Outcome:
    """Take the same steps at every stage on every number of ranks.

    Raises:
        WrongResultError: A rank failed, or the losses of a step differ by more than `TOLERANCE`.
    """
    size = QUICK if quick else FULL
    with open_folder() as folder:
        model = write_model(folder / "model", size.scale)
        data = build_data(folder / "data", str(model), FIVE_TASKS, size.scale)
        found = {
            count: run_stages(folder / f"ranks-{count}", data, model, size, count) for count in size.ranks
        }
    difference = check_losses({count: ranks[0] for count, ranks in found.items()})
    figures, ratios, facts = {}, {}, {}
    for count, ranks in found.items():
        for stage in size.stages:
            name = f"{stage} on {count}"
            figures[f"{name}: examples_per_s"] = speed_of(ranks, stage)
            parts = [rank[stage]["state_bytes"] for rank in ranks]
            buffers = max(one["communication"] for one in parts) / MIB
            facts[f"{name}: state_mib_per_rank"] = max(sum(one.values()) for one in parts) / MIB - buffers
            facts[f"{name}: communication_buffers_mib_per_rank"] = buffers
            if stage != size.stages[0]:
                ratios[name] = compare(slowest(ranks, size.stages[0]), slowest(ranks, stage))
    scale = size.scale
    return Outcome(
        baseline=f"{size.stages[0]} on as many ranks",
        figures=figures,
        ratios=ratios,
        facts=facts
        | {
            "model": f"a toy: random Llama, hidden {scale.hidden_size}, {scale.num_layers} layers, {VOCAB_SIZE} ids, "
            f"{scale.precision}, LoRA r={scale.rank}",
            "rows_per_step": scale.rows_per_step,
            "link": "loopback of one machine, gloo",
            "cores": len(os.sched_getaffinity(0)),
            "largest_loss_difference": difference,
        },
    )


def run_stages(folder: Path, data: Path, model: Path, size: Size, num_ranks: int) -> list[dict[str, Any]]:
    """What each rank of a process group found of every stage."""
    folder.mkdir(parents=True)
    configs = {
        stage: make_config(folder / stage, data, model, size.scale, size.num_turns + 1).model_copy(
            update={"deepspeed": stage}
        )
        for stage in size.stages
    }
    order = {
        "stages": {stage: config.model_dump(mode="json") for stage, config in configs.items()},
        "num_turns": size.num_turns,
    }
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    return run_module("bench.zero_rank", [str(folder / "order.json")], num_ranks)


def slowest(ranks: Sequence[Mapping[str, Any]], stage: str) -> list[float]:
    """Seconds of each step on the rank that took longest."""
    return [max(step) for step in zip(*(rank[stage]["seconds"] for rank in ranks), strict=True)]


def speed_of(ranks: Sequence[Mapping[str, Any]], stage: str) -> Figure:
    """Examples of all ranks a second."""
    counts = ranks[0][stage]["examples"]
    return summarize(
        [count / s for count, s in zip(counts, slowest(ranks, stage), strict=True)], "examples/s"
    )


def check_losses(found: Mapping[int, Mapping[str, Any]]) -> float:
    """The largest difference of a step's loss over all stages and numbers of ranks.

    Args:
        found: By number of ranks what rank 0 found, by stage.

    Raises:
        WrongResultError: It is above `TOLERANCE`, or a loss is no number.
    """
    losses = {
        f"{stage} on {count}": one["losses"]
        for count, by_stage in found.items()
        for stage, one in by_stage.items()
    }
    first, *others = losses
    largest = 0.0
    for name in others:
        differences = [abs(a - b) for a, b in zip(losses[name], losses[first], strict=True)]
        if not differences or not all(difference <= TOLERANCE for difference in differences):
            raise WrongResultError(
                f"losses of {name}: {losses[name]}, of {first}: {losses[first]}; expected differences of at most "
                f"{TOLERANCE:g}"
            )
        largest = max(largest, *differences)
    return largest
