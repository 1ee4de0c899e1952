"""What does the main job reach? Reads the finished run of `make quickstart`; it measures nothing anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.record import Outcome, summarize
from harness.json_lines import read_json_lines
from harness.memory.profile import GIB, MEMORY_FILE, read_memory
from preprocess.errors import DataError
from preprocess.manifest import read_manifest

JOB = Path("runs/quickstart")
RUN = JOB / "run"
BASE_MODEL = "base_model"

RATES = {"samples_per_s": "examples/s", "tokens_per_s": "tokens/s", "step_time_s": "s"}


def measure(*, quick: bool) -> Outcome:
    """Gather the run's rates after its first step, and its accuracy before and after.

    Raises:
        DataError: There is no finished run.
    """
    if not (RUN / "evaluation.json").is_file():
        raise DataError(f"{RUN}: no evaluated run there; `make quickstart` first")
    lines = read_json_lines(RUN / "metrics.jsonl")
    steps = [line for line in lines if line["kind"] == "train"][1:]
    summary = next(line for line in lines if line["kind"] == "summary")
    evaluation = json.loads((RUN / "evaluation.json").read_text(encoding="utf-8"))
    train = read_manifest(JOB / "data").splits["train"]
    return Outcome(
        baseline=BASE_MODEL,
        figures={name: summarize([step[name] for step in steps], unit) for name, unit in RATES.items()},
        ratios={},
        facts={
            "steps": summary["step"],
            "tokens_per_example": summary["tokens_per_example"],
            "mfu_of_ceiling": summary["mfu_of_ceiling"],
            "peak_gib": max(record.peak_bytes for record in read_memory(RUN / MEMORY_FILE)) / GIB,
            "train_songs": train.num_songs,
            "train_examples": train.num_examples,
            "tokens_per_separate_example": train.unshared_tokens / train.num_examples,
            "job_s": measure_job(),
            "held_out_songs": evaluation["num_songs"],
            **{
                name: value
                for task, found in evaluation["tasks"].items()
                if found["before"] is not None  # a task whose answers are written alone has no closed set
                for name, value in describe_task(evaluation, task).items()
            },
        },
    )


def measure_job() -> float:
    """Seconds from the made songs to the demo's answers, by the times of their files; the installation is apart.

    Raises:
        DataError: The demo was not run.
    """
    first, last = JOB / "songs.jsonl", RUN / "demo.json"
    if not last.is_file():
        raise DataError(f"{last}: not there; let `make quickstart` come to its end first")
    return last.stat().st_mtime - first.stat().st_mtime


def describe_task(evaluation: dict[str, Any], task: str) -> dict[str, float]:
    """A task's accuracy before and after with the interval's ends, and what guessing and TF-IDF reach."""
    result = evaluation["tasks"][task]
    told = {"chance": result["chance"]}
    told |= {
        row["system"]: row["value"]
        for row in result["metrics"]
        if row["metric"] == "acc" and row["system"] == "tfidf"
    }
    for version in ("before", "after"):
        told |= {f"{version}_{key}": result[version][key] for key in ("accuracy", "low", "high")}
    return {f"{task}_{name}": value for name, value in told.items()}
