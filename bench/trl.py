"""How many examples a second does a training step take in, against TRL's SFTTrainer at its best, on a small Llama?

The harness builds the shards and takes its steps as it does for a user; the baselines get the finished examples of the
very same steps. Model, adapters (rank, scale, targets, start), AdamW, schedule, clipping, precision and the examples of
each optimizer step are the same, and so must the losses be. First the layouts of the baselines are tried for a step;
then the best of each trainer and the harness take turns, step by step, in one training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from bench.material import FIVE_TASKS
from bench.record import Figure, Outcome, WrongResultError, compare, summarize
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
from preprocess.errors import ConfigError
from preprocess.forest import PackedRow
from preprocess.tasks.load import DEFAULT_TASKS

if TYPE_CHECKING:
    from bench.baseline_layouts import Batching
    from bench.baselines import Library
    from harness.config import RunConfig

T = TypeVar("T")

HARNESS, DEEPSPEED = "harness", "trainer_deepspeed"
WORKLOADS: dict[str, tuple[str, ...]] = {
    "one_task": ("artist",),
    "five_tasks": FIVE_TASKS,
    "eight_tasks": DEFAULT_TASKS,
}
"""Tasks of each song."""

LAYOUTS = (
    "padded 1",
    "padded 2",
    "padded 4",
    "padded 8",
    "packed 512",
    "packed 1024",
    "packed 2048",
    "packed 4096",
)
"""What is tried of each trainer. "padded 1" pads nothing, and its attention needs no mask."""

TOLERANCE = {"bf16": 3e-2, "fp32": 2e-5}
"""How far the mean token loss of a step may be from the baseline's, in nats. bfloat16 itself moves it: of SmolLM2's
first step (79 supervised tokens) float32 makes 4.5640 in any layout, separate examples in bfloat16 make 4.5729, and the
harness 4.5556."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is measured.

    Attributes:
        scale: Model, songs, rows.
        workloads: Which of `WORKLOADS`.
        layouts: Which of `LAYOUTS`.
        num_search_steps: Steps that each layout is tried for.
        num_again: Best layouts that are tried a second time.
        num_passed_on: TRL's best layouts, which the other trainers try.
        num_steps: Steps in turns, of which the first is a warm-up.
    """

    scale: Scale = Scale(rows_per_step=2, micro_batch_size=2)  # noqa: RUF009 - frozen
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    layouts: tuple[str, ...] = LAYOUTS
    num_search_steps: int = 1
    num_again: int = 2
    num_passed_on: int = 3
    num_steps: int = 5


FULL = Trial()
QUICK = Trial(TINY, ("five_tasks",), ("padded 1", "packed 1024"), num_again=0, num_passed_on=1, num_steps=3)


@dataclass(slots=True)
class Found:
    """What one workload gave.

    Attributes:
        best: Of each trainer its best layout.
        seconds: Of each trainer: the seconds of its steps, and the harness's in the same turns.
        figures: By name.
        facts: By name.
    """

    best: dict[Library, Batching] = field(default_factory=dict)
    seconds: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    facts: dict[str, float | int | str] = field(default_factory=dict)


def measure(*, quick: bool) -> Outcome:
    """Time the step on a small random Llama.

    Raises:
        ConfigError: TRL is not installed.
        WrongResultError: The losses of a step differ by more than `TOLERANCE`.
    """
    return measure_trial(QUICK if quick else FULL)


def measure_trial(trial: Trial) -> Outcome:
    """Time each workload; see `measure`."""
    if find_spec("trl") is None:
        raise ConfigError("TRL is the baseline and is not installed: pip install -e '.[bench]'")
    found: dict[str, Found] = {}
    with open_folder() as folder:
        model = write_model(folder / "model", trial.scale)
        for name in trial.workloads:
            found[name] = measure_workload(folder / name, model, WORKLOADS[name], trial)
    return Outcome(
        baseline="its best layout",
        figures=_prefix({name: part.figures for name, part in found.items()}),
        ratios={
            f"{name} against {library}": compare(*seconds)
            for name, part in found.items()
            for library, seconds in part.seconds.items()
        },
        facts=describe_trial(trial) | _prefix({name: part.facts for name, part in found.items()}),
    )


def measure_workload(folder: Path, model: Path, tasks: Sequence[str], trial: Trial) -> Found:
    """Build one data set, find the best layout of each trainer, and take turns with it."""
    data = build_data(folder / "data", str(model), tasks, trial.scale)
    config = make_config(folder / "look", data, model, trial.scale, trial.num_steps)
    look = Steps(open_run(config))
    steps = [look.examples(step) for step in range(trial.num_steps)]
    rows = [look.rows(step) for step in range(trial.num_steps)]
    found = Found(facts=describe_steps(steps, rows))
    search(config, steps[: trial.num_search_steps], trial, found)
    for library in found.best:
        take_turns(library, config, steps, found)
    return found


def search(config: RunConfig, steps: Sequence[Sequence[PackedRow]], trial: Trial, found: Found) -> None:
    """Find the best layout of every trainer; it goes into `found`.

    TRL tries them all, the others its best few. The best ones are tried again, so that a moment's luck does not
    choose; then the best with adapters in float32, which is peft's own default.
    """
    from bench.baseline_layouts import Batching
    from bench.baselines import LIBRARIES

    layouts = [Batching.parse(layout) for layout in trial.layouts]
    for library in LIBRARIES:
        speeds: dict[Batching, float] = {}
        _try(library, layouts, config, steps, speeds, found)
        _try(library, _best(speeds, trial.num_again), config, steps, speeds, found)
        layouts = _best(speeds, trial.num_passed_on)
        if library != DEEPSPEED:  # which keeps float32 masters by itself
            _try(library, [replace(layouts[0], adapter="fp32")], config, steps, speeds, found)
        found.best[library] = _best(speeds, 1)[0]
        found.facts[f"{library} best_layout"] = str(found.best[library])


def _best(speeds: Mapping[Batching, float], count: int) -> list[Batching]:
    return sorted(speeds, key=speeds.__getitem__, reverse=True)[:count]


def _try(
    library: Library,
    layouts: Sequence[Batching],
    config: RunConfig,
    steps: Sequence[Sequence[PackedRow]],
    speeds: dict[Batching, float],
    found: Found,
) -> None:
    """Train for a few steps in each layout; the fastest step it ever had counts."""
    from bench.baselines import train_baseline

    for layout in layouts:
        seconds = train_baseline(library, config, steps, layout).seconds
        speed = max(len(step) / s for step, s in zip(steps, seconds, strict=True))
        speeds[layout] = max(speed, speeds.get(layout, 0.0))
        found.figures[f"tried: {library} {layout}"] = summarize([speeds[layout]], "examples/s")


def take_turns(
    library: Library, config: RunConfig, steps: Sequence[Sequence[PackedRow]], found: Found
) -> None:
    """Train with one trainer and the harness at once: a step of the one, the same step of the other, and so on.

    Raises:
        WrongResultError: Their losses differ.
    """
    from bench.baselines import train_baseline

    own = Steps(open_run(config.model_copy(update={"output_dir": config.output_dir.with_name(library)})))
    theirs = train_baseline(library, config, steps, found.best[library], own.take)
    tolerance = TOLERANCE[config.model.precision]
    found.facts[f"{library} largest_loss_difference"] = check_losses(own.losses(), theirs.losses, tolerance)
    found.facts["first_loss"], found.facts["last_loss"] = theirs.losses[0], theirs.losses[-1]
    counts = [len(step) for step in steps]
    seconds = found.seconds[library] = (theirs.seconds[1:], own.seconds[1:])
    for name, part in zip((library, f"{HARNESS} beside {library}"), seconds, strict=True):
        values = [count / s for count, s in zip(counts[1:], part, strict=True)]
        found.figures[f"{name} examples_per_s"] = summarize(values, "examples/s")


def check_losses(own: Sequence[float], theirs: Sequence[float], tolerance: float) -> float:
    """The largest difference of two loss curves, step by step.

    Raises:
        WrongResultError: It is above the tolerance, or a loss is no number: the times would mean nothing.
    """
    differences = [abs(a - b) for a, b in zip(own, theirs, strict=True)]
    if not all(difference <= tolerance for difference in differences):
        raise WrongResultError(
            f"losses of the harness {_join(own)}, of the baseline {_join(theirs)}; expected differences of at most "
            f"{tolerance:g}"
        )
    return max(differences)


def _join(losses: Sequence[float]) -> str:
    return ", ".join(f"{loss:.5f}" for loss in losses)


def describe_steps(
    steps: Sequence[Sequence[PackedRow]], rows: Sequence[Sequence[PackedRow]]
) -> dict[str, float | int | str]:
    """What the steps hold, as separate examples and as packed rows."""
    lengths = [len(example.input_ids) for step in steps for example in step]
    packed = sum(len(row.input_ids) for step in rows for row in step)
    supervised = sum(int(example.label_mask.sum()) for step in steps for example in step)
    return {
        "examples_per_step": len(lengths) / len(steps),
        "tokens_per_example_alone": sum(lengths) / len(lengths),
        "longest_example": max(lengths),
        "supervised_tokens_per_example": supervised / len(lengths),
        "tokens_per_example_computed_by_the_harness": packed / len(lengths),
    }


def describe_trial(trial: Trial) -> dict[str, float | int | str]:
    """Model, settings and versions."""
    scale = trial.scale
    model = f"random Llama, hidden {scale.hidden_size}, {scale.num_layers} layers, {VOCAB_SIZE} ids"
    return {
        "model": model if scale.hidden_size else "SmolLM2-135M-Instruct",
        "precision": scale.precision,
        "lora": f"r={scale.rank}, seven projections, no dropout",
        "songs": f"made-up, {scale.length} length",
        "seq_len": scale.seq_len,
        "torch_threads": torch.get_num_threads(),
        "trl": version("trl"),
        "accelerate": version("accelerate"),
        "peft": version("peft"),
        "padding_free": "with packing; without packing it is the same rows in another order",
    }


def _prefix(parts: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    return {f"{part}: {name}": value for part, values in parts.items() for name, value in values.items()}
