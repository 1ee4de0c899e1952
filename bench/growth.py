"""How does the cost of training grow with row length, tasks a song, ranks, and the size of a micro-batch?

Four questions, each with its own baseline in the same run: row lengths at about as many tokens a step; one to eight
tasks a song; one to three processes on this machine, each with one thread; and the most memory that logits take while
a micro-batch grows, against a model's own forward pass, which makes them for every slot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from bench.live_memory import LiveMemory
from bench.rank_group import run_ranks
from bench.record import Figure, Outcome, compare, costs, rates, summarize
from bench.training import (
    TINY,
    VOCAB_SIZE,
    Scale,
    Steps,
    build_data,
    make_config,
    open_folder,
    open_run,
    write_model,
)
from harness.data import MicroBatch, collate
from preprocess.forest import PackedRow
from preprocess.tasks.load import DEFAULT_TASKS


@dataclass(frozen=True, slots=True)
class Growth:
    """What is measured.

    Attributes:
        scale: Model and songs.
        row_lengths: Slots in a row.
        tokens_per_step: About, for every row length.
        task_counts: Tasks a song, the first so many of the default ones.
        rank_counts: Processes.
        micro_batches: Rows in one forward pass.
        num_turns: Timed steps of each way.
    """

    scale: Scale
    row_lengths: tuple[int, ...]
    tokens_per_step: int
    task_counts: tuple[int, ...]
    rank_counts: tuple[int, ...]
    micro_batches: tuple[int, ...]
    num_turns: int


FULL = Growth(
    Scale(songs=64),
    (1024, 2048, 4096, 8192),
    8192,
    tuple(range(1, len(DEFAULT_TASKS) + 1)),
    (1, 2, 3),
    (1, 2, 4, 8),
    5,
)
QUICK = Growth(replace(TINY, songs=10), (1024, 2048), 2048, (1, 8), (1, 2), (1, 2), 2)

FIRST_ROW_LENGTH = "rows of the shortest length"

LOSS_CHUNK = 256
"""Supervised positions whose logits exist at a time, where memory is measured: fewer than any micro-batch has."""


def measure(*, quick: bool) -> Outcome:
    """Measure each kind of growth; the ratios compare row lengths with the shortest.

    Raises:
        WrongResultError: A process of several ranks failed.
    """
    size = QUICK if quick else FULL
    with open_folder() as folder:
        model = write_model(folder / "model", size.scale)
        parts = [
            grow_rows(folder / "rows", model, size),
            grow_tasks(folder / "tasks", model, size),
            grow_ranks(folder / "ranks", model, size),
            grow_batch(folder / "batch", model, size),
        ]
    figures: dict[str, Figure] = {}
    facts: dict[str, float | int | str] = {}
    for part in parts:
        figures |= part.figures
        facts |= part.facts
    return Outcome(FIRST_ROW_LENGTH, figures, parts[0].ratios, describe(size) | facts)


def grow_rows(folder: Path, model: Path, size: Growth) -> Outcome:
    """Examples a second with every task, over the length of rows, at about as many tokens a step."""
    runs = {}
    for length in size.row_lengths:
        rows = max(1, size.tokens_per_step // length)
        scale = replace(size.scale, seq_len=length, rows_per_step=rows, micro_batch_size=rows)
        runs[f"rows of {length}"] = _open(folder / str(length), model, DEFAULT_TASKS, scale, size.num_turns)
    costs_s = _take_turns(runs, size.num_turns)
    first, *others = costs_s
    return Outcome(
        baseline=first,
        figures=_speeds(costs_s),
        ratios={name: compare(costs_s[first], costs_s[name]) for name in others},
        facts={f"{name}: fill": _fill(run) for name, run in runs.items()},
    )


def grow_tasks(folder: Path, model: Path, size: Growth) -> Outcome:
    """Examples a second over the number of tasks a song."""
    runs = {
        f"{count} tasks a song": _open(
            folder / str(count), model, DEFAULT_TASKS[:count], size.scale, size.num_turns
        )
        for count in size.task_counts
    }
    costs_s = _take_turns(runs, size.num_turns)
    first, *others = costs_s
    return Outcome(
        baseline=first,
        figures=_speeds(costs_s)
        | {f"{name} / {first}": compare(costs_s[first], costs_s[name]) for name in others},
        ratios={},
        facts={f"{name}: tokens_per_example": _tokens_per_example(run) for name, run in runs.items()},
    )


def grow_ranks(folder: Path, model: Path, size: Growth) -> Outcome:
    """Examples a second over the number of processes, each with one thread, by gloo."""
    scale = replace(size.scale, rows_per_step=6, micro_batch_size=1)
    data = build_data(folder / "data", str(model), DEFAULT_TASKS, scale)
    costs_s = {
        f"{count} ranks": _run_ranks(folder, data, model, scale, count, size.num_turns)
        for count in size.rank_counts
    }
    first, *others = costs_s
    return Outcome(
        baseline=first,
        figures=_speeds(costs_s)
        | {f"{name} / {first}": compare(costs_s[first], costs_s[name]) for name in others},
        ratios={},
        facts={"cores": len(os.sched_getaffinity(0)), "ranks: rows_per_step": scale.rows_per_step},
    )


def grow_batch(folder: Path, model: Path, size: Growth) -> Outcome:
    """The most bytes that tensors as wide as the vocabulary hold at once, over rows in a micro-batch."""
    scale = replace(size.scale, rows_per_step=max(size.micro_batches))
    run = _open(folder, model, DEFAULT_TASKS, scale, 1, loss_chunk=LOSS_CHUNK)
    _live_bytes(run, run.rows(0)[:1], plain=False)  # what is made once for good belongs to no micro-batch
    facts: dict[str, float | int | str] = {}
    for count in size.micro_batches:
        rows = run.rows(0)[:count]
        own, plain = _live_bytes(run, rows, plain=False), _live_bytes(run, rows, plain=True)
        facts[f"micro-batch of {count}: supervised_tokens"] = int(sum(row.label_mask.sum() for row in rows))
        for name, memory in (("harness", own), ("plain forward", plain)):
            facts[f"micro-batch of {count}: {name} logits_mib"] = memory.widest / 2**20
            facts[f"micro-batch of {count}: {name} all_mib"] = memory.most / 2**20
    return Outcome("plain forward", {}, {}, facts | {"loss_chunk": LOSS_CHUNK})


def _live_bytes(run: Steps, rows: Sequence[PackedRow], *, plain: bool) -> LiveMemory:
    """What a forward and a backward pass hold at most; `plain` with the model's own loss over every slot."""
    module = run.run.engine.module
    batch = collate(rows)
    memory = LiveMemory(VOCAB_SIZE)
    with memory:
        loss = _plain_loss(module, batch) if plain else module(batch)[0]
        loss.backward()
    for parameter in module.parameters():
        parameter.grad = None
    return memory


def _plain_loss(module: Any, batch: MicroBatch) -> torch.Tensor:  # noqa: ANN401 - a ForestLanguageModel
    """The loss as a causal model of transformers takes it: logits of every slot, in float32 for the loss."""
    logits = module.causal.lm_head(module.hidden_states(batch)).float()
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1)[batch.sources], batch.targets, reduction="sum"
    )


def _open(
    folder: Path,
    model: Path,
    tasks: Sequence[str],
    scale: Scale,
    num_steps: int,
    **settings: Any,  # noqa: ANN401 - fields of ModelSettings
) -> Steps:
    data = build_data(folder / "data", str(model), tasks, scale)
    return Steps(open_run(make_config(folder / "run", data, model, scale, num_steps + 1, **settings)))


def _take_turns(runs: dict[str, Steps], num_turns: int) -> dict[str, list[float]]:
    """Seconds an example of each run's steps, taken in turns; the first turn is a warm-up."""
    for _ in range(num_turns + 1):
        for run in runs.values():
            run.take()
    return {
        name: [s / len(run.examples(step)) for step, s in enumerate(run.seconds) if step]
        for name, run in runs.items()
    }


def _speeds(costs_s: dict[str, list[float]]) -> dict[str, Figure]:
    return {
        f"{name}: examples_per_s": summarize(rates(values, 1), "examples/s")
        for name, values in costs_s.items()
    }


def _fill(run: Steps) -> float:
    rows = run.run.train_split.rows
    return float(np.mean([len(rows[i].input_ids) for i in range(len(rows))])) / run.run.manifest.seq_len


def _tokens_per_example(run: Steps) -> float:
    rows = [run.run.train_split.rows[i] for i in range(len(run.run.train_split.rows))]
    return sum(len(row.input_ids) for row in rows) / sum(row.num_examples for row in rows)


def _run_ranks(
    folder: Path, data: Path, model: Path, scale: Scale, count: int, num_turns: int
) -> list[float]:
    """Seconds an example of each step but the first two, of a training by so many processes.

    Raises:
        WrongResultError: One of them failed.
    """
    config = make_config(folder / f"run-{count}", data, model, scale, num_turns + 2)
    path = folder / f"{count}.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    run_ranks("harness.train", ["--config", str(path)], count)
    lines = (config.output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "train"][2:]
    return [costs([step["step_time_s"]], step["examples"], scale=1)[0] for step in steps]


def describe(size: Growth) -> dict[str, float | int | str]:
    """Model and settings."""
    scale = size.scale
    return {
        "model": f"random Llama, hidden {scale.hidden_size}, {scale.num_layers} layers, {VOCAB_SIZE} ids",
        "precision": scale.precision,
        "seq_len": scale.seq_len,
        "tokens_per_step_over_row_lengths": size.tokens_per_step,
        "tasks": ", ".join(DEFAULT_TASKS),
        "torch_threads": torch.get_num_threads(),
    }
