"""How fast does a card train Llama-3.2-3B's real shape with LoRA, by attention kernel, recomputation, compiler, float8?

One command that downloads nothing: the weights are random, the songs made up. Without a card it runs at a tiny size on
the CPU. With options, or where typer is missing::

    python -m bench.gpu --shape llama-3.2-3b --vram-gib 48 --seconds 480
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from bench.gpu_jobs import PLAN, Setting, choose_jobs
from bench.gpu_process import Worker, run_jobs
from bench.gpu_report import make_outcome, print_results
from bench.machine import describe_surroundings
from bench.record import Outcome, WrongResultError, make_record, to_line
from harness.shapes import find_shape
from preprocess.errors import UserError

QUESTION = "How fast does a card train Llama-3.2-3B's real shape with LoRA, and how near its peak is that?"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. None leaves a choice to what the machine has."""

    shape: str | None = None
    vram_gib: float = 48.0
    seconds: float = 480.0
    quick: bool = False
    jobs: str | None = None
    head_lora: bool = False


def measure(*, quick: bool) -> Outcome:
    """Run with the defaults; at a tiny size where there is no card, or for a quick look.

    Raises:
        WrongResultError: No configuration could be measured.
    """
    return run(Options(quick=quick))


def run(options: Options, console: Console | None = None) -> Outcome:
    """Measure what fits into the time, the most important first.

    Raises:
        ConfigError: There is no such shape.
        WrongResultError: No configuration could be measured.
    """
    deadline = time.monotonic() + options.seconds
    quick = options.quick or not has_card()
    setting = Setting.quick() if quick else Setting(options.shape or "llama-3.2-3b", options.vram_gib)
    if options.shape is not None:
        find_shape(options.shape)  # else each configuration's process would fail on it
        setting = replace(setting, shape=options.shape)
    jobs = choose_jobs(options.jobs, quick=quick, head_lora=options.head_lora)
    results, card = run_jobs(jobs, setting, deadline, lambda: Worker(setting))
    if console is not None:
        print_results(results, card, console)
    return make_outcome(results, card, setting)


def has_card() -> bool:
    """Whether torch sees a CUDA card. Asked without starting CUDA here: the worker shall have it alone."""
    import torch

    return torch.cuda.device_count() > 0


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[Options, bool]:
    """The options, and whether the line of JSON alone is wanted."""
    parser = argparse.ArgumentParser("bench.gpu", description=QUESTION)
    parser.add_argument("--shape", help="a shape of harness.shapes (default: llama-3.2-3b)")
    parser.add_argument("--vram-gib", type=float, default=48.0, help="cap on the memory that torch may take")
    parser.add_argument("--seconds", type=float, default=480.0, help="when to stop")
    parser.add_argument("--jobs", help=f"comma-separated, of {', '.join(job.name for job in PLAN)}")
    parser.add_argument("--lm-head", action="store_true", help="an adapter on the head too, everywhere")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny size; what a machine without a card does"
    )
    parser.add_argument("--json", action="store_true", help="print the line of JSON alone")
    parsed = parser.parse_args(arguments)
    if unknown := set((parsed.jobs or "flash").split(",")) - {job.name for job in PLAN}:
        parser.error(
            f"--jobs: no configuration {', '.join(sorted(unknown))}; there are {', '.join(job.name for job in PLAN)}"
        )
    options = Options(
        parsed.shape, parsed.vram_gib, parsed.seconds, parsed.quick, parsed.jobs, parsed.lm_head
    )
    return options, parsed.json


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point without typer. The last line is the record."""
    options, json_alone = parse_arguments(arguments)
    surroundings = describe_surroundings()
    console = None if json_alone else Console(width=None if sys.stdout.isatty() else 150)
    try:
        outcome = run(options, console)
    except WrongResultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    command = " ".join(["python -m bench.gpu", *(sys.argv[1:] if arguments is None else arguments)])
    print(to_line(make_record("gpu", QUESTION, outcome, command, surroundings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
