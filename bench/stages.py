"""A long job as stages, each a command of this program; the same job goes on after the last stage that is done.

runs/learn/
    plan.json          what the job was begun with; another plan is refused, nothing is deleted
    stages.jsonl       a line for each attempt at a stage: its seconds and its exit code
    logs/<stage>.log   what its commands said
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.json_lines import encode_line, read_json_lines
from preprocess.durable import make_folder, write_text_durably
from preprocess.errors import ConfigError, UserError
from preprocess.outside_text import parse_json, visible

PLAN_FILE, STAGES_FILE, LOGS = "plan.json", "stages.jsonl", "logs"


class StageError(UserError):
    """A stage's command failed; the job ends with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Job:
    """A folder in which stages are done.

    Attributes:
        folder: Where everything of the job is.
    """

    folder: Path

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Note the plan, or see that the job that was begun here has the same.

        Raises:
            ConfigError: It has another one.
        """
        path, text = self.folder / PLAN_FILE, json.dumps(plan, indent=2, sort_keys=True, allow_nan=False)
        if path.is_file():
            before, now = parse_json(path.read_text(encoding="utf-8")), json.loads(text)
            differing = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
            if differing:
                key = differing[0]
                raise ConfigError(
                    f"{self.folder}: begun with another plan: {key} was {before.get(key)!r} and is {now.get(key)!r}. "
                    "Move the folder away to begin anew, or restore what has changed to go on"
                )
            return
        if self.folder.is_dir() and any(self.folder.iterdir()):
            note = f"{self.folder}: not begun by this program; what is there is taken as it is"
            print(visible(note), file=sys.stderr, flush=True)
        make_folder(self.folder)
        write_text_durably(path, text + "\n")

    def run(self, stage: str, words: Sequence[str], is_done: Callable[[], bool] = lambda: False) -> None:
        """Run a command as a stage, unless it is done; what it says goes into the stage's log.

        Args:
            stage: Its name.
            words: What follows `python -m`.
            is_done: Whether there is nothing left to do.

        Raises:
            StageError: The command failed.
        """
        if is_done():
            return
        log = self.folder / LOGS / f"{stage}.log"
        make_folder(log.parent)
        print(visible(f"{self.folder}: {stage} …"), file=sys.stderr, flush=True)
        started_s = time.monotonic()
        with log.open("a", encoding="utf-8") as file:
            command = [sys.executable, "-m", *words]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
            )
        self._note(stage, time.monotonic() - started_s, done.returncode)
        if done.returncode:
            raise StageError(
                f"{stage} ended with exit code {done.returncode}; it said: {last_line(log)!r} ({log}). Mend that and "
                "give the same command again: it goes on there",
                done.returncode if done.returncode > 0 else 128 - done.returncode,
            )

    def _note(self, stage: str, seconds: float, code: int) -> None:
        with (self.folder / STAGES_FILE).open("a", encoding="utf-8") as file:
            file.write(encode_line({"stage": stage, "seconds": seconds, "exit_code": code}))

    def seconds(self) -> dict[str, float]:
        """Seconds by stage: of the last time that it was done, with the failed attempts just before it."""
        path, found, done = self.folder / STAGES_FILE, dict[str, float](), set[str]()
        for line in read_json_lines(path) if path.is_file() else ():
            stage = line["stage"]
            found[stage] = line["seconds"] + (0.0 if stage in done else found.get(stage, 0.0))
            (done.discard if line["exit_code"] else done.add)(stage)
        return found


def last_line(log: Path) -> str:
    """The last line of a log that says something, made safe to show; "" of none."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return visible(next((line.strip() for line in reversed(lines) if line.strip()), ""))


def is_trained(run_dir: Path) -> bool:
    """Whether a run came to its end and its adapter is there."""
    metrics = run_dir / "metrics.jsonl"
    if not (run_dir / "adapter" / "adapter_config.json").is_file() or not metrics.is_file():
        return False
    lines = read_json_lines(metrics)
    return bool(lines) and lines[-1].get("kind") == "summary"


def has_checkpoint(run_dir: Path) -> bool:
    """Whether there is something to go on from."""
    return any(run_dir.glob("checkpoint-*/manifest.json"))
