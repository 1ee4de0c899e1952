"""Learning curves: each checkpoint's adapter ranks the known answers for some held-out songs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.stages import Job
from harness.checkpoints.commit import PREFIX, list_steps
from harness.report.evaluation.learning_file import CURVE_FILE
from preprocess.durable import write_text_durably
from preprocess.outside_text import parse_json

FORMAT_VERSION = 1


def trace_curve(job: Job, run_dir: Path, num_songs: int) -> None:
    """Evaluate every checkpoint that has not been, and write learning_curve.json into the run's folder.

    Args:
        job: Whose stages they are.
        run_dir: A finished run that kept its checkpoints.
        num_songs: Held-out songs to ask about.

    Raises:
        StageError: An evaluation failed.
    """
    found: dict[int, dict[str, Any]] = {}
    for step in sorted(list_steps(run_dir)):
        folder = run_dir / "curve" / f"step-{step}"
        result = folder / "evaluation.json"
        job.run(f"curve-{step}", command_of(run_dir, step, folder, num_songs), result.is_file)
        tasks = parse_json(result.read_text(encoding="utf-8"))["tasks"]
        found.setdefault(0, pick(tasks, "before"))
        found[step] = pick(tasks, "after")
    points = [{"step": step, "tasks": tasks} for step, tasks in sorted(found.items())]
    text = json.dumps({"format_version": FORMAT_VERSION, "points": points}, indent=2, allow_nan=False)
    write_text_durably(run_dir / CURVE_FILE, text + "\n")


def command_of(run_dir: Path, step: int, folder: Path, num_songs: int) -> list[str]:
    """The command that evaluates a checkpoint."""
    adapter = run_dir / f"{PREFIX}{step}" / "adapter"
    return [
        *("harness", "evaluate", "--run", str(run_dir), "--adapter", str(adapter), "--output", str(folder)),
        *("--songs", str(num_songs), "--methods", "rank", "--no-baselines"),
    ]


def pick(tasks: dict[str, Any], version: str) -> dict[str, Any]:
    """The ranked accuracy of the tasks that have one."""
    return {task: found[version] for task, found in tasks.items() if found.get(version)}
