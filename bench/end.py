"""How long does the way from a songs file to an evaluated adapter take, stage by stage, against separate examples?

Both ways run the same commands: build, train, evaluate. The baseline's data set stores every example whole, packed into
rows as trainers of today do it (`encode.share_prefix=false`). A step takes the whole data set, so that both ways take
the same steps and must have the same losses.
"""

from __future__ import annotations

import gc
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from bench.material import FIVE_TASKS
from bench.record import Figure, Outcome, WrongResultError, compare, summarize
from bench.training import TINY, VOCAB_SIZE, Scale, build_data, make_config, open_folder, write_model
from harness.config import RunConfig
from harness.evaluation.run import evaluate_model
from harness.evaluation.settings import EvaluationSettings
from harness.train import train
from preprocess.forest import unpack_examples
from preprocess.manifest import read_manifest
from preprocess.shards import open_split

SHARED, SEPARATE = "shared_prefix", "separate_examples"
STAGES = ("build", "train", "evaluate")
TOLERANCE = 1e-4
"""Largest difference of a step's mean token loss, in nats; float32."""

Examples = Counter[tuple[tuple[int, ...], tuple[bool, ...]]]


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured.

    Attributes:
        scale: Model and songs.
        eval_fraction: Of the songs is held out.
        num_steps: Of the training.
        num_turns: From start to end, timed.
    """

    scale: Scale
    eval_fraction: float
    num_steps: int
    num_turns: int


FULL = Size(replace(Scale(songs=24), micro_batch_size=1, precision="fp32"), 0.25, 4, 3)
QUICK = Size(replace(TINY, songs=8, micro_batch_size=1, precision="fp32"), 0.25, 2, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """One way from the songs to the evaluation.

    Attributes:
        seconds: Of each stage.
        losses: Mean token loss of each step.
        examples: Ids and label masks of the training examples.
        facts: What came of it.
    """

    seconds: dict[str, float]
    losses: list[float]
    examples: Examples
    facts: dict[str, float | int | str] = field(default_factory=dict)


def measure(*, quick: bool) -> Outcome:
    """Go both ways in turns, after one passage that warms up and is not timed.

    Raises:
        WrongResultError: The examples differ, or the losses of a step by more than `TOLERANCE`.
    """
    size = QUICK if quick else FULL
    found: dict[str, list[Passage]] = {SEPARATE: [], SHARED: []}
    with open_folder() as folder:
        model = write_model(folder / "model", size.scale)
        go(folder / "warm-up", model, size, SHARED)
        for turn in range(size.num_turns):
            for way, passages in found.items():
                gc.collect()
                passages.append(go(folder / f"{way}-{turn}", model, size, way))
    difference = check_passages(found[SHARED][-1], found[SEPARATE][-1])
    whole = {way: [sum(one.seconds.values()) for one in passages] for way, passages in found.items()}
    scale = size.scale
    facts: dict[str, float | int | str] = {
        f"{way}: {name}": value
        for way, passages in found.items()
        for name, value in passages[-1].facts.items()
    }
    return Outcome(
        baseline=SEPARATE,
        figures=describe_stages(found)
        | {f"{way}: whole_s": summarize(values, "s") for way, values in whole.items()},
        ratios={SHARED: compare(whole[SEPARATE], whole[SHARED])},
        facts=facts
        | {
            "model": f"a toy: random Llama, hidden {scale.hidden_size}, {scale.num_layers} layers, {VOCAB_SIZE} ids, "
            f"{scale.precision}, LoRA r={scale.rank}",
            "songs": scale.songs,
            "steps": size.num_steps,
            "first_loss": found[SHARED][-1].losses[0],
            "last_loss": found[SHARED][-1].losses[-1],
            "largest_loss_difference": difference,
            "torch_threads": torch.get_num_threads(),
        },
    )


def describe_stages(found: dict[str, list[Passage]]) -> dict[str, Figure]:
    """Seconds of each stage of each way, and how many times as fast the stage is as the baseline's."""
    figures: dict[str, Figure] = {}
    for stage in STAGES:
        seconds = {way: [one.seconds[stage] for one in passages] for way, passages in found.items()}
        figures |= {f"{way}: {stage}_s": summarize(values, "s") for way, values in seconds.items()}
        figures[f"{stage}: {SHARED} / {SEPARATE}"] = compare(seconds[SEPARATE], seconds[SHARED])
    return figures


def go(folder: Path, model: Path, size: Size, way: str) -> Passage:
    """From the songs to the evaluation, in a folder of its own."""
    console, seconds = Console(quiet=True), {}
    overrides = (
        f"encode.share_prefix={'true' if way == SHARED else 'false'}",
        f"sample.eval_fraction={size.eval_fraction}",
    )
    started = time.perf_counter()
    data = build_data(folder / "data", str(model), FIVE_TASKS, size.scale, overrides)
    seconds["build"] = time.perf_counter() - started
    split = read_manifest(data).splits["train"]
    scale = replace(size.scale, rows_per_step=split.num_rows)
    config = make_config(folder / "run", data, model, scale, size.num_steps)
    started = time.perf_counter()
    train(config, console)
    seconds["train"] = time.perf_counter() - started
    started = time.perf_counter()
    adapter = config.output_dir / "adapter"
    asked = EvaluationSettings(
        model=config.model, adapter=adapter, data=data, methods=("rank",), baselines=False
    )
    (record,) = evaluate_model(asked, console)
    seconds["evaluate"] = time.perf_counter() - started
    facts: dict[str, float | int | str] = {
        "tokens_per_example": split.num_tokens / split.num_examples,
        "songs_evaluated": record.summary["num_songs"],
    }
    return Passage(seconds, read_losses(config), read_examples(data), facts)


def read_losses(config: RunConfig) -> list[float]:
    """Mean token loss of each step of a run."""
    lines = (config.output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(line["loss"]) for line in map(json.loads, lines) if line["kind"] == "train"]


def read_examples(data: Path) -> Examples:
    """The training examples of a data set, each whole, with how often it occurs."""
    return Counter(
        (tuple(example.input_ids.tolist()), tuple(example.label_mask.tolist()))
        for row in open_split(data, "train")
        for example in unpack_examples(row)
    )


def check_passages(shared: Passage, separate: Passage) -> float:
    """The largest difference of a step's loss.

    Raises:
        WrongResultError: The examples are not the same, or a loss differs by more than `TOLERANCE`.
    """
    if shared.examples != separate.examples:
        raise WrongResultError(
            f"{shared.examples.total()} examples with a shared prefix and {separate.examples.total()} separate ones "
            "are not the same examples"
        )
    return check_losses(shared.losses, separate.losses)


def check_losses(shared: Sequence[float], separate: Sequence[float]) -> float:
    """The largest difference of a step's loss.

    Raises:
        WrongResultError: It is above `TOLERANCE`, or a loss is no number.
    """
    differences = [abs(a - b) for a, b in zip(shared, separate, strict=True)]
    if not all(difference <= TOLERANCE for difference in differences):
        raise WrongResultError(
            f"losses with a shared prefix {list(shared)}, of separate examples {list(separate)}; expected at most "
            f"{TOLERANCE:g} apart"
        )
    return max(differences)
