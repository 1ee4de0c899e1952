"""One point of `bench sweep`: a process that takes steps of a run as it is and with some settings changed, in turns.

A process of its own, for a setting may end it: memory runs out, a kernel fails.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

from bench.rank_group import say_result
from bench.record import WrongResultError
from bench.training import Steps, open_run
from harness.config import RunConfig, load_run_config
from preprocess.errors import UserError

BASE, POINT = "base", "point"
EXACT = (
    "batch.micro_batch_size",
    "model.attention",
    "model.compile",
    "model.lora_kernel",
    "model.loss_chunk",
    "model.recompute_layers",
    "deepspeed",
)
"""Settings that change how a result is computed, and not the result."""

TOLERANCE = {"bf16": 3e-2, "fp16": 3e-2, "fp32": 1e-4}
"""Largest difference of the mean token loss of a step, in nats, where only settings of `EXACT` are changed."""


def open_steps(config: RunConfig, folder: Path, num_steps: int) -> Steps:
    """A run's first steps, in a folder of their own."""
    schedule = config.schedule.model_copy(update={"max_steps": num_steps})
    changes = {"output_dir": folder, "schedule": schedule, "tensorboard": False, "resume": False}
    return Steps(open_run(config.model_copy(update=changes)))


def take_turns(order: dict[str, Any]) -> dict[str, Any]:
    """Seconds, examples and losses of the steps both ways; the first step is a warm-up and not among them.

    Args:
        order: `{"config": path, "set": ["a.b=c" …], "num_turns": N, "folder": path}`.

    Raises:
        UserError: A setting is refused.
        WrongResultError: Only settings of `EXACT` differ, and the losses do too.
    """
    num_steps = order["num_turns"] + 1
    configs = {BASE: load_run_config(order["config"]), POINT: load_run_config(order["config"], order["set"])}
    runs = {
        name: open_steps(config, Path(order["folder"]) / name, num_steps) for name, config in configs.items()
    }
    num_steps = min(run.run.num_steps for run in runs.values())
    for _ in range(num_steps):
        for run in runs.values():
            gc.collect()
            run.take()
    losses = {name: run.losses() for name, run in runs.items()}
    is_exact = all(assignment.partition("=")[0] in EXACT for assignment in order["set"])
    if is_exact:
        check_losses(losses[POINT], losses[BASE], TOLERANCE[configs[BASE].model.precision])
    return {
        name: {
            "seconds": run.seconds[1:],
            "examples": [len(run.examples(step)) for step in range(1, num_steps)],
            "losses": losses[name],
        }
        for name, run in runs.items()
    } | {"losses_compared": is_exact}


def check_losses(point: list[float], base: list[float], tolerance: float) -> None:
    """Refuse times of settings that must not change a loss and did.

    Raises:
        WrongResultError: They did, or a loss is no number.
    """
    if not all(abs(a - b) <= tolerance for a, b in zip(point, base, strict=True)):
        raise WrongResultError(
            f"losses {point}, without the settings {base}; expected {tolerance:g} apart at most"
        )


def main(order: str) -> None:
    """Take the steps, and say what came of them, or why nothing did."""
    try:
        say_result(take_turns(json.loads(order)))
    except (UserError, WrongResultError) as error:
        say_result({"error": str(error)})


if __name__ == "__main__":
    main(sys.argv[1])
