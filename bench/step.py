"""How fast is a whole optimizer step, part by part, against a plain PyTorch loop with peft on the same examples?

`bench bare` asks what the harness adds to an engine that is fed the same tensors; this program asks what a user gains
who comes from a loop of transformers, peft and AdamW with separate examples in padded batches, as many at a time as is
fastest. Both train the same weights on the same examples, step by step in turns, and their losses must stay together.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from bench.material import FIVE_TASKS
from bench.plain_loop import PlainLoop
from bench.record import Figure, Outcome, WrongResultError, compare, rates, summarize
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
from harness.config import RunConfig
from preprocess.forest import PackedRow

PLAIN, WHOLE = "plain_loop", "harness"
TOLERANCE = {"bf16": 3e-2, "fp32": 1e-4}
"""Largest difference of the mean token loss of a step, in nats: the weights of both are trained on the same steps."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured.

    Attributes:
        scale: Model, songs, rows.
        batch_sizes: Examples in one forward pass of the plain loop; the fastest is taken.
        num_turns: Timed steps.
    """

    scale: Scale
    batch_sizes: tuple[int, ...]
    num_turns: int


FULL = Size(replace(Scale(), rows_per_step=2, micro_batch_size=2, precision="fp32"), (1, 2, 4, 8), 8)
QUICK = Size(replace(TINY, precision="fp32"), (1, 4), 5)


def measure(*, quick: bool) -> Outcome:
    """Take the same steps both ways.

    Raises:
        WrongResultError: The losses of a step differ by more than `TOLERANCE`.
    """
    size = QUICK if quick else FULL
    scale = size.scale
    with open_folder() as folder:
        model = write_model(folder / "model", scale)
        data = build_data(folder / "data", str(model), FIVE_TASKS, scale)
        config = make_config(folder / "run", data, model, scale, size.num_turns + 1)
        own = Steps(open_run(config))
        steps = [own.examples(step) for step in range(size.num_turns + 1)]
        speeds = search(config, steps, size.batch_sizes)
        best = max(speeds, key=speeds.__getitem__)
        plain = PlainLoop(config, len(steps), best)
        for examples in steps:
            own.take()
            gc.collect()
            plain.take(examples)
        difference = check_losses(own.losses(), plain.losses, TOLERANCE[scale.precision])
        parts = read_parts(config)
        tokens = [sum(len(row.input_ids) for row in own.rows(step)) for step in range(len(steps))]
    counts = [len(step) for step in steps][1:]
    facts: dict[str, float | int | str] = {
        f"tried: {PLAIN} by {batch_size}: examples_per_s": speed for batch_size, speed in speeds.items()
    }
    seconds = {PLAIN: plain.seconds[1:], WHOLE: own.seconds[1:]}
    return Outcome(
        baseline=PLAIN,
        figures={
            f"{way}_examples_per_s": summarize(
                [count / s for count, s in zip(counts, values, strict=True)], "examples/s"
            )
            for way, values in seconds.items()
        }
        | {f"{WHOLE}_s_per_step": summarize(seconds[WHOLE], "s/step")}
        | parts,
        ratios={WHOLE: compare(seconds[PLAIN], seconds[WHOLE])},
        facts=facts
        | {
            "model": f"a toy: random Llama, hidden {scale.hidden_size}, {scale.num_layers} layers, {VOCAB_SIZE} ids, "
            f"{scale.precision}, LoRA r={scale.rank}",
            "examples_per_step": sum(counts) / len(counts),
            "tokens_per_step": sum(tokens) / len(tokens),
            "tokens_per_step_of_separate_examples": sum(len(one.input_ids) for step in steps for one in step)
            / len(steps),
            f"{PLAIN} batch_size": best,
            "largest_loss_difference": difference,
            "torch_threads": torch.get_num_threads(),
        },
    )


def search(
    config: RunConfig, steps: Sequence[Sequence[PackedRow]], batch_sizes: Sequence[int]
) -> dict[int, float]:
    """Examples a second of the plain loop's second step, for each size of its batches."""
    speeds = {}
    for size in batch_sizes:
        loop = PlainLoop(config, len(steps), size)
        for examples in steps[:2]:
            loop.take(examples)
        speeds[size] = rates(loop.seconds[-1:], len(steps[1]))[0]
    return speeds


def check_losses(own: Sequence[float], plain: Sequence[float], tolerance: float) -> float:
    """The largest difference between the losses of a step.

    Raises:
        WrongResultError: It is above the tolerance, or a loss is no number.
    """
    differences = [abs(a - b) for a, b in zip(own, plain, strict=True)]
    if not all(difference <= tolerance for difference in differences):
        raise WrongResultError(
            f"losses of the harness {list(own)}, of the plain loop {list(plain)}; expected differences of at most "
            f"{tolerance:g}"
        )
    return max(differences)


def read_parts(config: RunConfig) -> dict[str, Figure]:
    """Share of each part in the harness's steps but the first, as the run itself told it."""
    lines = (config.output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [line for line in map(json.loads, lines) if line["kind"] == "train"][1:]
    timed = [step for step in steps if step.get("parts_s")]
    names = dict.fromkeys(name for step in timed for name in step["parts_s"])
    return {
        f"{WHOLE}: {name}_share": summarize(
            [100 * step["parts_s"].get(name, 0.0) / step["step_time_s"] for step in timed], "%"
        )
        for name in names
    }
